"""The judge: it is wrong as rarely as it promises, and finds what is worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.judge import PAIRED, WORSE, Evidence, JudgeBounds, Outcomes, Pace, RolloutVerdict, judge
from tests.unit.domain.many_rollouts import Course, Curve, Floats, Rollouts, draw_course, draw_rollouts, theta

BOUNDS = JudgeBounds()
PACE = Pace(step_seconds=10.0, min_requests=100)
ROLLOUTS = 10_000
COURSES = 10  # of load and bad events, that these are drawn from


def always(value: float) -> Curve:
    return lambda at: np.full(at.shape, value)


def steps(*values: float) -> Curve:
    """One value after another, each for as long."""
    return lambda at: np.asarray(values)[(at * len(values)).astype(int)]


def wave(middle: float, width: float, times: int) -> Curve:
    return lambda at: middle + width * np.sin(2.0 * np.pi * times * at)


def surge(usual: float, most: float, since: float, until: float) -> Curve:
    return lambda at: np.where((at >= since) & (at < until), most, usual)


def fading(at: Floats) -> Floats:
    return 0.4 * np.exp(-6.0 * at)


# What is asked, which part of it goes bad, and which part of it the candidate has.
EQUAL = {
    "1 percent": (always(2.0), always(0.3), always(0.01)),
    "5 percent": (always(2.0), always(0.3), always(0.05)),
    "10 percent": (always(20.0), always(0.03), always(0.1)),
    "half, rarely bad": (always(600.0), always(0.001), always(0.5)),
    "half, often bad": (always(1.0), always(0.7), always(0.5)),
    "all but a holdback": (always(20.0), always(0.03), always(0.95)),
    "steps": (always(2.0), always(0.3), steps(0.05, 0.25, 0.5)),
    "steps in waves of load": (wave(20.0, 19.0, 7), always(0.03), steps(0.01, 0.05, 0.2, 0.5)),
    "a share that changes all the time": (always(2.0), always(0.3), wave(0.3, 0.25, 15)),
    "a rate in waves": (wave(2.0, 1.5, 3), wave(0.3, 0.29, 5), steps(0.05, 0.25, 0.5)),
    "more load with each step": (steps(1.0, 5.0, 30.0), always(0.05), steps(0.05, 0.25, 0.5)),
    "a dependency that fails for a while": (always(2.0), surge(0.02, 0.95, 0.3, 0.6), steps(0.05, 0.25, 0.5)),
    "it fails while a step begins": (always(2.0), surge(0.02, 0.95, 0.3, 0.4), steps(0.05, 0.5, 0.95)),
    "what fails at the start only": (always(5.0), fading, steps(0.01, 0.1, 0.5)),
}


def draw(kind: str, ratio: float = 1.0, *, only_bad: bool = False) -> list[Rollouts]:
    dice = np.random.default_rng(7)
    courses = [draw_course(dice, 1000, *EQUAL[kind]) for _ in range(COURSES)]
    return [draw_rollouts(dice, course, ROLLOUTS // COURSES, ratio, only_bad=only_bad) for course in courses]


@pytest.mark.parametrize("kind", EQUAL)
def test_equal_versions_are_rolled_back_as_rarely_as_promised(kind: str) -> None:
    """10,000 rollouts, looked at after every event, with nothing that would excuse a bad answer."""
    drawn = draw(kind, only_bad=True)
    assert min(len(rollouts.share) for rollouts in drawn) > 200
    wrong = sum((rollouts.evidence(tolerance=0.0).max(axis=1) >= 1.0 / BOUNDS.alpha).sum() for rollouts in drawn)
    assert wrong <= BOUNDS.alpha * ROLLOUTS


@pytest.mark.parametrize("kind", ["10 percent", "steps in waves of load", "a dependency that fails for a while"])
def test_what_is_just_within_the_tolerance_is_rolled_back_as_rarely(kind: str) -> None:
    drawn = draw(kind, 1.0 + BOUNDS.tolerance)
    assert sum(rollouts.roll_back(BOUNDS).any(axis=1).sum() for rollouts in drawn) <= BOUNDS.alpha * ROLLOUTS


@pytest.mark.parametrize("kind", ["10 percent", "steps", "a dependency that fails for a while"])
def test_what_is_as_bad_as_the_margin_rarely_passes_as_good(kind: str) -> None:
    drawn = draw(kind, BOUNDS.margin, only_bad=True)
    passed = sum((rollouts.as_good(BOUNDS.margin).max(axis=1) >= 1.0 / BOUNDS.alpha).sum() for rollouts in drawn)
    assert passed <= BOUNDS.alpha * ROLLOUTS


def test_what_goes_bad_more_than_is_acceptable_rarely_passes_as_rarely_bad() -> None:
    """Looked at after every answer, through the real code: a rate at the limit."""
    dice = np.random.default_rng(7)
    passed = 0
    for _ in range(300):
        evidence = Evidence(BOUNDS)
        for bad in dice.binomial(20, BOUNDS.acceptable, 100):
            evidence = evidence.add(0.0, Outcomes(20, int(bad)), Outcomes())
            if evidence.is_good:
                passed += 1
                break
    assert passed <= 6, "3 on average at most"


@pytest.mark.parametrize(("ratio", "events"), [(2.0, 1000), (5.0, 120), (20.0, 30)])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_what_is_worse_is_found(share: float, ratio: float, events: int) -> None:
    course = Course(np.full(events, share), np.zeros(events, dtype=int))
    assert draw_rollouts(np.random.default_rng(7), course, 1000, ratio).roll_back(BOUNDS).any(axis=1).mean() > 0.9


def draw_pairs(dice: np.random.Generator, rows: int, pairs: int, chances: tuple[float, float, float]) -> Floats:
    """Return the evidence after each pair in which something goes bad: for both, the candidate, the active version."""
    drawn = dice.random((rows, pairs))
    both, candidate, active = np.cumsum(chances) / sum(chances)
    kinds = [drawn < both, drawn < candidate, drawn < active]
    fine, total = theta(PAIRED, 1.0 + BOUNDS.tolerance), np.zeros((rows, pairs))
    for other in (theta(PAIRED, ratio) for ratio in WORSE):
        hit, miss = np.log(other / fine), np.log((1.0 - other) / (1.0 - fine))
        total += np.exp(np.minimum(np.cumsum(np.select(kinds, [hit + miss, hit, miss]), axis=1), 300.0))
    return total / len(WORSE)


@pytest.mark.parametrize("both", [0.0, 0.05, 0.5])
def test_pairs_roll_back_as_rarely_however_much_both_go_bad_together(both: float) -> None:
    """Both go bad on the same requests, and the candidate a tenth more often in all."""
    only_active = 0.03
    only_candidate = only_active * (1.0 + BOUNDS.tolerance) + both * BOUNDS.tolerance
    dice = np.random.default_rng(7)
    wrong = 0
    for _ in range(10):
        found = draw_pairs(dice, ROLLOUTS // 10, 300, (both, only_candidate, only_active))
        wrong += int((found.max(axis=1) >= 1.0 / BOUNDS.alpha).sum())
    assert wrong <= BOUNDS.alpha * ROLLOUTS


def test_pairs_show_what_fails_for_one_side_only() -> None:
    evidence = Evidence(BOUNDS).add_pairs(Outcomes(100, 19), Outcomes(100, 1))
    assert evidence.is_worse
    with pytest.raises(ValueError, match="no pairs"):
        evidence.add_pairs(Outcomes(100, 9), Outcomes(99, 1))


# --- the arrays and the real code -------------------------------------------------------------------------------------


def replay(rollouts: Rollouts, row: int, tell: Callable[[Evidence], float | bool], bounds: JudgeBounds) -> list[float]:
    """Return what the real code says after each bad event of one rollout."""
    found, evidence = [], Evidence(bounds, places=rollouts.places)
    for share, is_candidate, good in zip(rollouts.share, rollouts.is_candidate[row], rollouts.good[row], strict=True):
        new, old = (1, 0) if is_candidate else (0, 1)
        known = rollouts.places > 1
        candidate = Outcomes(int(good) + new, new, new if known else None)
        evidence = evidence.add(float(share), candidate, Outcomes(old, old, old if known else None))
        found.append(tell(evidence))
    return found


@pytest.mark.parametrize("kind", ["steps", "it fails while a step begins", "all but a holdback"])
@pytest.mark.parametrize(("ratio", "places"), [(1.0, 1), (3.0, 1), (3.0, 2)])
def test_the_arrays_say_what_the_judge_says(kind: str, ratio: float, places: int) -> None:
    dice = np.random.default_rng(3)
    drawn = replace(draw_rollouts(dice, draw_course(dice, 200, *EQUAL[kind]), 3, ratio), places=places)
    for row in range(3):
        real = replay(drawn, row, lambda evidence: evidence.e_value, BOUNDS)
        assert real == pytest.approx(drawn.evidence(BOUNDS.tolerance)[row].tolist())
        harsh = replace(BOUNDS, acceptable=0.2, alpha=0.1)
        verdicts = replay(drawn, row, lambda evidence: evidence.is_worse, harsh)
        assert verdicts == drawn.roll_back(harsh)[row].tolist()
        margins = replay(drawn, row, lambda one: one.as_good_value, BOUNDS)
        assert margins == pytest.approx(drawn.as_good(BOUNDS.margin)[row].tolist())


# --- in portions ------------------------------------------------------------------------------------------------------


@given(
    share=st.floats(0.01, 0.99),
    bad=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=10),
)
def test_it_does_not_matter_in_which_portions_it_is_told(share: float, bad: list[tuple[int, int]]) -> None:
    apart = Evidence(BOUNDS)
    for candidate, active in bad:
        apart = apart.add(share, Outcomes(100, candidate), Outcomes(100, active))
    candidate, active = (sum(column) for column in zip(*bad, strict=True))
    answers = 100 * len(bad)
    at_once = Evidence(BOUNDS).add(share, Outcomes(answers, candidate), Outcomes(answers, active))
    assert apart.worse == pytest.approx(at_once.worse)
    assert apart.as_good == pytest.approx(at_once.as_good)
    assert apart.rarely_bad == pytest.approx(at_once.rarely_bad)


def test_a_version_that_fails_goes_back_at_once() -> None:
    evidence = Evidence(BOUNDS).add(0.1, Outcomes(10, 6), Outcomes(90, 0))
    found = judge(evidence, PACE, seconds=0.5, answers=10)
    assert found.verdict is RolloutVerdict.ROLLBACK
    assert "6 of 10 went bad, 0 of 90" in found.reason


def test_a_few_clients_alone_send_nothing_back() -> None:
    """However many bad events they have."""

    def judge_with(*clients: int | None, places: int = 1) -> tuple[RolloutVerdict, str]:
        evidence = Evidence(JudgeBounds(alpha=0.1), places=places)
        for each in clients:
            evidence = evidence.add(0.1, Outcomes(50, 30, each), Outcomes(450, 0, None if each is None else 0))
        found = judge(evidence, PACE, 20.0, 100)
        return found.verdict, found.reason

    assert judge_with(2)[0] is RolloutVerdict.INCONCLUSIVE
    assert judge_with(2)[1].startswith("worse, but for fewer than 3 clients")
    assert judge_with(3)[0] is judge_with(1, 0, 2)[0] is RolloutVerdict.ROLLBACK
    assert judge_with(5, places=2)[1].startswith("worse, but for fewer than 3 clients"), "some may be counted twice"
    assert judge_with(None)[0] is RolloutVerdict.ROLLBACK, "clients are not known"


def test_where_clients_are_known_their_number_is_compared_and_every_bad_answer_counts_for_the_share() -> None:
    few = Evidence(BOUNDS).add(0.1, Outcomes(1000, 300, 5), Outcomes(9000, 2700, 50))
    assert few.e_value == Evidence(BOUNDS).add(0.1, Outcomes(1000, 5), Outcomes(9000, 50)).e_value
    assert few.rarely_bad == Evidence(BOUNDS).add(0.1, Outcomes(1000, 300), Outcomes()).rarely_bad
    assert few.candidate.bad_share == 0.3


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5])
@pytest.mark.parametrize(("clients", "places"), [(10, 1), (30, 1), (300, 1), (10, 4), (100, 4)])
def test_clients_that_are_always_bad_roll_back_as_rarely(share: float, clients: int, places: int) -> None:
    """Each is on one version, and each process counts it once."""
    dice = np.random.default_rng(7)
    rows = 2000
    is_candidate = np.tile(dice.random((rows, clients)) < share, (1, places))
    in_turn = np.take_along_axis(is_candidate, np.argsort(dice.random(is_candidate.shape), axis=1), axis=1)
    shares = np.full(clients * places, share)
    found = Rollouts(shares, in_turn, np.zeros(in_turn.shape, int), places).evidence(BOUNDS.tolerance)
    assert (found.max(axis=1) >= 1.0 / BOUNDS.alpha).sum() <= BOUNDS.alpha * rows


def test_what_is_inconclusive_says_why() -> None:
    single = judge(
        Evidence(JudgeBounds(alpha=0.4, tolerance=0.0)).add(0.01, Outcomes(50, 1), Outcomes(5000)), PACE, 20.0, 100
    )
    assert single.reason.startswith("worse by a single answer")
    rare = judge(Evidence(BOUNDS).add(0.5, Outcomes(3000, 29), Outcomes(3000, 0)), PACE, 20.0, 3000)
    assert rare.verdict is RolloutVerdict.INCONCLUSIVE
    assert rare.reason.startswith("worse, but for no more than the acceptable 0.01")


def test_what_fails_for_both_is_nobodys_fault() -> None:
    evidence = Evidence(BOUNDS).add(0.1, Outcomes(1000, 500), Outcomes(9000, 4500))
    assert judge(evidence, PACE, 5.0, 1000).verdict is RolloutVerdict.WAIT
    assert judge(evidence, PACE, 20.0, 1000).verdict is RolloutVerdict.PROMOTE, "as good, if nothing else"


def test_one_bad_event_is_an_accident_and_few_among_very_many_are_acceptable() -> None:
    harsh = JudgeBounds(alpha=0.5, tolerance=0.0)
    assert judge(Evidence(harsh).add(0.01, Outcomes(1, 1), Outcomes(99)), PACE, 1.0, 1).verdict is RolloutVerdict.WAIT
    rare = Evidence(BOUNDS).add(0.5, Outcomes(100_000, 60), Outcomes(100_000, 0))
    assert rare.e_value > 100
    assert judge(rare, PACE, 20.0, 100_000).verdict is RolloutVerdict.PROMOTE


@pytest.mark.parametrize(
    ("seconds", "answers", "verdict"),
    [(20.0, 99, RolloutVerdict.WAIT), (9.0, 1000, RolloutVerdict.WAIT), (10.0, 100, RolloutVerdict.PROMOTE)],
)
def test_a_step_takes_its_time(seconds: float, answers: int, verdict: RolloutVerdict) -> None:
    evidence = Evidence(BOUNDS).add(0.1, Outcomes(1000), Outcomes(9000))
    assert judge(evidence, PACE, seconds, answers).verdict is verdict


def test_without_any_bad_event_so_many_good_ones_are_needed() -> None:
    def passes(answers: int) -> bool:
        return Evidence(BOUNDS).add(0.1, Outcomes(answers), Outcomes()).is_good

    assert next(answers for answers in range(0, 2000, 10) if passes(answers)) == pytest.approx(600, abs=150)


def test_too_little_to_say_is_inconclusive() -> None:
    evidence = Evidence(BOUNDS).add(0.1, Outcomes(200, 4), Outcomes(1800, 36))
    assert judge(evidence, PACE, 60.0, 200).verdict is RolloutVerdict.INCONCLUSIVE


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_without_a_choice_nothing_is_compared(share: float) -> None:
    evidence = Evidence(BOUNDS).add(share, Outcomes(1000, 900), Outcomes(1000, 0))
    assert evidence.e_value == 1.0
    assert not evidence.is_worse
    assert not evidence.is_good


def test_evidence_without_end_is_a_number() -> None:
    evidence = Evidence(BOUNDS).add(0.1, Outcomes(10**6, 10**6), Outcomes())
    assert 1e300 < evidence.e_value < float("inf")


def test_a_tolerance_beyond_all_alternatives_proves_nothing() -> None:
    evidence = Evidence(JudgeBounds(tolerance=100.0)).add(0.5, Outcomes(1000, 900), Outcomes(1000, 0))
    assert not evidence.is_worse
