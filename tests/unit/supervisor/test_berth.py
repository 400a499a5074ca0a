"""What is told of the place of a worker."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from serving.domain.status import WorkerState
from serving.supervisor.berth import Berth
from serving.supervisor.worker_link import WorkerLink


@pytest.mark.parametrize(
    ("state", "deaths", "problem"),
    [
        (WorkerState.STARTING, 0, None),
        (WorkerState.STARTING, 1, None),
        (WorkerState.STARTING, 2, "worker 3 does not serve: 2 have ended in a row, the last one: SIGSEGV"),
        (WorkerState.STARTING, 5, "worker 3 does not serve: 5 have ended in a row, the last one: SIGSEGV"),
        (WorkerState.SERVING, 5, None),
    ],
)
def test_workers_that_die_again_and_again_are_a_problem_until_one_serves(
    state: WorkerState, deaths: int, problem: str | None
) -> None:
    assert Berth(3, (), state=state, deaths=deaths, reason="SIGSEGV").problem == problem


def test_whoever_waits_says_until_when() -> None:
    """One field says both: what is asked for in between is never half of it."""
    berth = Berth(3, ())
    assert (berth.to_status(0).state, berth.to_status(0).retry_at) == (WorkerState.STARTING, None)
    berth.retry_at = datetime(2026, 1, 1, tzinfo=UTC)
    assert (berth.to_status(0).state, berth.to_status(0).retry_at) == (WorkerState.WAITING, berth.retry_at)


def test_a_worker_that_has_ended_is_not_said_to_serve() -> None:
    """Not even in the moment before anybody has taken note of its end."""
    berth = Berth(3, (), state=WorkerState.SERVING, link=(link := WorkerLink(3, 4711, -1)))
    assert (berth.to_status(0).state, berth.to_status(0).pid) == (WorkerState.SERVING, 4711)
    link.has_ended.set()
    assert (berth.to_status(0).state, berth.to_status(0).pid) == (WorkerState.STARTING, None)
