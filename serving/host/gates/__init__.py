"""The gates a candidate passes, cheap ones first: one file each, and one line in `GATES`."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from serving.domain.compiled_form import Graph
from serving.domain.errors import ServingError
from serving.domain.report import MAX_EVIDENCE_CHARACTERS, GateResult, Verdict
from serving.domain.signature import why_not_sound
from serving.domain.text import one_line
from serving.host.gates.batching_gate import Batching
from serving.host.gates.budget_gate import Budget
from serving.host.gates.compile_gate import Compile
from serving.host.gates.contract_gate import Contract
from serving.host.gates.environment_gate import Environment
from serving.host.gates.finite_gate import Finite
from serving.host.gates.format_gate import FormatGate
from serving.host.gates.gate import Context, Gate, Outcome, Refused
from serving.host.gates.golden_gate import GoldenExamples
from serving.host.gates.integrity_gate import Integrity
from serving.host.gates.load_gate import Load
from serving.host.gates.provenance_gate import ProvenanceGate
from serving.host.gates.published_gate import Published
from serving.host.gates.warm_up_gate import WarmUp
from serving.host.loading import library_versions
from serving.host.model import LoadedModel, add_skew, describe_exception
from serving.wire.evaluation import Findings, Preparation

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
    Batching(),
    Compile(),
    WarmUp(),
)


class Evaluated(NamedTuple):
    """What became of a candidate: `model` when it is to be served from here, `graphs` when they are to be instead."""

    findings: Findings
    model: LoadedModel | None = None
    graphs: tuple[Graph, ...] = ()


def run_gates(context: Context, started: Callable[[str], None], finished: Callable[[GateResult], None]) -> Evaluated:
    """Take one candidate through the gates up to the first that refuses it.

    `started` and `finished` are called around each gate. A respawned version is only loaded and warmed up. Returns what
    was found and, when no gate refused, what is to answer. Blocks; runs the candidate's code. Raises only what
    `started` and `finished` raise.
    """
    verdict = None
    for gate in GATES:
        if gate.name not in context.request.gates:
            continue
        started(gate.name)
        begin = monotonic()
        verdict, evidence = _check(gate, context)
        if verdict is Verdict.REFUSED:
            evidence = add_skew(one_line(evidence, MAX_EVIDENCE_CHARACTERS - 200), context.skew)
        evidence = one_line(evidence, MAX_EVIDENCE_CHARACTERS)
        finished(GateResult(gate=gate.name, verdict=verdict, evidence=evidence, duration_seconds=monotonic() - begin))
        if verdict is Verdict.REFUSED:
            break
    model = context.model
    findings = Findings(
        signature=None if model is None or why_not_sound(model.signature) is not None else model.signature,
        engine=None if model is None else model.engine,
        memory_bytes=context.memory_bytes,
        compilation=context.compilation,
    )
    if verdict is Verdict.REFUSED:
        return Evaluated(findings)
    if not context.graphs or context.compilation is None:
        return Evaluated(findings, model)
    compiled = {"engine": context.compilation.engine, "memory_bytes": context.compilation.graph_bytes}
    return Evaluated(findings.model_copy(update=compiled), None, context.graphs)


def preparation_of(context: Context) -> Preparation:
    """Return what is to be said of a candidate before its file is opened."""
    return Preparation(sandbox=context.sandbox, libraries=library_versions(), provenance=context.provenance)


def _check(gate: Gate, context: Context) -> Outcome:
    try:
        return gate.check(context)
    except (Refused, ServingError) as error:
        return Verdict.REFUSED, str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (a candidate may raise anything, and call sys.exit)
        return Verdict.REFUSED, describe_exception(error)
