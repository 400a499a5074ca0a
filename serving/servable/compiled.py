"""A servable whose model is a proved graph in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import numpy as np

from serving.domain.batch import Batch, Column, Prediction
from serving.domain.compiled import Graph, Guard
from serving.domain.errors import DeadlineExceeded
from serving.domain.guard import GuardCheck
from serving.domain.signature import Dtype, Feature, Method, Signature

if TYPE_CHECKING:
    from serving.graph import GraphSession

# A hop to a thread and back costs 58 us of waiting and more of CPU; what takes less than this is done where it is.
INLINE_SECONDS = 250e-6
MEASURED_ROWS = (1, 64)
REPEATS = 15


class CompiledEngine:
    """Answers on the event loop when that is quick enough, else in a thread of `executor`: graphs release the GIL.

    What is quick enough is measured at `warm_up`, for each method. `warm_up` blocks and belongs to a worker thread;
    `predict` and `close` to the event loop.
    """

    name = "onnx"
    is_immediate = True

    def __init__(self, graphs: Sequence[Graph], signature: Signature, guard: Guard, executor: Executor) -> None:
        from serving.graph import GraphSession  # noqa: PLC0415  (20 MB that a server without compiled models does not need)

        self._sessions = {method: session for session in map(GraphSession, graphs) for method in session.methods}
        self._signature = signature
        self._guard = None if guard.is_open else GuardCheck(guard, signature)
        self._executor = executor
        self._inline_rows: dict[Method, int] = {}

    def warm_up(self) -> None:
        """Answer with every method, and learn how many rows are few enough for the event loop."""
        for method in self._signature.methods:
            session = self._sessions[method]
            one, many = (_seconds(session, method, self._signature, rows) for rows in MEASURED_ROWS)
            per_row = max(1e-8, (many - one) / (MEASURED_ROWS[1] - MEASURED_ROWS[0]))
            self._inline_rows[method] = 0 if one > INLINE_SECONDS else 1 + int((INLINE_SECONDS - one) / per_row)

    def answer_now(self, method: Method, batch: Batch) -> Prediction | None:
        """Answer a batch that is quick enough for the event loop, None when it is not; raises InvalidInput."""
        return self._answer(method, batch) if batch.rows <= self._inline_rows[method] else None

    async def predict(self, method: Method, batch: Batch, deadline_seconds: float) -> Prediction:
        """Answer one batch; see :class:`serving.servable.servable.Engine`. Raises InvalidInput for what is guarded."""
        answer = self.answer_now(method, batch)
        if answer is not None:
            return answer
        loop = asyncio.get_running_loop()
        computing = loop.run_in_executor(self._executor, self._answer, method, batch)
        try:
            return await asyncio.wait_for(computing, deadline_seconds)
        except TimeoutError:
            waited = f"no answer within {deadline_seconds:g} s (server.predict_seconds)"
            raise DeadlineExceeded(f"{waited}; send fewer rows or raise the setting") from None

    def _answer(self, method: Method, batch: Batch) -> Prediction:
        if self._guard is not None:
            self._guard.check(batch)
        return self._sessions[method].answer(method, batch)

    async def close(self) -> None:
        """Free the graphs in a thread: a large one takes a while."""
        sessions, self._sessions = self._sessions, {}
        await asyncio.get_running_loop().run_in_executor(self._executor, sessions.clear)


def _seconds(session: GraphSession, method: Method, signature: Signature, rows: int) -> float:
    """Return the least time of an answer: this thread's own, as others wait for the lock while the loop is busy."""
    batch = _any_batch(signature, rows)
    times = []
    for _ in range(REPEATS):
        begin = time.thread_time()
        session.answer(method, batch)
        times.append(time.thread_time() - begin)
    return min(times)


def _any_batch(signature: Signature, rows: int) -> Batch:
    """Return rows of the right types; what they hold does not matter."""
    if all(feature.dtype is Dtype.NUMBER for feature in signature.features):
        return Batch(rows, matrix=np.ones((rows, len(signature.features))))
    return Batch(rows, columns=tuple(_any_column(feature, rows) for feature in signature.features))


def _any_column(feature: Feature, rows: int) -> Column:
    if feature.dtype is Dtype.NUMBER:
        return np.ones(rows)
    return np.zeros(rows, dtype=np.bool_) if feature.dtype is Dtype.BOOL else ["a"] * rows
