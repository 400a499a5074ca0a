"""How the answers of a version are spread, and how much two versions differ in that: spreads in, shifts out."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Union

from serving.domain.rollout import Shift
from serving.domain.signature import ModelKind, Signature

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LEAST_ANSWERS = 20  # of each version; fewer say nothing
MOST_OUTPUTS = 8  # of one answer
MOST_LABELS = 10  # shown
MOST_LABEL_CHARACTERS = 100

_LABELLED = frozenset({ModelKind.CLASSIFIER, ModelKind.CLUSTERER, ModelKind.OUTLIER_DETECTOR})

Cell = Union[bool, int, float, str, None]


@dataclass(frozen=True, slots=True)
class OutputSpread:
    """What one output was in a sample of answers: numbers, or how often each label was given."""

    output: str
    numbers: tuple[float, ...] = field(default=(), repr=False)
    labels: dict[str, int] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Spread:
    """A sample of the answers of one version, output by output; `answers` is how many it has."""

    answers: int = 0
    outputs: tuple[OutputSpread, ...] = ()


def make_spread(signature: Signature, answers: Sequence[tuple[Cell, ...]]) -> Spread:
    """Return the spread of answers of the default method; each has a value for each output, up to `MOST_OUTPUTS`."""
    method = signature.default_method
    is_labelled = method == "predict" and signature.kind in _LABELLED
    width = max(map(len, answers), default=0)
    return Spread(
        len(answers),
        tuple(
            _make_output(
                method if width == 1 else f"{method}[{place}]",
                [answer[place] for answer in answers if place < len(answer)],
                is_labelled=is_labelled,
            )
            for place in range(width)
        ),
    )


def merge_spreads(spreads: Iterable[Spread]) -> Spread:
    """Return several samples of the answers of one version as one, as those of several workers.

    They are put together as they are: each is one of the same answers, whatever the share of requests a worker has.
    """
    answers = 0
    outputs: dict[str, OutputSpread] = {}
    for spread in spreads:
        answers += spread.answers
        for one in spread.outputs:
            before = outputs.get(one.output, OutputSpread(one.output))
            labels = Counter(before.labels)
            labels.update(one.labels)
            outputs[one.output] = OutputSpread(one.output, before.numbers + one.numbers, dict(labels))
    return Spread(answers, tuple(outputs.values()))


def compare_spreads(old: Spread, new: Spread) -> tuple[Shift, ...]:
    """Return how the answers of a new version differ from those of an old one, for each output that both have.

    The effect is the largest distance between the shares of both: of all numbers up to some number, or of any set of
    labels, which have no order. So it is 0 for equal ones, and 1 for ones that never meet. Outputs of which there are
    fewer than `LEAST_ANSWERS` answers are left out. It is never a verdict: with few answers, equal versions differ by
    chance, by about 1.4 / sqrt(answers of each) at most.
    """
    before = {one.output: one for one in old.outputs}
    shifts = []
    for one in new.outputs:
        other = before.get(one.output)
        if other is None:
            continue
        if min(len(one.numbers), len(other.numbers)) >= LEAST_ANSWERS:
            shifts.append(_compare_numbers(one.output, sorted(other.numbers), sorted(one.numbers)))
        elif min(sum(one.labels.values()), sum(other.labels.values())) >= LEAST_ANSWERS:
            shifts.append(_compare_labels(one.output, other.labels, one.labels))
    return tuple(shifts)


def _make_output(output: str, cells: Sequence[Cell], *, is_labelled: bool) -> OutputSpread:
    if is_labelled or any(isinstance(cell, (str, bool)) for cell in cells):
        return OutputSpread(output, labels=dict(Counter(_name_label(cell) for cell in cells)))
    numbers = tuple(float(cell) for cell in cells if isinstance(cell, (int, float)) and isfinite(cell))
    return OutputSpread(output, numbers)


def _name_label(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell[:MOST_LABEL_CHARACTERS]
    if cell is None or isinstance(cell, bool):
        return "null" if cell is None else str(cell).lower()
    return str(cell)


def _compare_numbers(output: str, old: list[float], new: list[float]) -> Shift:
    effect = max(
        abs(bisect_right(old, number) / len(old) - bisect_right(new, number) / len(new)) for number in {*old, *new}
    )
    return Shift(output=output, effect=effect, old=_find_quantiles(old), new=_find_quantiles(new))


def _find_quantiles(ordered: list[float]) -> dict[str, float]:
    return {f"{share:g}": ordered[round(share * (len(ordered) - 1))] for share in QUANTILES}


def _compare_labels(output: str, old: Mapping[str, int], new: Mapping[str, int]) -> Shift:
    before, after = _find_shares(old), _find_shares(new)
    labels = sorted({*before, *after}, key=lambda label: (-max(before.get(label, 0), after.get(label, 0)), label))
    effect = sum(abs(before.get(label, 0.0) - after.get(label, 0.0)) for label in labels) / 2
    shown = labels[:MOST_LABELS]
    return Shift(
        output=output,
        effect=min(effect, 1.0),
        old={label: before.get(label, 0.0) for label in shown},
        new={label: after.get(label, 0.0) for label in shown},
    )


def _find_shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {label: count / total for label, count in counts.items()}
