"""The checker of all traffic: what it takes for wrong, and what it excuses."""

from __future__ import annotations

import time

import pytest

from tests.e2e.record import Record, Reply, Usage, check


def reply(version: str = "1", *, status: int = 200, value: float | None = None, **others: object) -> Reply:
    """A sound answer of now, unless told otherwise."""
    answered = {"connection": 0, "sent_at": time.perf_counter(), "seconds": 0.001, **others}
    return Reply(status=status, version=version, value=float(version) if value is None else value, **answered)  # type: ignore[arg-type]


def test_sound_traffic_passes() -> None:
    check([reply("1"), reply("2"), reply("10"), reply("9", connection=1)])


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (reply(status=503), "failed"),
        (reply(status=0), "failed"),
        (reply("2", value=1.0), "would not give"),
        (reply("2", error="the header names version '1'"), "would not give"),
        (reply("1", connection=7), "went back"),
    ],
)
def test_what_is_wrong_is_told(wrong: Reply, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check([reply("2", connection=7), wrong])


def test_no_traffic_is_no_proof() -> None:
    with pytest.raises(AssertionError, match="no traffic"):
        check([])


def test_going_back_may_be_asked_for() -> None:
    check([reply("2"), reply("1")], may_go_back=True)


def test_a_fault_excuses_what_was_under_way_and_nothing_else() -> None:
    """Not what had ended before, not what began after, and no other status."""
    record = Record()
    record.add(reply("2"))
    with record.excuse(503, may_go_back=True):
        record.add(reply(status=503))
        record.add(reply("1"))
        assert not record.problems
        record.add(reply(status=0))
        assert record.problem_count == 1
    record.add(reply("1"))
    record.add(reply(status=503))
    assert record.problem_count == 2
    assert record.excused == 1


def test_a_connection_that_was_silent_during_the_fault_may_go_back_after_it() -> None:
    record = Record()
    record.add(reply("2"))
    with record.excuse(may_go_back=True):
        pass
    record.add(reply("1"))
    record.verify()


def test_everything_is_judged_and_only_the_last_is_kept() -> None:
    record = Record(keep=2)
    for _ in range(5):
        record.add(reply())
    record.add(reply(status=500))
    assert len(record.replies) == 2
    assert record.counts == {200: 5, 500: 1}
    assert record.problem_count == 1


def test_quantiles_are_those_of_answers_outside_of_faults() -> None:
    record = Record()
    for milliseconds in range(1, 101):
        record.add(reply(seconds=milliseconds / 1e3))
    with record.excuse(503):
        record.add(reply(seconds=60.0))
    assert record.quantile(0.5) == pytest.approx(0.050, rel=0.07)
    assert record.quantile(0.99) == pytest.approx(0.099, rel=0.07)


@pytest.mark.parametrize("more", [(1, 0, 0, 0.0), (0, 3, 0, 0.0), (0, 0, 3, 0.0), (0, 0, 0, 26.0)])
def test_what_is_left_over_is_noticed(more: tuple[int, int, int, float]) -> None:
    baseline = Usage(3, 15, 40, 100.0)
    assert baseline.is_back_at(baseline)
    processes, threads, descriptors, megabytes = more
    assert not Usage(3 + processes, 15 + threads, 40 + descriptors, 100 + megabytes).is_back_at(baseline)
