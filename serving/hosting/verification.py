"""Check what a host reports about a candidate against the server's request, before the server uses any of it.

The server trusts a host until it opens the candidate's file: it is a fresh fork that has run only this package. From
then on the file may control what the host reports. So the server decides here, from earlier reports, what must be true
before a file is opened: the required sandbox, and the key that must have signed. Later reports are accepted only if
they fit the request. Nothing here waits or writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from math import isfinite

from serving.domain.compiled_form import UNSIGNED_FILE, Compilation, Graph
from serving.domain.environment import COMPARED, OWN, to_minor
from serving.domain.manifest import Manifest
from serving.domain.report import (
    MAX_EVIDENCE_CHARACTERS,
    CandidateReport,
    GateName,
    GateResult,
    Verdict,
)
from serving.domain.sandbox import Sandbox
from serving.domain.signature import Signature, why_not_sound
from serving.domain.text import one_line
from serving.domain.version import Format
from serving.wire.compatibility import explain_contract_break
from serving.wire.evaluation import EvaluationRequest, Findings, Preparation, why_hosted

ONNX = "onnx"
ONNXRUNTIME = "onnxruntime"
MAX_MEMORY_BYTES = 1 << 50
MAX_KIND_CHARACTERS = 64

_ESTIMATORS = frozenset({"sklearn", "xgboost", "lightgbm"})
ENGINES = {
    Format.JOBLIB: _ESTIMATORS,
    Format.PICKLE: _ESTIMATORS,
    Format.SKOPS: _ESTIMATORS,
    Format.ONNX: frozenset({ONNX}),
    Format.XGBOOST: frozenset({"xgboost"}),
    Format.LIGHTGBM: frozenset({"lightgbm"}),
}


class ClaimRefused(Exception):  # an outcome, not an error: only `evaluating.evaluate_candidate` catches it
    """The server does not accept what a host reported; `gate` refuses its candidate with the message, one line."""

    def __init__(self, gate: GateName, reason: str) -> None:
        super().__init__(one_line(reason, MAX_EVIDENCE_CHARACTERS))
        self.gate = gate


def _require(is_so: bool, gate: GateName, otherwise: str) -> None:
    if not is_so:
        raise ClaimRefused(gate, otherwise)


# --- before the file is opened ----------------------------------------------------------------------------------------


def check_preparation(request: EvaluationRequest, preparation: Preparation, results: Sequence[GateResult]) -> None:
    """Decide whether a host may open the file of its candidate, by the results of the gates before.

    Raises ClaimRefused when it may not; then the candidate is refused.
    """
    sandbox = preparation.sandbox
    is_held = sandbox.is_whole or not request.require_sandbox
    _require(is_held, GateName.LOAD, f"this system lacks what security.require_sandbox asks for: {sandbox}")
    _require_same_libraries(request, preparation)
    if request.trust != "signed" or request.is_respawn or request.publisher_key is not None:
        return  # a version that is loaded again was verified before; one that is to be published is not signed yet
    verdict = next((result.verdict for result in results if result.gate == GateName.PROVENANCE), None)
    is_signed = verdict is Verdict.PASSED and preparation.provenance is not None
    _require(is_signed, GateName.LOAD, 'security.trust is "signed", and no trusted key has signed this version')


def _require_same_libraries(request: EvaluationRequest, preparation: Preparation) -> None:
    """Raise ClaimRefused for a version that passed under other libraries: its answers might silently be wrong."""
    where = "the server" if request.place == OWN else f"the environment '{request.place}'"
    for name in COMPARED.values():
        before, now = request.passed_under.get(name), preparation.libraries.get(name, "none")
        reason = (
            f"it was evaluated with {name} {before}, and {where} has {now} by now: install {before} there again, "
            "or publish the version again"
        )
        _require(before is None or to_minor(before) == to_minor(now), GateName.LOAD, reason)


# --- at the end -------------------------------------------------------------------------------------------------------


def why_no_graph(request: EvaluationRequest, sandbox: Sandbox) -> str | None:
    """Say why the server did not request a graph; None when the host may send one."""
    if request.is_respawn:
        return "only the model was to be loaded again"
    if request.compile.mode == "off":
        return "engine.compile is off"
    if request.compile.known is not None:
        return "an earlier evaluation found none"
    return why_hosted(request, sandbox) or (None if request.may_compile else UNSIGNED_FILE)


def check_findings(
    request: EvaluationRequest,
    manifest: Manifest | None,
    findings: Findings,
    graphs: Sequence[Graph],
    *,
    is_refused: bool,
) -> Findings:
    """Check the findings of a host against the request; returns them with printable texts.

    `manifest` is that of the version, as the server read it; `is_refused` says that a gate has refused the candidate.
    Raises ClaimRefused with the gate that should have refused.
    """
    signature, compilation, memory_bytes = findings.signature, findings.compilation, findings.memory_bytes
    unsound = None if signature is None else why_not_sound(signature)
    _require(unsound is None, GateName.LOAD, f"the process describes a model that cannot be served: {unsound}")
    is_amount = memory_bytes is None or 0 <= memory_bytes <= MAX_MEMORY_BYTES
    _require(is_amount, GateName.BUDGET, "the process reports an impossible amount of memory")
    if compilation is not None:
        _check_compilation(compilation, signature)
        reason = one_line(compilation.reason, MAX_EVIDENCE_CHARACTERS)
        findings = findings.model_copy(update={"compilation": compilation.model_copy(update={"reason": reason})})
    engines = ENGINES[request.format] | {ONNX, None} if is_refused else {ONNX} if graphs else ENGINES[request.format]
    _require(findings.engine in engines, GateName.LOAD, "the process names an engine that does not read this format")
    if is_refused:
        return findings
    if signature is None:
        raise ClaimRefused(GateName.LOAD, "the process passed every gate and describes no model")
    broken = explain_contract_break(request, manifest, signature)
    _require(broken is None, GateName.CONTRACT, broken or "")
    _check_form(request, compilation, graphs, signature)
    size = sum(len(graph.content) for graph in graphs) if graphs else memory_bytes
    return findings.model_copy(update={"memory_bytes": size})


def make_report(
    results: Sequence[GateResult], preparation: Preparation | None = None, findings: Findings | None = None
) -> CandidateReport:
    """Make the report of a candidate from the results of its gates and from the findings that were checked."""
    preparation, findings = preparation or Preparation(sandbox=Sandbox()), findings or Findings()
    libraries = dict(preparation.libraries)
    if findings.engine == ONNX:
        libraries[ONNXRUNTIME] = metadata.version(ONNXRUNTIME)
    return CandidateReport(
        gates=tuple(results),
        signature=findings.signature,
        engine=findings.engine,
        libraries=libraries,
        memory_bytes=findings.memory_bytes,
        compilation=findings.compilation,
        sandbox=preparation.sandbox,
        provenance=preparation.provenance,
    )


def _check_form(
    request: EvaluationRequest,
    compilation: Compilation | None,
    graphs: Sequence[Graph],
    signature: Signature,
) -> None:
    """Check that graphs, compilation and request agree. `why_no_graph` has been checked before."""

    def require(is_so: bool, otherwise: str) -> None:
        _require(is_so, GateName.COMPILE, otherwise)

    is_compiled = compilation is not None and compilation.engine is not None
    asked = request.compile
    if request.is_respawn or asked.mode == "off":
        require(compilation is None, "the process reports on compiling, which was not requested")
        return
    if compilation is None:
        raise ClaimRefused(GateName.COMPILE, "the process passed every gate and reports nothing on compiling")
    require(asked.known in (None, compilation), "the process reports another verdict on compiling than the known one")
    is_own = asked.known is None and compilation.lacks_memory
    require(not is_own, "the process says of the memory of workers what it cannot know")
    require(is_compiled == bool(graphs), "a compiled form came without its graphs, or graphs without a compiled form")
    is_as_required = is_compiled or asked.mode != "require"
    require(is_as_required, f"no compiled form, and engine.compile = require: {compilation.reason}")
    if is_compiled:
        offered = [method for graph in graphs for method in graph.outputs]
        is_complete = sorted(offered) == sorted(signature.methods)
        require(
            is_complete, f"a compiled form of {', '.join(offered)}; the model offers {', '.join(signature.methods)}"
        )
        size = sum(len(graph.content) for graph in graphs)
        require(compilation.graph_bytes == size, "the graphs have another size than was reported")


def _check_compilation(compilation: Compilation, signature: Signature | None) -> None:
    """Refuse impossible numbers, texts that are not printable, and a guard of unknown features."""
    guard, rows = compilation.guard, compilation.rows
    known = [value for values in guard.known.values() for value in values if isinstance(value, float)]
    amounts = [
        *(compilation.largest_difference, compilation.graph_bytes, compilation.seconds),
        *(compilation.batch_rows, compilation.most_rows),
        *(compilation.row_seconds or ()),
        *(compilation.batch_seconds or ()),
        *(proven.rows for proven in rows),
    ]
    features = 0 if signature is None else len(signature.features)
    is_sane = (
        compilation.engine in (None, ONNX)
        and compilation.bounds is None  # the checker of graphs finds them, no host
        and all(number is None or isfinite(number) for number in (guard.smallest, guard.largest, *known))
        and all(amount is None or (isfinite(amount) and amount >= 0) for amount in amounts)
        and all(0 <= place < features for place in guard.known)
        and guard.why_too_large() is None
        and all(proven.kind == one_line(proven.kind, MAX_KIND_CHARACTERS) for proven in rows)
    )
    _require(is_sane, GateName.COMPILE, "the process reports an impossible verdict on compiling")
