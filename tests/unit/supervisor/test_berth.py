"""What is told of the place of a worker."""

from __future__ import annotations

import pytest

from serving.domain.status import WorkerState
from serving.supervisor.berth import Berth


@pytest.mark.parametrize(
    ("state", "deaths", "problem"),
    [
        (WorkerState.STARTING, 0, None),
        (WorkerState.STARTING, 1, None),
        (WorkerState.STARTING, 2, "worker 3 does not serve: 2 have ended in a row, the last one: SIGSEGV"),
        (WorkerState.WAITING, 5, "worker 3 does not serve: 5 have ended in a row, the last one: SIGSEGV"),
        (WorkerState.SERVING, 5, None),
    ],
)
def test_workers_that_die_again_and_again_are_a_problem_until_one_serves(
    state: WorkerState, deaths: int, problem: str | None
) -> None:
    assert Berth(3, (), state=state, deaths=deaths, reason="SIGSEGV").problem == problem
