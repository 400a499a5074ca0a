"""Gate: whether a compiled form may replace the model. It refuses a candidate only if the settings require one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from serving.domain.compiled_form import UNSIGNED_FILE, Compilation, Graph
from serving.domain.report import GateName, Verdict
from serving.domain.sandbox import Sandbox
from serving.domain.version import Format
from serving.host.gates.gate import GateContext, GateOutcome, GateRefused
from serving.host.gates.load_gate import load_candidate
from serving.host.library_set import why_no_compiler
from serving.rows.batch import Batch
from serving.wire.evaluation import EvaluationRequest, why_hosted

if TYPE_CHECKING:
    from serving.compiling.forked_worker import ForkedWorker


class CompileGate:
    """A compiled form answers like the model on every tried row, and faster; otherwise the model stays in its host."""

    name = GateName.COMPILE

    def check(self, context: GateContext) -> GateOutcome:
        """Compile and prove, unless the settings or an earlier verdict on the same bytes make that unnecessary."""
        request = context.request.compile
        if request.mode == "off":
            return Verdict.SKIPPED, "engine.compile is off"
        if request.known is not None:
            context.compilation = request.known
        elif context.why_unanswerable:
            context.compilation = Compilation(engine=None, reason=context.why_unanswerable)
        elif (reason := why_hosted(context.request, context.sandbox)) is not None:
            context.compilation = Compilation(engine=None, reason=reason, is_final=False)
        elif context.why_one_by_one is not None:
            reason = f"the rows of a request must be answered together: {context.why_one_by_one}"
            context.compilation = Compilation(engine=None, reason=reason)
        elif context.request.format is Format.ONNX and not _is_signed(context):
            context.compilation = Compilation(engine=None, reason=UNSIGNED_FILE)
        elif (reason := why_no_compiler()) is not None:
            context.compilation = Compilation(engine=None, reason=reason, is_final=False)
        elif context.compiler is None:
            context.compilation = Compilation(engine=None, reason="there is no process to compile in", is_final=False)
        else:
            context.compilation, context.graphs = _compile_in_worker(context, context.compiler)
        compilation = context.compilation
        if compilation.engine is not None:
            return Verdict.PASSED, compilation.reason
        if request.mode == "require":
            raise GateRefused(f"no compiled form, and engine.compile = require: {compilation.reason}")
        return Verdict.SKIPPED, f"stays in its host: {compilation.reason}"


def _compile_in_worker(context: GateContext, worker: ForkedWorker) -> tuple[Compilation, tuple[Graph, ...]]:
    from serving.compiling.compile_model import compile_in_worker  # noqa: PLC0415  (needs onnx)

    compilation, graphs = compile_in_worker(worker, context.loaded_model, context.request.compile)
    if (reason := compilation.guard.why_too_large()) is not None:
        return Compilation(engine=None, reason=reason), ()
    return compilation, graphs


def start_compiler(
    request: EvaluationRequest, sandbox: Sandbox, enter: Callable[[], None], watch: Callable[[], None] = lambda: None
) -> ForkedWorker | None:
    """Fork the process that compiles this candidate if the gates ask for it; return None where they never will.

    `sandbox` describes the sandbox of this process. The fork runs `enter` at once. When the gate `load` has found that
    the model may be compiled, the fork imports its libraries while the other gates run. It loads the file a second
    time, and calls `watch` like the gate `load`.
    """
    if not request.may_compile or why_hosted(request, sandbox) is not None or why_no_compiler() is not None:
        return None
    from serving.compiling.compile_model import import_compilers  # noqa: PLC0415  (needs onnx)
    from serving.compiling.forked_worker import ForkedWorker  # noqa: PLC0415  (of the same package)

    return ForkedWorker(lambda: _compile_candidate(request, watch), enter, import_compilers)


def _is_signed(context: GateContext) -> bool:
    """Say whether a trusted key has signed the version, or will sign it when it is published."""
    return context.provenance is not None or context.request.publisher_key in context.request.trusted_keys


def _compile_candidate(request: EvaluationRequest, watch: Callable[[], None]) -> bytes:
    from serving.compiling.compile_model import compile_model, import_compilers  # noqa: PLC0415  (needs onnx)

    import_compilers()  # a watched process can import nothing
    context = GateContext(request, watch=watch)
    context.model = load_candidate(context)
    return compile_model(context.loaded_model, request.compile, _list_examples(context))


def _list_examples(context: GateContext) -> list[Batch]:
    return [] if context.golden is None else [context.pick_rows(len(context.golden.instances))]
