"""Many rollouts at once: their bad events drawn by chance, and what the judge's evidence is after each.

It computes what `Evidence` computes, for thousands of rollouts in arrays; tests/unit/domain/test_judge.py compares the
two. Only the order of bad events and the good answers between them matter, so nothing else is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.domain.judge import BETTER, LEAST_BAD, LEAST_CLIENTS, WORSE, JudgeBounds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Curve = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Course:
    """What happened in one rollout, whichever version had it: for each bad event the candidate's share at that time,
    and how many good answers came after the event before.
    """

    share: Floats
    good: Ints


@dataclass(frozen=True)
class Rollouts:
    """Many rollouts of one course; a row for each, a column for each bad event.

    With more than one place, the events are clients that had bad answers, once in each place.
    """

    share: Floats
    is_candidate: Bools
    good: Ints  # of the candidate, since the bad event before
    places: int = 1

    def evidence(self, tolerance: float) -> Floats:
        """Return the evidence that the candidate is worse after each event."""
        fine = theta(self.share, 1.0 + tolerance)
        ratios = [ratio for ratio in WORSE if ratio > 1.0 + tolerance]
        total = np.zeros(self.is_candidate.shape)
        for worse in (theta(self.share, ratio) for ratio in ratios):
            added = self._add_up(worse, fine)
            total += np.exp(added, out=added)
        return total / len(ratios)

    def roll_back(self, bounds: JudgeBounds) -> Bools:
        """Say after each event whether the candidate goes back then."""
        bad = np.cumsum(self.is_candidate, axis=1)
        least = LEAST_BAD if self.places == 1 else LEAST_CLIENTS * self.places
        bad_share = bad / np.maximum(bad + np.cumsum(self.good, axis=1), 1)
        found: Bools = self.evidence(bounds.tolerance) >= 1.0 / bounds.alpha
        return found & (bad >= least) & (bad_share > bounds.acceptable)

    def as_good(self, margin: float) -> Floats:
        """Return the evidence that the candidate is as good, by its ratio, after each event."""
        total = np.zeros(self.is_candidate.shape)
        for better in (theta(self.share, part * margin) for part in BETTER):
            added = self._add_up(better, theta(self.share, margin))
            total += np.exp(added, out=added)
        return total / len(BETTER)

    def _add_up(self, chance: Floats, other: Floats) -> Floats:
        """Return the logarithms of likelihood ratios after each event, limited to what a float can hold."""
        with np.errstate(divide="ignore"):
            hit, miss = np.log(chance / other), np.log((1.0 - chance) / (1.0 - other))
        added = np.where(self.is_candidate, hit, miss)
        np.cumsum(added, axis=1, out=added)  # in place: fresh memory for each step takes longer than the step
        added /= self.places
        return np.minimum(added, 300.0, out=added)


def theta(share: Any, ratio: float) -> Any:
    """Return the chance that a bad event is the candidate's, if its requests go bad so many times more often."""
    return share * ratio / (share * ratio + 1.0 - share)


def draw_course(dice: np.random.Generator, ticks: int, load: Curve, rate: Curve, share: Curve) -> Course:
    """Draw the bad events of one rollout.

    Requests come in ticks: `load` says how many on average, `rate` which part of them goes bad, and `share` which part
    the candidate gets, all of them at moments from 0 to 1.
    """
    at = (np.arange(ticks) + 0.5) / ticks
    requests = dice.poisson(load(at))
    bad = dice.binomial(requests, rate(at))
    events = np.repeat(np.arange(ticks), bad)
    good = np.diff(np.concatenate([[0], np.cumsum(requests - bad)[events]]))
    return Course(share(at)[events], good)


def draw_rollouts(
    dice: np.random.Generator, course: Course, rows: int, ratio: float = 1.0, *, only_bad: bool = False
) -> Rollouts:
    """Draw which version had each of the answers, in so many rollouts, if the candidate's go bad `ratio` times as
    often.

    The evidence is that of the bad answers; who asks for no more may leave out the good ones, which take half the time.
    """
    events = len(course.share)
    is_candidate = dice.random((rows, events)) < theta(course.share, ratio)
    if only_bad:
        return Rollouts(course.share, is_candidate, np.broadcast_to(0, (rows, events)))
    good = dice.binomial(np.broadcast_to(course.good, (rows, events)), course.share)
    return Rollouts(course.share, is_candidate, good)
