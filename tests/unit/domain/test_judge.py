"""The judge: it is wrong as rarely as it promises, and finds what is worse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.judge import WORSE, Bounds, Count, Evidence, Pace, Verdict, judge

BOUNDS = Bounds()
PACE = Pace(step_seconds=10.0, min_requests=100)
ROLLOUTS = 10_000
EVENTS = 1000  # bad ones, of each rollout


def likelihoods(share: np.ndarray, is_candidate: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the evidence after each bad event, one row for each rollout: what `Evidence` does, for many at once."""

    def theta(ratio: float) -> np.ndarray:
        return share * ratio / (share * ratio + 1.0 - share)

    fine = theta(1.0 + tolerance)
    total = np.zeros(is_candidate.shape)
    ratios = [ratio for ratio in WORSE if ratio > 1.0 + tolerance]
    for ratio in ratios:
        worse = theta(ratio)
        steps = np.where(is_candidate, np.log(worse / fine), np.log((1.0 - worse) / (1.0 - fine)))
        total += np.exp(np.minimum(np.cumsum(steps, axis=1), 300.0))
    return total / len(ratios)


def shares_of(kind: str) -> np.ndarray:
    """Return the candidate's share at each bad event."""
    if kind == "steps":
        return np.repeat([0.01, 0.05, 0.2, 0.5], EVENTS // 4)
    if kind == "waves":  # as when the share is changed by hand all the time
        return 0.3 + 0.25 * np.sin(np.arange(EVENTS) / 30.0)
    return np.full(EVENTS, float(kind))


@pytest.mark.parametrize("kind", ["0.01", "0.05", "0.1", "0.2", "0.5", "0.9", "steps", "waves"])
@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_equal_versions_are_rolled_back_as_rarely_as_promised(kind: str, tolerance: float) -> None:
    """10,000 rollouts, looked at after every event. How much is asked, and how much goes bad, cancels out."""
    share = shares_of(kind)
    dice = np.random.default_rng(7)
    wrong = 0
    for _ in range(10):
        is_candidate = dice.random((ROLLOUTS // 10, EVENTS)) < share
        wrong += int((likelihoods(share, is_candidate, tolerance).max(axis=1) >= 1.0 / BOUNDS.alpha).sum())
    assert wrong <= BOUNDS.alpha * ROLLOUTS


@pytest.mark.parametrize(("ratio", "events"), [(2.0, 1000), (5.0, 120), (20.0, 30)])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_what_is_worse_is_found(share: float, ratio: float, events: int) -> None:
    chance = share * ratio / (share * ratio + 1.0 - share)
    is_candidate = np.random.default_rng(7).random((1000, events)) < chance
    found = likelihoods(np.full(events, share), is_candidate, BOUNDS.tolerance).max(axis=1) >= 1.0 / BOUNDS.alpha
    assert found.mean() > 0.9


def add_events(evidence: Evidence, share: float, is_candidate: np.ndarray) -> Evidence:
    for one in is_candidate:
        evidence = evidence.add(share, Count(1, 1) if one else Count(), Count() if one else Count(1, 1))
    return evidence


def test_the_evidence_is_what_the_simulations_say() -> None:
    is_candidate = np.random.default_rng(3).random(60) < 0.3
    found = add_events(Evidence(BOUNDS), 0.2, is_candidate).e_value
    assert found == pytest.approx(likelihoods(np.full(60, 0.2), is_candidate[None, :], BOUNDS.tolerance)[0, -1])


@given(
    share=st.floats(0.01, 0.99),
    bad=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=10),
)
def test_it_does_not_matter_in_which_portions_it_is_told(share: float, bad: list[tuple[int, int]]) -> None:
    apart = Evidence(BOUNDS)
    for candidate, active in bad:
        apart = apart.add(share, Count(100, candidate), Count(100, active))
    candidate, active = (sum(column) for column in zip(*bad, strict=True))
    answers = 100 * len(bad)
    at_once = Evidence(BOUNDS).add(share, Count(answers, candidate), Count(answers, active))
    assert apart.worse == pytest.approx(at_once.worse)
    assert apart.as_good == pytest.approx(at_once.as_good)
    assert apart.rarely_bad == pytest.approx(at_once.rarely_bad)


def test_a_version_that_fails_goes_back_at_once() -> None:
    evidence = Evidence(BOUNDS).add(0.1, Count(10, 6), Count(90, 0))
    found = judge(evidence, PACE, seconds=0.5, answers=10)
    assert found.verdict is Verdict.ROLLBACK
    assert "6 of 10 went bad, 0 of 90" in found.reason


def test_what_fails_for_both_is_nobodys_fault() -> None:
    evidence = Evidence(BOUNDS).add(0.1, Count(1000, 500), Count(9000, 4500))
    assert judge(evidence, PACE, 5.0, 1000).verdict is Verdict.WAIT
    assert judge(evidence, PACE, 20.0, 1000).verdict is Verdict.PROMOTE, "as good, if nothing else"


def test_one_bad_event_is_an_accident_and_few_among_very_many_are_acceptable() -> None:
    harsh = Bounds(alpha=0.5, tolerance=0.0)
    assert judge(Evidence(harsh).add(0.01, Count(1, 1), Count(99)), PACE, 1.0, 1).verdict is Verdict.WAIT
    rare = Evidence(BOUNDS).add(0.5, Count(100_000, 60), Count(100_000, 0))
    assert rare.e_value > 100
    assert judge(rare, PACE, 20.0, 100_000).verdict is Verdict.PROMOTE


@pytest.mark.parametrize(
    ("seconds", "answers", "verdict"),
    [(20.0, 99, Verdict.WAIT), (9.0, 1000, Verdict.WAIT), (10.0, 100, Verdict.PROMOTE)],
)
def test_a_step_takes_its_time(seconds: float, answers: int, verdict: Verdict) -> None:
    evidence = Evidence(BOUNDS).add(0.1, Count(1000), Count(9000))
    assert judge(evidence, PACE, seconds, answers).verdict is verdict


def test_without_any_bad_event_so_many_good_ones_are_needed() -> None:
    def passes(answers: int) -> bool:
        return Evidence(BOUNDS).add(0.1, Count(answers), Count()).is_good

    assert next(answers for answers in range(0, 2000, 10) if passes(answers)) == pytest.approx(600, abs=150)


def test_too_little_to_say_is_inconclusive() -> None:
    evidence = Evidence(BOUNDS).add(0.1, Count(200, 4), Count(1800, 36))
    assert judge(evidence, PACE, 60.0, 200).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_without_a_choice_nothing_is_compared(share: float) -> None:
    evidence = Evidence(BOUNDS).add(share, Count(1000, 900), Count(1000, 0))
    assert evidence.e_value == 1.0
    assert not evidence.is_worse
    assert not evidence.is_good


def test_a_tolerance_beyond_all_alternatives_proves_nothing() -> None:
    evidence = Evidence(Bounds(tolerance=100.0)).add(0.5, Count(1000, 900), Count(1000, 0))
    assert not evidence.is_worse
