"""Gate: whether a compiled form may answer in the model's place. It refuses only where one is required."""

from __future__ import annotations

from collections.abc import Callable

from serving.compiling.compile_model import compile_in_worker, compile_model, import_compilers
from serving.compiling.forked_worker import ForkedWorker
from serving.domain.compiled_form import UNSIGNED_FILE, Compilation
from serving.domain.report import GateName, Verdict
from serving.domain.sandbox import Sandbox
from serving.domain.version import Format
from serving.host.gates.gate import Context, Outcome, Refused
from serving.host.gates.load_gate import load_candidate
from serving.rows.batch import Batch
from serving.wire.evaluation import EvaluationRequest, why_hosted


class Compile:
    """A compiled form answers like the model on every row tried, and faster; or else the model stays in its host."""

    name = GateName.COMPILE

    def check(self, context: Context) -> Outcome:
        """Compile and prove, unless the settings or an earlier verdict over the same bytes spare it."""
        request = context.request.compile
        if request.mode == "off":
            return Verdict.SKIPPED, "engine.compile is off"
        if request.known is not None:
            context.compilation = request.known
        elif context.unanswerable:
            context.compilation = Compilation(engine=None, reason=context.unanswerable)
        elif (reason := why_hosted(context.request, context.sandbox)) is not None:
            context.compilation = Compilation(engine=None, reason=reason, is_final=False)
        elif context.one_by_one is not None:
            reason = f"rows must not be answered apart from those they came with: {context.one_by_one}"
            context.compilation = Compilation(engine=None, reason=reason)
        elif context.request.format is Format.ONNX and not _is_signed(context):
            context.compilation = Compilation(engine=None, reason=UNSIGNED_FILE)
        elif context.compiler is None:
            context.compilation = Compilation(engine=None, reason="no process was left to compile in", is_final=False)
        else:
            context.compilation, context.graphs = compile_in_worker(context.compiler, context.loaded, request)
            if (reason := context.compilation.guard.why_too_large()) is not None:
                context.compilation, context.graphs = Compilation(engine=None, reason=reason), ()
        compilation = context.compilation
        if compilation.engine is not None:
            return Verdict.PASSED, compilation.reason
        if request.mode == "require":
            raise Refused(f"no compiled form, and engine.compile = require: {compilation.reason}")
        return Verdict.SKIPPED, f"stays in its host: {compilation.reason}"


def start_compiler(
    request: EvaluationRequest, sandbox: Sandbox, enter: Callable[[], None], watch: Callable[[], None] = lambda: None
) -> ForkedWorker | None:
    """Fork the process that is to compile this candidate, should the gates ask for it; None where they will not.

    `sandbox` is what holds this process. The fork runs `enter` at once. When the load gate has seen that there may be
    something to compile it imports its libraries beside the other gates; the file it loads a second time, and runs
    `watch` as the load gate does.
    """
    if not request.may_compile or why_hosted(request, sandbox) is not None:
        return None
    return ForkedWorker(lambda: _compile(request, watch), enter, import_compilers)


def _is_signed(context: Context) -> bool:
    """Say whether a trusted key has signed the version, or is about to."""
    return context.provenance is not None or context.request.publisher_key in context.request.trusted_keys


def _compile(request: EvaluationRequest, watch: Callable[[], None]) -> bytes:
    import_compilers()  # what is watched can import nothing
    context = Context(request, watch=watch)
    context.model = load_candidate(context)
    return compile_model(context.loaded, request.compile, _examples(context))


def _examples(context: Context) -> list[Batch]:
    return [] if context.golden is None else [context.rows(len(context.golden.instances))]
