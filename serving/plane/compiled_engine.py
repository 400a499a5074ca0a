"""The engine of a compiled servable: its model is a checked graph in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from serving.domain.compiled_form import PIECE_BYTES, Graph, Guard, RunBounds
from serving.domain.errors import DeadlineExceeded, InvalidInput
from serving.domain.signature import Dtype, Feature, Method, Signature
from serving.plane.fair_turns import Turns
from serving.rows.apply_guard import GuardCheck
from serving.rows.batch import MAX_ANSWER_BYTES, Batch, Column, Prediction
from serving.rows.integers import find_rounded
from serving.telemetry.request_trace import REQUEST_TRACE, RequestStage, RequestTrace

if TYPE_CHECKING:
    from serving.plane.graph import GraphSession, PiecewiseAnswer

# A hop to a thread and back costs 58 us of waiting and more of CPU; an answer that takes less is computed on the loop.
INLINE_SECONDS = 250e-6
INLINE_CHARACTERS = 16 << 10  # longer texts take longer
MEASURED_ROWS = (1, 64)
REPEATS = 15
CHARACTER_BYTES = 4  # as UTF-8, at most


class CompiledEngine:
    """Answers on the event loop if that is quick enough, else piece by piece in the threads of `turns`.

    `warm_up` measures for each method how many rows are quick enough, and compares that with the slowest values that
    the checker of graphs tried. No run takes more rows or memory than `bounds` says. `warm_up` blocks: call it in a
    worker thread. Call `predict` and `close` on the event loop.
    """

    name = "onnx"
    is_immediate = True

    def __init__(
        self, graphs: Sequence[Graph], signature: Signature, guard: Guard, bounds: RunBounds, turns: Turns
    ) -> None:
        from serving.plane.graph import GraphSession  # noqa: PLC0415  (20 MB that a server without compiled models does not need)

        sessions = [GraphSession(graph, bounds.rows) for graph in graphs]
        self._sessions = {method: session for session in sessions for method in session.methods}
        self._signature = signature
        self._guard = None if guard.is_open else GuardCheck(guard, signature)
        self._bounds = bounds
        self._turns = turns
        self._has_texts = any(feature.dtype is Dtype.STRING for feature in signature.features)
        self._inline_rows: dict[Method, int] = {}

    def warm_up(self) -> None:
        """Answer with every method, and measure how many rows are few enough for the event loop."""
        for method in self._signature.methods:
            session = self._sessions[method]
            one, many = (_measure_seconds(session, method, self._signature, rows) for rows in MEASURED_ROWS)
            slowest_one, slowest_each = self._bounds.seconds[method]
            each = max(1e-8, (many - one) / (MEASURED_ROWS[1] - MEASURED_ROWS[0]), slowest_each)
            one = max(one, slowest_one)
            rows = 0 if one > INLINE_SECONDS else 1 + int((INLINE_SECONDS - one) / each)
            self._inline_rows[method] = min(rows, self._bounds.rows)

    def answer_now(self, method: Method, batch: Batch) -> Prediction | None:
        """Answer a batch that is quick enough for the event loop; None when it is not. Raises InvalidInput."""
        if batch.rows > self._inline_rows[method] or (self._has_texts and not _has_short_texts(batch)):
            return None
        if batch.matrix is None:
            _refuse_integers(batch, self._signature)
        if self._guard is not None:
            self._guard.check(batch)
        return self._sessions[method].answer(method, batch)

    async def predict(self, method: Method, batch: Batch, deadline_seconds: float) -> Prediction:
        """Answer one batch; see :class:`serving.plane.servable.Engine`.

        Raises InvalidInput for rows that the guard refuses, and for rows that take more memory than one request may.
        """
        _refuse_integers(batch, self._signature)
        trace = REQUEST_TRACE.get()
        if trace is not None:
            trace.enter(RequestStage.GRAPH)
        answer = self.answer_now(method, batch)
        if answer is not None:
            return answer
        nbytes = _require_room(batch.rows, self._bounds.answer_bytes[method])
        if trace is not None:
            trace.take_back()
            trace.enter(RequestStage.WAIT)
        work = _Answering(self._guard, self._bounds, self._sessions[method], method, batch, trace)
        try:
            await self._turns.run(self, work, nbytes + _estimate_bytes(batch), deadline_seconds)
        except TimeoutError:
            waited = f"no answer within {deadline_seconds:g} s (server.predict_seconds)"
            raise DeadlineExceeded(f"{waited}; send fewer rows or raise the setting") from None
        return work.prediction

    async def close(self) -> None:
        """Free the graphs in a thread when the last piece is done: a large one takes a while."""
        await self._turns.wait_idle(self)
        sessions, self._sessions = self._sessions, {}
        await asyncio.get_running_loop().run_in_executor(self._turns.executor, sessions.clear)


class _Answering:
    """One answer as work for threads. The first step also checks all rows, which takes a while too."""

    def __init__(
        self,
        guard: GuardCheck | None,
        bounds: RunBounds,
        session: GraphSession,
        method: Method,
        batch: Batch,
        trace: RequestTrace | None,
    ) -> None:
        self._guard, self._bounds, self._session, self._trace = guard, bounds, session, trace
        self._method, self._batch = method, batch
        self._answer: PiecewiseAnswer | None = None

    @property
    def prediction(self) -> Prediction:
        """The whole answer, when the last piece is done."""
        assert self._answer is not None
        return self._answer.prediction

    def step(self) -> bool:
        """Do the next piece; returns whether it was the last. Blocks; raises InvalidInput, ModelFailed."""
        if self._answer is None:
            if self._trace is not None:
                self._trace.enter(RequestStage.GRAPH)
            self._answer = self._begin_answer()
        return self._answer.step()

    def _begin_answer(self) -> PiecewiseAnswer:
        if self._guard is not None:
            self._guard.check(self._batch)
        characters = _find_longest_text(self._batch)
        text_bytes = characters * CHARACTER_BYTES
        rows = self._bounds.rows_within(PIECE_BYTES, text_bytes)
        if not rows:
            reason = f"a text of {characters} characters takes more memory than one run of this model may"
            raise InvalidInput(f"{reason}: send shorter texts")
        row_bytes = self._bounds.answer_bytes[self._method] + self._bounds.row_texts * text_bytes
        _require_room(self._batch.rows, row_bytes)
        return self._session.answer_pieces(self._method, self._batch, rows)


def _require_room(rows: int, row_bytes: int) -> int:
    """Return the most bytes that an answer may take; raises InvalidInput when that is more than the limit."""
    nbytes = rows * row_bytes
    if nbytes > MAX_ANSWER_BYTES:
        size = f"{nbytes >> 20} MB, at most {MAX_ANSWER_BYTES >> 20} MB can be answered"
        most = max(1, MAX_ANSWER_BYTES // row_bytes)
        raise InvalidInput(f"the answer to {rows} rows could take {size}: send at most {most} rows at once")
    return nbytes


def _refuse_integers(batch: Batch, signature: Signature) -> None:
    """Raise InvalidInput for integers that float64, in which a graph computes, would round."""
    for place, column in enumerate(batch.columns or ()):
        if isinstance(column, np.ndarray) and (is_large := find_rounded(column)).any():
            name, large = signature.features[place].name, int(column[is_large][0])
            raise InvalidInput(f"feature '{name}': {large} would be rounded: this model takes integers up to 2**53")


def _has_short_texts(batch: Batch) -> bool:
    left = INLINE_CHARACTERS
    for column in batch.columns or ():
        if not isinstance(column, np.ndarray):
            left -= sum([len(cell) for cell in column if cell.__class__ is str])
    return left >= 0


def _find_longest_text(batch: Batch) -> int:
    """Return how many characters the longest text of a batch has."""
    columns = [column for column in batch.columns or () if not isinstance(column, np.ndarray)]
    return max((len(cell) for column in columns for cell in column if isinstance(cell, str)), default=0)


def _estimate_bytes(batch: Batch) -> int:
    """Return how many bytes the rows of a batch take, roughly."""
    if batch.matrix is not None:
        return batch.matrix.nbytes
    columns = batch.columns or ()
    return sum(column.nbytes if isinstance(column, np.ndarray) else 64 * len(column) for column in columns)


def _measure_seconds(session: GraphSession, method: Method, signature: Signature, rows: int) -> float:
    """Return the least CPU time of this thread for an answer: the clock would include waiting for the busy loop."""
    batch = _make_any_batch(signature, rows)
    times = []
    for _ in range(REPEATS):
        begin = time.thread_time()
        session.answer(method, batch)
        times.append(time.thread_time() - begin)
    return min(times)


def _make_any_batch(signature: Signature, rows: int) -> Batch:
    """Return equal rows of the right types: only their time matters, and the plane must not import `serving.host`."""
    if all(feature.is_number for feature in signature.features):
        return Batch(rows, matrix=np.ones((rows, len(signature.features))))
    return Batch(rows, columns=tuple(_make_any_column(feature, rows) for feature in signature.features))


def _make_any_column(feature: Feature, rows: int) -> Column:
    if feature.is_number:
        return np.ones(rows)
    return np.zeros(rows, dtype=np.bool_) if feature.dtype is Dtype.BOOL else ["a"] * rows
