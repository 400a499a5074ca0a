"""Compares what a version answers now with what was recorded, row by row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from serving.domain.answer_pair import MOST_OUTPUTS, OutputPair
from serving.domain.signature import METHODS, Method, Signature
from serving.domain.text import one_line
from serving.recording.read_records import RecordedRequest
from serving.rows.batch import Prediction, Tensor
from serving.rows.compare_answers import compare_answers

_NUMBERS = (int, float, type(None))


@dataclass(slots=True)
class ReplayTally:
    """What has come of a replay so far. Counts are of rows, `refused` and `skipped` have them by reason.

    A row is equal when its labels are, and its numbers are no further apart than `tolerance`, relative to the largest
    recorded one if that is above 1. `mean` is over the rows with numbers. Seconds are those of whole requests.
    `removed_files` were there when the replay began, and were removed before it read them.
    """

    tolerance: float
    equal: int = 0
    differing: int = 0
    largest: float = 0.0
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    removed_files: int = 0
    recorded_seconds: list[float] = field(default_factory=list)
    replayed_seconds: list[float] = field(default_factory=list)
    _total: float = 0.0
    _measured: int = 0

    @property
    def mean(self) -> float | None:
        """The mean absolute difference of numbers, None where there were none."""
        return self._total / self._measured if self._measured else None

    @property
    def asked(self) -> int:
        """How many rows the version was asked."""
        return self.equal + self.differing + self.refused.total()

    @property
    def is_same(self) -> bool:
        """Whether there were rows, and all of them were answered as recorded."""
        return self.equal > 0 and self.equal == self.asked

    def add(self, request: RecordedRequest, answers: list[Any], seconds: float, signature: Signature) -> None:
        """Add the answers to the rows of a request."""
        self.recorded_seconds.append(request.seconds)
        self.replayed_seconds.append(seconds)
        for now, before in zip(answers, request.answers, strict=True):
            self._add_row(request.method, now, before, signature)

    def _add_row(self, method: str, now: Any, before: Any, signature: Signature) -> None:
        pairs = compare_row(method, now, before, signature)
        numbers = [pair for pair in pairs if pair.worst is not None]
        is_equal = not any(pair.differing for pair in pairs)
        if numbers:
            worst = max(pair.worst or 0.0 for pair in numbers)
            self.largest = max(self.largest, worst)
            self._total += sum(pair.total or 0.0 for pair in numbers) / len(numbers)
            self._measured += 1
            is_equal = is_equal and worst <= self.tolerance * max(1.0, _find_largest(before))
        elif not is_equal:
            self.changes[_show(before), _show(now)] += 1
        if is_equal:
            self.equal += 1
        else:
            self.differing += 1


def compare_row(method: str, now: Any, before: Any, signature: Signature) -> list[OutputPair]:
    """Compare two answers to one row, as JSON has them. `signature` says whether these are labels."""
    if method not in METHODS or _count(now) != _count(before):
        return [OutputPair("predict", 0, 1, int(now != before))]
    after, earlier = _to_tensor(now), _to_tensor(before)
    if not (isinstance(after, np.ndarray) and isinstance(earlier, np.ndarray) and after.ndim == earlier.ndim == 2):
        return _compare(method, after, earlier, signature)
    pairs: list[OutputPair] = []
    for start in range(0, after.shape[1], MOST_OUTPUTS):  # no more outputs are compared at once
        part = slice(start, start + MOST_OUTPUTS)
        pairs += _compare(method, after[:, part], earlier[:, part], signature)
    return pairs


def _compare(method: str, now: Tensor, before: Tensor, signature: Signature) -> list[OutputPair]:
    known = cast("Method", method)
    new, old = [(known, Prediction((now,)))], [(known, Prediction((before,)))]
    return list(compare_answers(new, old, signature).outputs)


def _to_tensor(answer: Any) -> Tensor:
    """Return the answer to one row as a tensor; numbers in lists of lists are laid side by side."""
    if isinstance(answer, list):
        leaves = _flatten(answer)
        if all(type(leaf) in _NUMBERS for leaf in leaves):
            return np.array([[np.nan if leaf is None else leaf for leaf in leaves]], np.float64)
        return [answer]
    if type(answer) in _NUMBERS and answer is not None and abs(answer) <= 2**53:
        return np.array([answer])
    return np.array([np.nan]) if answer is None else [answer]


def _flatten(values: list[Any]) -> list[Any]:
    return [leaf for value in values for leaf in (_flatten(value) if isinstance(value, list) else [value])]


def _count(answer: Any) -> int:
    return len(_flatten(answer)) if isinstance(answer, list) else 1


def _find_largest(answer: Any) -> float:
    leaves = _flatten(answer) if isinstance(answer, list) else [answer]
    return max((abs(leaf) for leaf in leaves if type(leaf) in (int, float)), default=0.0)


def _show(label: Any) -> str:
    return one_line(str(label), 60)
