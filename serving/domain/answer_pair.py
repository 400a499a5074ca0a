"""What two versions have answered to the same rows, compared: values only."""

from __future__ import annotations

from typing import NamedTuple

from serving.domain.signature import Method

MOST_OUTPUTS = 10  # of a model that are compared; wider models are compared in their first ones
MOST_DIFFERENCE = 1e300  # larger ones count as this


class OutputPair(NamedTuple):
    """One output of two answers. `place` is 0 for the only output of a method, else it counts from 1.

    `differing` counts rows: labels that differ, or numbers of which only one is finite. `total` is the sum over the
    rows of the mean absolute difference in a row, `worst` the largest one; None for labels.
    """

    method: Method
    place: int
    rows: int
    differing: int
    total: float | None = None
    worst: float | None = None


class AnswerPair(NamedTuple):
    """A request that both versions have answered or refused; `outputs` only if both have answered it."""

    is_new_bad: bool
    is_old_bad: bool
    outputs: tuple[OutputPair, ...] = ()
