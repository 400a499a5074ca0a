"""Gate: whether a compiled form may answer in the model's place. It refuses only where one is required."""

from __future__ import annotations

from serving.domain.batch import Batch
from serving.domain.compiled import Compilation
from serving.domain.report import Verdict
from serving.host.compiling.compile import compile_model
from serving.host.gates.gate import Context, Outcome, Refused


class Compile:
    """A compiled form answers like the model on every row tried, and faster; or else the model stays in its host."""

    name = "compile"

    def check(self, context: Context) -> Outcome:
        """Compile and prove, unless the settings or an earlier verdict over the same bytes spare it."""
        request = context.request.compile
        if request.mode == "off":
            return Verdict.SKIPPED, "engine.compile is off"
        if request.known is not None:
            context.compilation = request.known
        elif context.unanswerable:
            context.compilation = Compilation(engine=None, reason=context.unanswerable)
        else:
            context.compilation, context.graphs = compile_model(context.loaded, request, _examples(context))
        compilation = context.compilation
        if compilation.engine is not None:
            return Verdict.PASSED, compilation.reason
        if request.mode == "require":
            raise Refused(f"no compiled form, and engine.compile = require: {compilation.reason}")
        return Verdict.SKIPPED, f"stays in its host: {compilation.reason}"


def _examples(context: Context) -> list[Batch]:
    return [] if context.golden is None else [context.rows(len(context.golden.instances))]
