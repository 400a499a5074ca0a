"""Makes candidates on disk, as the server stages them, and runs the gates on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from serving.domain.compiled_form import Graph
from serving.domain.report import CandidateReport, GateResult
from serving.domain.sandbox import LAYERS, Sandbox
from serving.domain.version import Format, digest_of
from serving.host.gates import make_preparation, run_gates
from serving.host.gates.compile_gate import start_compiler
from serving.host.gates.gate import GateContext
from serving.host.model import LoadedModel
from serving.hosting.verification import make_report
from serving.wire.evaluation import CompileRequest, EvaluationFile, EvaluationRequest

WHOLE = Sandbox(active=LAYERS)
ROWS = np.random.default_rng(6).normal(size=(60, 3))
WORDS = np.array(["no", "yes"])[(ROWS[:, 0] > 0).astype(int)]


@dataclass
class Outcome:
    """The report on a candidate, the model or graphs to serve, and the reported events in order."""

    report: CandidateReport
    model: LoadedModel | None
    events: list[str] = field(default_factory=list)
    graphs: tuple[Graph, ...] = ()

    def __getitem__(self, gate: str) -> GateResult:
        return next(result for result in self.report.gates if result.gate == gate)


@dataclass
class Candidate:
    """One staged version: hashed blobs without suffixes. `write` adds a file, `evaluate` runs the gates."""

    directory: Path
    name: str = "model.joblib"
    format: Format = Format.JOBLIB
    files: dict[str, EvaluationFile] = field(default_factory=dict)

    def write(self, name: str, raw: bytes) -> EvaluationFile:
        sha256 = hashlib.sha256(raw).hexdigest()
        path = self.directory / sha256
        path.write_bytes(raw)
        self.files[name] = EvaluationFile(name=name, sha256=sha256, size=len(raw), path=str(path))
        return self.files[name]

    def write_golden(self, **fields: Any) -> None:
        self.write("golden.json", json.dumps(fields).encode())

    def write_manifest(self, **fields: Any) -> None:
        """Write a manifest that lists all files written so far; `fields` replace its fields."""
        listed = [{"name": file.name, "sha256": file.sha256, "size": file.size} for file in self.files.values()]
        manifest = {"model": "m", "version": "1", "created_at": "2026-11-20T08:00:00Z", "files": listed, **fields}
        self.write("manifest.json", json.dumps(manifest).encode())

    def evaluate(self, sandbox: Sandbox = WHOLE, **options: Any) -> Outcome:
        """Run the gates in this process, as if it were in `sandbox`; `options` replace fields of the request."""
        fields: dict[str, Any] = {
            "model": "m",
            "version": "1",
            "digest": digest_of((file.name, file.sha256) for file in self.files.values()),
            "format": self.format,
            "main": self.files[self.name],
            "files": tuple(self.files.values()),
            "compile": CompileRequest(mode="off"),
            "trust": "any",  # tests define their own estimators
            "quiet_seconds": None if "manifest.json" in self.files else 0.5,
            "max_latency_seconds": 60.0,  # this machine may be busy
        }
        request = EvaluationRequest(**{**fields, **options})
        events: list[str] = []
        results: list[GateResult] = []

        def finish(result: GateResult) -> None:
            events.append(f"{result.gate} {result.verdict}")
            results.append(result)

        compiler = start_compiler(request, sandbox, lambda: None)
        context = GateContext(request, sandbox, compiler, recent_rows=request.recent_rows)
        findings, model, graphs = run_gates(context, lambda gate: events.append(f"{gate} started"), finish)
        if compiler is not None:
            compiler.dismiss()
        return Outcome(make_report(results, make_preparation(context), findings), model, events, graphs)


MakeCandidate = Callable[..., Candidate]
