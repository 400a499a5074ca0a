"""How the answers of two versions to the same rows differ: labels that are not equal, and distances of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class AnswerDifferences:
    """The differences of one method, row by row. Numbers that are not floats are labels, and so is text.

    `labels` counts the rows that have a label, `differing` those of them where one differs. `numbers` counts pairs of
    numbers; `worst` and `total` are of their distances. Pairs with null are left out: see `is_lost`.
    """

    labels: int = 0
    differing: int = 0
    numbers: int = 0
    worst: float = 0.0
    total: float = 0.0

    @property
    def share(self) -> float:
        """The share of rows with labels that got another one."""
        return self.differing / self.labels if self.labels else 0.0

    def add(self, wanted: Any, given: Any, *, is_label: bool) -> None:
        """Take in the answers of both to one row. Numbers are labels if `is_label`."""
        pairs = [pair for pair in _pair_cells(wanted, given) if None not in pair]
        if any(is_label or not _is_float(one, other) for one, other in pairs):
            self.labels += 1
            self.differing += any(one != other for one, other in pairs if is_label or not _is_float(one, other))
        if is_label:
            return
        distances = [abs(one - other) for one, other in pairs if _is_float(one, other)]
        self.numbers += len(distances)
        self.total += sum(distances)
        self.worst = max([self.worst, *distances])

    def __str__(self) -> str:
        parts = []
        if self.labels:
            parts.append(
                f"another label for {self.differing} of {self.labels} rows ({self.share:.2%})"
                if self.differing
                else "the same labels"
            )
        if self.numbers:
            distance = f"numbers differ by {self.worst:.4g} at most, {self.total / self.numbers:.4g} on average"
            parts.append(distance if self.worst else "the same numbers")
        return ", ".join(parts) or "nothing to compare"


def is_lost(wanted: Any, given: Any) -> bool:
    """Say whether an answer has null where the wanted one has a value."""
    return any(one is not None and other is None for one, other in _pair_cells(wanted, given))


def _pair_cells(wanted: Any, given: Any) -> list[tuple[Any, Any]]:
    """Pair the values of two answers; answers of different shapes are one pair."""
    if isinstance(wanted, list) and isinstance(given, list) and len(wanted) == len(given):
        return [pair for one, other in zip(wanted, given, strict=True) for pair in _pair_cells(one, other)]
    return [(wanted, given)]


def _is_float(wanted: Any, given: Any) -> bool:
    """Say whether two values are numbers of which one at least is a float."""
    kinds = {type(wanted), type(given)}
    return float in kinds and kinds <= {int, float}
