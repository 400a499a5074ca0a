"""Gate: every method runs before the first request, so that the model has built what it builds on first use."""

from __future__ import annotations

from time import monotonic

from serving.domain.errors import InvalidInput
from serving.domain.report import GateName, Verdict
from serving.host.gates.budget_gate import read_private_bytes, read_resident_bytes
from serving.host.gates.gate import GateContext, GateOutcome

BATCH_ROWS = 64
BATCH_SECONDS = 0.5


class WarmUpGate:
    """Every method has answered a row and, unless the model is slow, a batch."""

    name = GateName.WARM_UP

    def check(self, context: GateContext) -> GateOutcome:
        """Run each method for one row and for 64 rows; stop after half a second."""
        if context.why_unanswerable:
            return Verdict.SKIPPED, context.why_unanswerable
        model = context.loaded_model
        begin, resident = monotonic(), read_resident_bytes()
        sizes: list[int] = []
        for rows in sorted({1, min(BATCH_ROWS, context.request.max_rows)}):
            if sizes and monotonic() - begin > BATCH_SECONDS:
                break
            try:
                for method in model.signature.methods:
                    model.answer(method, context.pick_rows(rows))
            except InvalidInput as error:
                return Verdict.SKIPPED, f"the model refuses made-up rows ({error})"
            sizes.append(rows)
        if context.memory_bytes is None:
            context.memory_bytes = read_private_bytes()
        else:
            context.memory_bytes += max(0, read_resident_bytes() - resident)
        counts = " and ".join(map(str, sizes))
        return Verdict.PASSED, f"{', '.join(model.signature.methods)} ran for {counts} rows"
