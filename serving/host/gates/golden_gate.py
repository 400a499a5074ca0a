"""Gate: the model answers the golden examples as expected."""

from __future__ import annotations

from typing import Any

from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.manifest import GOLDEN_NAME, Golden
from serving.domain.report import GateName, Verdict
from serving.domain.text import shorten
from serving.host.comparison import Difference, compare_values
from serving.host.gates.gate import GateContext, GateOutcome, GateRefused
from serving.rows.parsing import rows_to_batch

_SHOWN_CHARACTERS = 120


class GoldenGate:
    """Every stored row, read like the row of a request, gives the stored answer within the tolerance."""

    name = GateName.GOLDEN

    def check(self, context: GateContext) -> GateOutcome:
        """Answer the stored rows with every method that has expected answers, and compare."""
        golden = context.golden
        if golden is None:
            return Verdict.SKIPPED, f"no {GOLDEN_NAME}"
        model = context.loaded_model
        try:
            batch = rows_to_batch(model.signature, golden.instances)
        except InvalidInput as error:
            raise GateRefused(f"{GOLDEN_NAME}: {error}") from None
        for method, expected in golden.expected.items():
            if method not in model.signature.methods:
                offered = ", ".join(model.signature.methods)
                raise GateRefused(f"{GOLDEN_NAME} expects {method}, the model offers {offered}")
            if len(expected) != batch.rows:
                raise GateRefused(f"{GOLDEN_NAME} has {batch.rows} rows and {len(expected)} answers of {method}")
            try:
                got = model.answer(method, batch).list_rows()
            except (InvalidInput, ModelFailed) as error:
                raise GateRefused(f"{method} failed on the rows of {GOLDEN_NAME}: {error}") from None
            _refuse_difference(golden, method, expected, got)
        rows = f"{batch.rows} golden row{'s' * (batch.rows != 1)}, {' and '.join(golden.expected)}"
        if not golden.deterministic:
            return Verdict.PASSED, f"{rows} of the expected shape; declared not deterministic"
        return Verdict.PASSED, f"{rows} equal within rtol {golden.rtol:g}"


def _refuse_difference(golden: Golden, method: str, expected: list[Any], got: list[Any]) -> None:
    largest = Difference()
    first: tuple[int, Difference] | None = None
    for row, (wanted, given) in enumerate(zip(expected, got, strict=True)):
        found = compare_values(wanted, given, golden.rtol, golden.atol, is_shape_only=not golden.deterministic)
        largest = max(largest, found)
        if found.is_beyond and first is None:
            first = (row, found)
    if first is None:
        return
    row, found = first
    size = f" (largest difference {largest.distance:.3g}, rtol {golden.rtol:g})" if found.distance else ""
    why = f": {found.reason}" if found.reason else ""
    raise GateRefused(f"row {row}, {method}{why}: expected {_cut(expected[row])}, got {_cut(got[row])}{size}")


def _cut(value: Any) -> str:
    return shorten(repr(value), _SHOWN_CHARACTERS)
