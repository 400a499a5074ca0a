"""What came of the copies that a shadow answers, as numbers in the row of a split, and as a report.

    pairs, dropped, failed_new, failed_old, then for each output: code, rows, differing, total, worst

The same output may lie in another place in each worker's row; its code says which one it is. All but the worst
difference are sums.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import NamedTuple

from serving.domain.answer_pair import MOST_DIFFERENCE, MOST_OUTPUTS, AnswerPair, OutputPair
from serving.domain.rollout import OutputDifference, ShadowReport
from serving.domain.signature import METHODS

PAIRS, DROPPED, FAILED_NEW, FAILED_OLD = range(4)
_OUTPUTS, _WIDTH = 4, 5
_PLACES = 4096
SHADOW_NUMBERS = _OUTPUTS + MOST_OUTPUTS * _WIDTH


class OutputCount(NamedTuple):
    """One output over all pairs: see `OutputPair`."""

    rows: int
    differing: int
    total: float
    worst: float


class ShadowCount(NamedTuple):
    """Pairs of answers, copies that were dropped, requests that only one version has answered, and outputs by code."""

    pairs: int = 0
    dropped: int = 0
    failed_new: int = 0
    failed_old: int = 0
    outputs: tuple[tuple[int, OutputCount], ...] = ()

    @classmethod
    def of(cls, numbers: Sequence[float]) -> ShadowCount:
        """Return what a row holds."""
        pairs, dropped, failed_new, failed_old = (int(number) for number in numbers[:_OUTPUTS])
        outputs = {}
        for start in range(_OUTPUTS, SHADOW_NUMBERS, _WIDTH):
            code, rows, differing, total, worst = numbers[start : start + _WIDTH]
            if code:
                outputs[int(code)] = OutputCount(int(rows), int(differing), total, worst)
        return cls(pairs, dropped, failed_new, failed_old, tuple(outputs.items()))

    def plus(self, other: ShadowCount) -> ShadowCount:
        """Return the sum, and the worst of both."""
        outputs = dict(self.outputs)
        for code, count in other.outputs:
            before = outputs.get(code, OutputCount(0, 0, 0.0, 0.0))
            outputs[code] = OutputCount(
                before.rows + count.rows,
                before.differing + count.differing,
                min(before.total + count.total, MOST_DIFFERENCE),
                max(before.worst, count.worst),
            )
        return ShadowCount(
            self.pairs + other.pairs,
            self.dropped + other.dropped,
            self.failed_new + other.failed_new,
            self.failed_old + other.failed_old,
            tuple(outputs.items()),
        )

    def to_report(self) -> ShadowReport:
        """Return what is shown."""
        return ShadowReport(
            pairs=self.pairs,
            dropped=self.dropped,
            failed_new=self.failed_new,
            failed_old=self.failed_old,
            differences=tuple(_describe(code, count) for code, count in sorted(self.outputs)),
        )


def add_pair(numbers: MutableSequence[float], begin: int, pair: AnswerPair) -> None:
    """Count a pair in a row, in which the numbers of the shadow begin at `begin`."""
    numbers[begin + PAIRS] += 1
    if pair.is_new_bad != pair.is_old_bad:
        numbers[begin + (FAILED_NEW if pair.is_new_bad else FAILED_OLD)] += 1
    for output in pair.outputs:
        start = _find_place(numbers, begin, _encode(output))
        if start is None:
            continue
        numbers[start + 1] += output.rows
        numbers[start + 2] += output.differing
        if output.total is not None and output.worst is not None:
            numbers[start + 3] = min(numbers[start + 3] + output.total, MOST_DIFFERENCE)
            numbers[start + 4] = max(numbers[start + 4], output.worst)


def _find_place(numbers: MutableSequence[float], begin: int, code: int) -> int | None:
    """Return where the numbers of an output begin; a free place becomes its own. None: all are taken."""
    for start in range(begin + _OUTPUTS, begin + SHADOW_NUMBERS, _WIDTH):
        if not numbers[start]:
            numbers[start] = code
        if numbers[start] == code:
            return start
    return None


def _encode(output: OutputPair) -> int:
    place = min(output.place, _PLACES - 1)
    return 1 + (METHODS.index(output.method) * _PLACES + place) * 2 + (output.total is not None)


def _describe(code: int, count: OutputCount) -> OutputDifference:
    output, is_number = divmod(code - 1, 2)
    method, place = divmod(output, _PLACES)
    return OutputDifference(
        output=f"{METHODS[method]}[{place - 1}]" if place else METHODS[method],
        rows=count.rows,
        differing=count.differing,
        mean=count.total / count.rows if is_number and count.rows else None,
        worst=count.worst if is_number else None,
    )
