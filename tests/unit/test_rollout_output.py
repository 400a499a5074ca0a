"""``serving rollout``: what it shows of fixed statuses, what it asks a server, and how it watches one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from serving.cli.rollout_output import WIDTH, describe_rollout, describe_summary, draw_curve
from serving.domain.rollout import (
    CurvePoint,
    OutputDifference,
    RolloutPhase,
    RolloutStatus,
    RolloutSummary,
    ShadowReport,
    Shift,
)
from tests.fakes import NOON, make_rollout_status

STATUS = make_rollout_status()
LATER = NOON + timedelta(seconds=95)


def running(**changes: Any) -> RolloutStatus:
    assert STATUS.running is not None
    return STATUS.model_copy(update={"last": None, "running": STATUS.running.model_copy(update=changes)})


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_canary_is_its_share_its_verdict_its_counts_and_its_curve() -> None:
    worse = "worse: 12 of 40 went bad, 1 of 760 of the active version"
    lines = describe_rollout(STATUS, LATER)
    assert lines[:6] == [
        "iris/4 beside 3: canary, it answers 10% of the requests, step 2 of 3; 35 s in this step, 1 min 35 s in all",
        "wait: 80 of 100 requests in this step",
        "VERSION  ANSWERS  BAD   PART",
        "4            130    2  1.54%",
        "3          1,200    9  0.75%",
        "evidence that 4 is worse: 2.6; at 100 it goes back",
    ]
    assert lines[-2:] == [
        "bad answer: 422 row 0: feature 'tier' holds a value that was never seen",
        f"last: 2 went back 2026-11-20 12:00:00+00:00 by system: {worse}",
    ]


def test_the_curve_is_drawn_by_powers_of_ten_below_the_threshold() -> None:
    values = [1.0, 0.1, 1.0, 10.0, 100.0]
    curve = [CurvePoint(at=NOON + timedelta(seconds=i), e_value=value, share=5.0) for i, value in enumerate(values)]
    lines = draw_curve(curve, 100.0)
    plot = [line.partition("|")[2].ljust(WIDTH) for line in lines[:-1]]
    assert [line[:7].strip() for line in lines[:-1] if line[:7].strip()] == ["100", "10", "1", "0.1"]
    assert plot[0] == "-" * (WIDTH - 1) + "*"
    assert plot[-1].index("*") == round((WIDTH - 1) / 4)
    assert plot[-1].count("*") > 5, "what was last known holds until there is more"
    assert all(sum(line[column] == "*" for line in plot) == 1 for column in range(WIDTH))
    assert lines[-1].split() == ["12:00:00", "12:00:04"]


@pytest.mark.parametrize(("value", "line"), [(0.0, -2), (1e-30, -2), (1e300, 0)])
def test_a_curve_ends_at_its_frame(value: float, line: int) -> None:
    curve = [CurvePoint(at=NOON, e_value=value, share=5.0), CurvePoint(at=LATER, e_value=1.0, share=5.0)]
    assert {len(line.rstrip()) <= WIDTH + 9 for line in draw_curve(curve, 100.0)} == {True}
    assert "|*" in draw_curve(curve, 100.0)[line]
    assert draw_curve(curve[:1], 100.0) == []


def test_points_of_one_moment_are_a_curve_too() -> None:
    curve = [CurvePoint(at=NOON, e_value=value, share=5.0) for value in (1.0, 2.0)]
    assert len(draw_curve(curve, 100.0)) > 3


def test_who_has_stopped_a_rollout_and_what_comes_of_a_verdict_is_said() -> None:
    lines = describe_rollout(running(is_held=True, observe=True), LATER)
    assert "held by an operator until 'serving rollout iris resume'" in lines
    assert "it is only observed: nothing comes of a verdict" in lines


def test_a_shadow_is_its_pairs_and_its_differences() -> None:
    differences = (
        OutputDifference(output="label", rows=400, differing=12),
        OutputDifference(output="price", rows=400, mean=0.25, worst=3.5),
    )
    report = ShadowReport(pairs=1400, dropped=3, failed_new=2, failed_old=1, differences=differences)
    shifts = (Shift(output="label", effect=0.12, old={"0": 0.5, "1": 0.5}, new={"0": 0.62, "1": 0.38}),)
    lines = describe_rollout(running(phase=RolloutPhase.SHADOW, shadow=report, shifts=shifts), LATER)
    assert lines[0].startswith("iris/4 beside 3: shadow, it answers copies; 35 s in this step")
    assert "copies: 1,400 compared, 3 dropped; failed on one side only: 2 of the new, 1 of the old" in lines
    assert "differences of label, 400 rows: 12 labels (3.00%)" in lines
    assert "differences of price, 400 rows: 0.25 on average, 3.5 at most" in lines
    assert "shift of label: 0.12 of 1 (0 0.5 -> 0.62, 1 0.5 -> 0.38)" in lines


def test_after_a_promotion_the_version_before_keeps_a_part() -> None:
    (line, *_) = describe_rollout(running(phase=RolloutPhase.BAKE, share=95.0), NOON + timedelta(hours=2, minutes=5))
    assert line.startswith("iris/4 beside 3: active, the version before keeps 5% of the requests; 2 h 04 min in")


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("swap", "at once (swap)"),
        ("shadow", "after copies of requests (shadow)"),
        ("canary", "share by share (canary)"),
    ],
)
def test_without_one_it_is_said_how_versions_take_over(strategy: str, said: str) -> None:
    found = describe_rollout(RolloutStatus(model="iris", strategy=strategy), LATER)
    assert found == [f"iris: nothing is under way; new versions take over {said}"]


def test_a_stop_says_what_to_do() -> None:
    stopped = RolloutStatus(model="iris", strategy="canary", is_stopped=True)
    said = "iris: two rollouts in a row went back, so none begins until 'serving rollout iris resume'"
    assert describe_rollout(stopped, LATER)[1] == said
    summary = RolloutSummary.of(stopped)
    assert summary is not None
    assert describe_summary("iris", summary) == [said]


def test_what_a_server_says_does_not_control_the_terminal() -> None:
    lines = describe_rollout(running(reason="a\x1b[31m\nb", version="4\x07"), LATER)
    assert all(line.isprintable() for line in lines)


def test_a_summary_is_one_line() -> None:
    summary = RolloutSummary.of(STATUS)
    assert summary is not None
    said = "iris/4: canary, it answers 10% of the requests"
    assert describe_summary("iris", summary) == [f"{said}; wait: 80 of 100 requests in this step"]
    held = summary.model_copy(update={"is_held": True})
    assert describe_summary("iris", held) == [f"{said}; held by an operator"]
    assert RolloutSummary.of(RolloutStatus(model="iris", strategy="swap")) is RolloutSummary.of(None) is None
