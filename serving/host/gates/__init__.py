"""The gates a candidate passes, cheap ones first: one file each, and one line in `GATES`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from time import monotonic
from typing import NamedTuple

from serving.domain.compiled import Graph
from serving.domain.errors import ServingError
from serving.domain.report import CandidateReport, GateResult, Verdict
from serving.host.gates.budget import Budget
from serving.host.gates.compile import Compile
from serving.host.gates.contract import Contract
from serving.host.gates.environment import Environment
from serving.host.gates.finite import Finite
from serving.host.gates.format import FormatGate
from serving.host.gates.gate import Context, Gate, Outcome, Refused
from serving.host.gates.golden import GoldenExamples
from serving.host.gates.integrity import Integrity
from serving.host.gates.load import Load
from serving.host.gates.provenance import ProvenanceGate
from serving.host.gates.published import Published
from serving.host.gates.warm_up import WarmUp
from serving.host.loading import library_versions
from serving.host.model import LoadedModel, told

GATES: tuple[Gate, ...] = (
    Published(),
    Integrity(),
    ProvenanceGate(),
    FormatGate(),
    Load(),
    Environment(),
    Contract(),
    GoldenExamples(),
    Finite(),
    Budget(),
    Compile(),
    WarmUp(),
)
ONNXRUNTIME = "onnxruntime"
ON_RESPAWN = ("load", "warm-up")


class Evaluated(NamedTuple):
    """What became of a candidate: `model` when it is to be served from here, `graphs` when they are to be instead."""

    report: CandidateReport
    model: LoadedModel | None = None
    graphs: tuple[Graph, ...] = ()


def run_gates(context: Context, started: Callable[[str], None], finished: Callable[[GateResult], None]) -> Evaluated:
    """Take one candidate through the gates up to the first that refuses it.

    `started` and `finished` are called around each gate. A respawned version is only loaded and warmed up. Returns the
    report and, when no gate refused, what is to answer. Blocks; runs the candidate's code. Raises only what
    `started` and `finished` raise.
    """
    results = []
    for gate in GATES:
        if context.request.is_respawn and gate.name not in ON_RESPAWN:
            continue
        started(gate.name)
        begin = monotonic()
        verdict, evidence = _check(gate, context)
        result = GateResult(gate=gate.name, verdict=verdict, evidence=evidence, duration_seconds=monotonic() - begin)
        results.append(result)
        finished(result)
        if verdict is Verdict.REFUSED:
            break
    model = context.model
    report = CandidateReport(
        gates=tuple(results),
        signature=None if model is None else model.signature,
        engine=None if model is None else model.engine,
        libraries=library_versions(),
        memory_bytes=context.memory_bytes,
        compilation=context.compilation,
        sandbox=context.sandbox,
        provenance=context.provenance,
    )
    if report.refusal is not None:
        return Evaluated(report)
    if not context.graphs or context.compilation is None:
        return Evaluated(report, model)
    size = context.compilation.graph_bytes
    libraries = {**report.libraries, ONNXRUNTIME: metadata.version(ONNXRUNTIME)}
    engine = {"engine": context.compilation.engine, "memory_bytes": size, "libraries": libraries}
    compiled = report.model_copy(update=engine)
    return Evaluated(compiled, None, context.graphs)


def _check(gate: Gate, context: Context) -> Outcome:
    try:
        return gate.check(context)
    except (Refused, ServingError) as error:
        return Verdict.REFUSED, str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (a candidate may raise anything, and call sys.exit)
        return Verdict.REFUSED, told(error)
