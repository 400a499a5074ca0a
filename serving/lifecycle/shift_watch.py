"""Compares how the answers of two versions are spread while one takes over: evidence, never a verdict."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future

import structlog

from serving.domain.rollout import Shift
from serving.domain.spread import Spread, compare_spreads
from serving.lifecycle.inbox import AnswersCompared
from serving.lifecycle.plane_port import PlanePort
from serving.lifecycle.rollout_run import RolloutRun

COMPARE_SECONDS = 5.0

log = structlog.get_logger("serving.rollout")


class ShiftWatch:
    """Asks the plane every few seconds, in a worker thread; what comes of it is posted to the reconciler's inbox.

    Reconciler thread only.
    """

    def __init__(self, plane: PlanePort, executor: Executor, post: Callable[[AnswersCompared], None]) -> None:
        self._plane = plane
        self._executor = executor
        self._post = post

    def look(self, model: str, run: RolloutRun, now: float) -> None:
        """Have the answers compared, if it is time and the last comparison has ended."""
        if now < run.compare_at:
            return
        run.compare_at = now + COMPARE_SECONDS
        old, new, number = run.old.version, run.new.version, run.number

        def compare() -> tuple[Shift, ...]:
            spreads = self._plane.spreads(model)
            return compare_spreads(spreads.get(old, Spread()), spreads.get(new, Spread()))

        def tell(done: Future[tuple[Shift, ...]]) -> None:
            error = None if done.cancelled() else done.exception()
            if error is not None:
                log.error("answers_not_compared", model=model, exc_info=error)
            elif not done.cancelled():
                self._post(AnswersCompared(model, number, done.result()))

        self._executor.submit(compare).add_done_callback(tell)
