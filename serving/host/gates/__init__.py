"""Runs the gates on a candidate, the cheap ones first. Each gate is one file, and one line in `GATES`."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from serving.domain.compiled_form import Graph
from serving.domain.errors import ServingError
from serving.domain.report import MAX_EVIDENCE_CHARACTERS, GateResult, Verdict
from serving.domain.signature import why_not_sound
from serving.domain.text import one_line
from serving.host.gates.batching_gate import BatchingGate
from serving.host.gates.budget_gate import BudgetGate
from serving.host.gates.compile_gate import CompileGate
from serving.host.gates.contract_gate import ContractGate
from serving.host.gates.environment_gate import EnvironmentGate
from serving.host.gates.finite_gate import FiniteGate
from serving.host.gates.format_gate import FormatGate
from serving.host.gates.gate import Gate, GateContext, GateOutcome, GateRefused
from serving.host.gates.golden_gate import GoldenGate
from serving.host.gates.integrity_gate import IntegrityGate
from serving.host.gates.load_gate import LoadGate
from serving.host.gates.provenance_gate import ProvenanceGate
from serving.host.gates.published_gate import PublishedGate
from serving.host.gates.replay_gate import ReplayGate
from serving.host.gates.warm_up_gate import WarmUpGate
from serving.host.loading import library_versions
from serving.host.model import LoadedModel, add_skew, describe_exception
from serving.wire.evaluation import Findings, Preparation

GATES: tuple[Gate, ...] = (
    PublishedGate(),
    IntegrityGate(),
    ProvenanceGate(),
    FormatGate(),
    LoadGate(),
    EnvironmentGate(),
    ContractGate(),
    GoldenGate(),
    FiniteGate(),
    BudgetGate(),
    BatchingGate(),
    ReplayGate(),
    CompileGate(),
    WarmUpGate(),
)


class EvaluatedCandidate(NamedTuple):
    """The result of an evaluation: this host is to serve `model`, or else the server is to answer with `graphs`."""

    findings: Findings
    model: LoadedModel | None = None
    graphs: tuple[Graph, ...] = ()


def run_gates(
    context: GateContext, on_start: Callable[[str], None], on_finish: Callable[[GateResult], None]
) -> EvaluatedCandidate:
    """Run the gates of the request that have not run yet, up to the first that refuses the candidate.

    `on_start` is called before each gate, `on_finish` after it. A respawned version is only loaded and warmed up.
    Returns the findings and, if no gate refused, the model or its graphs. Blocks; runs the candidate's code. Raises
    only the exceptions of `on_start` and `on_finish`.
    """
    verdict = None
    run_before = {result.gate for result in context.request.prior}
    for gate in GATES:
        if gate.name not in context.request.gates or gate.name in run_before:
            continue
        on_start(gate.name)
        begin = monotonic()
        verdict, evidence = _run_gate(gate, context)
        if verdict is Verdict.REFUSED:
            evidence = add_skew(one_line(evidence, MAX_EVIDENCE_CHARACTERS - 200), context.skew)
        evidence = one_line(evidence, MAX_EVIDENCE_CHARACTERS)
        on_finish(GateResult(gate=gate.name, verdict=verdict, evidence=evidence, duration_seconds=monotonic() - begin))
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
        return EvaluatedCandidate(findings)
    if not context.graphs or context.compilation is None:
        return EvaluatedCandidate(findings, model)
    compiled = {"engine": context.compilation.engine, "memory_bytes": context.compilation.graph_bytes}
    return EvaluatedCandidate(findings.model_copy(update=compiled), None, context.graphs)


def make_preparation(context: GateContext) -> Preparation:
    """Return what the host reports of a candidate before it opens the candidate's file."""
    return Preparation(sandbox=context.sandbox, libraries=library_versions(), provenance=context.provenance)


def _run_gate(gate: Gate, context: GateContext) -> GateOutcome:
    try:
        return gate.check(context)
    except (GateRefused, ServingError) as error:
        return Verdict.REFUSED, str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (a candidate may raise anything, and call sys.exit)
        return Verdict.REFUSED, describe_exception(error)
