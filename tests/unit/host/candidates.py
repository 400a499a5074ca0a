"""A candidate on disk, as the server stages it, and what the gates say of it."""

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
    """What became of a candidate, and what was told on the way."""

    report: CandidateReport
    model: LoadedModel | None
    told: list[str] = field(default_factory=list)
    graphs: tuple[Graph, ...] = ()

    def __getitem__(self, gate: str) -> GateResult:
        return next(result for result in self.report.gates if result.gate == gate)


@dataclass
class Candidate:
    """One version as it was staged: blobs without suffixes, hashed. `write` adds a file, `evaluate` asks the gates."""

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
        """Write a manifest that lists all files written so far; `fields` replace its own."""
        listed = [{"name": file.name, "sha256": file.sha256, "size": file.size} for file in self.files.values()]
        manifest = {"model": "m", "version": "1", "created_at": "2026-11-20T08:00:00Z", "files": listed, **fields}
        self.write("manifest.json", json.dumps(manifest).encode())

    def evaluate(self, sandbox: Sandbox = WHOLE, **options: Any) -> Outcome:
        """Run the gates, in this process, as though `sandbox` held it; `options` replace fields of the request."""
        fields: dict[str, Any] = {
            "model": "m",
            "version": "1",
            "digest": digest_of((file.name, file.sha256) for file in self.files.values()),
            "format": self.format,
            "main": self.files[self.name],
            "files": tuple(self.files.values()),
            "compile": CompileRequest(mode="off"),
            "trust": "any",  # tests have estimators of their own
            "quiet_seconds": None if "manifest.json" in self.files else 0.5,
        }
        request = EvaluationRequest(**{**fields, **options})
        told: list[str] = []
        results: list[GateResult] = []

        def finished(result: GateResult) -> None:
            told.append(f"{result.gate} {result.verdict}")
            results.append(result)

        compiler = start_compiler(request, sandbox, lambda: None)
        context = GateContext(request, sandbox, compiler)
        findings, model, graphs = run_gates(context, lambda gate: told.append(f"{gate} started"), finished)
        if compiler is not None:
            compiler.dismiss()
        return Outcome(make_report(results, make_preparation(context), findings), model, told, graphs)


MakeCandidate = Callable[..., Candidate]
