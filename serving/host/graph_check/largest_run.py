"""Runs graphs before the server does: with the most rows that it will use, within the memory that the analysis found.

Runs in a process that may die. A graph that takes too long or too much memory is refused. The graphs are timed with
ordinary numbers and with numbers of every magnitude, because arithmetic on the smallest numbers is slow. The slowest
times decide how many rows the server may answer on its event loop.
"""

from __future__ import annotations

import math
import mmap
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.domain.compiled_form import PIECE_SECONDS, Graph, Guard, RunBounds
from serving.domain.errors import GraphRefused, ModelFailed
from serving.domain.signature import Dtype, Feature, Method, Signature
from serving.host.graph_check import shape_trial
from serving.host.graph_check.operation import AbstractTensor
from serving.host.graph_check.session_size import open_sessions
from serving.plane.graph import GraphSession
from serving.rows.batch import Batch, Column

SLACK_BYTES = 32 << 20  # memory that allocators keep
FEATURE_BYTES = 128  # a cell of the made-up rows, a number or a text, with the copies made for it
SWEEP_SECONDS = 0.2
FEW_ROWS = 64
REPEATS = 2
LEAST_SECONDS = 1e-8
STEP_SECONDS = 5e-9  # a visit of one node of a tree that is in the processor's cache
_MAGNITUDES = tuple(10.0**power for power in range(-320, 309, 12))


class LargestRun:
    """Runs all graphs of one version with made-up rows. The constructor blocks: it opens a session for each graph.

    A session always computes its whole graph, so each is run by the method with the largest answer.
    """

    def __init__(self, graphs: Sequence[Graph], signature: Signature, guard: Guard) -> None:
        self._maker = _RowMaker(signature, guard)
        self._features = len(signature.features)
        try:
            self._sessions, self._session_bytes = open_sessions(graphs)
        except ModelFailed as error:
            raise GraphRefused(str(error)) from None

    def compare_shapes(self, graphs: Sequence[Graph], tensors: Sequence[Mapping[str, AbstractTensor]]) -> None:
        """Run each graph with few rows; raises GraphRefused if a tensor is not as the analysis described it."""
        batches = [self._maker.make_rows(rows, 1.0) for rows in shape_trial.FEW_ROWS]
        for graph, known in zip(graphs, tensors, strict=True):
            shape_trial.compare_shapes(graph, known, batches)

    def measure_bounds(self, bounds: RunBounds, steps: int) -> RunBounds:
        """Return the bounds with the number of rows that ran at once, the measured times, and the size of the sessions.

        `steps` is the largest number of tree nodes that one row may visit. Raises GraphRefused if a row takes too long,
        or a run takes more memory than its shapes say.
        """
        rows = bounds.rows
        own_bytes = rows * (self._features * FEATURE_BYTES + max(bounds.answer_bytes.values()))
        seconds: dict[Method, tuple[float, float]] = {}
        with _limit_memory(bounds.bytes_of(rows) + own_bytes):
            for session in self._sessions:
                method = max(session.methods, key=bounds.answer_bytes.__getitem__)
                one, each = self._measure_seconds(session, method, steps, min(FEW_ROWS, rows))
                if one > PIECE_SECONDS:
                    raise GraphRefused(f"one row takes {one:.3g} s, at most {PIECE_SECONDS:g} s are given to a run")
                rows = self._find_row_count(session, method, min(rows, 1 + int((PIECE_SECONDS - one) / each)))
                seconds.update(dict.fromkeys(session.methods, (one, each)))
        found = {"rows": rows, "seconds": seconds, "session_bytes": self._session_bytes}
        return bounds.model_copy(update=found)

    def _measure_seconds(self, session: GraphSession, method: Method, steps: int, few: int) -> tuple[float, float]:
        """Return the seconds of one row and of each further row, with the slowest values."""
        fastest, slowest, slowest_row = math.inf, 0.0, 1.0
        ends_at = time.monotonic() + SWEEP_SECONDS
        for magnitude in (1.0, *_MAGNITUDES):
            seconds = self._time_answer(session, method, self._maker.make_rows(1, magnitude))
            fastest = min(fastest, seconds)
            if seconds > slowest:
                slowest, slowest_row = seconds, magnitude
            if time.monotonic() > ends_at:
                break
        each = max(STEP_SECONDS * steps, LEAST_SECONDS)
        for magnitude in {1.0, slowest_row} if few > 1 else ():
            many = self._time_answer(session, method, self._maker.make_rows(few, magnitude))
            each = max(each, (many - fastest) / (few - 1))
        return max(slowest, each), each

    def _find_row_count(self, session: GraphSession, method: Method, rows: int) -> int:
        """Return the number of rows that ran at once in time: `rows`, or halved until the run is fast enough."""
        while True:
            begin = time.thread_time()
            self._answer(session, method, self._maker.make_rows(rows, 1.0))
            if rows == 1 or time.thread_time() - begin <= 2 * PIECE_SECONDS:
                return rows
            rows //= 2

    def _time_answer(self, session: GraphSession, method: Method, batch: Batch) -> float:
        """Return the shortest processor time of this thread for an answer, without time taken by others."""
        times = []
        for _ in range(REPEATS):
            begin = time.thread_time()
            self._answer(session, method, batch)
            times.append(time.thread_time() - begin)
            if times[0] > PIECE_SECONDS:
                break
        return min(times)

    def _answer(self, session: GraphSession, method: Method, batch: Batch) -> None:
        try:
            prediction = session.answer(method, batch)
        except (ModelFailed, MemoryError) as error:
            reason = f"{method} does not answer {batch.rows} made-up rows in the memory that its shapes say"
            raise GraphRefused(f"{reason} ({error})") from None
        if any(len(tensor) != batch.rows for tensor in prediction.tensors):
            raise GraphRefused(f"{method} does not give one entry for each row")


class _RowMaker:
    """Makes rows that the guard accepts, with the types of the signature: numbers of one magnitude and both signs."""

    def __init__(self, signature: Signature, guard: Guard) -> None:
        self._features = signature.features
        self._known = guard.known
        self._largest = np.finfo(np.float64).max if guard.largest is None else guard.largest
        self._smallest = -self._largest if guard.smallest is None else guard.smallest
        self._is_matrix = all(feature.is_number for feature in self._features)
        self._base = np.random.default_rng(0).normal(size=(FEW_ROWS, len(self._features)))

    def make_rows(self, count: int, magnitude: float) -> Batch:
        """Return `count` rows."""
        base = self._base[:count] if count <= FEW_ROWS else np.resize(self._base, (count, self._base.shape[1]))
        with np.errstate(all="ignore"):
            numbers = base * magnitude
        np.minimum(np.maximum(numbers, self._smallest, out=numbers), self._largest, out=numbers)
        for place, known in self._known.items():
            if self._features[place].dtype is Dtype.NUMBER:
                numbers[:, place] = np.resize(np.array(known, dtype=np.float64), count)
        if self._is_matrix:
            return Batch(count, matrix=numbers)
        columns = [self._make_column(place, feature, numbers[:, place]) for place, feature in enumerate(self._features)]
        return Batch(count, columns=tuple(columns))

    def _make_column(self, place: int, feature: Feature, numbers: NDArray[np.float64]) -> Column:
        if feature.is_number:
            return np.ascontiguousarray(numbers)
        if feature.dtype is Dtype.STRING:
            texts = [each for each in self._known.get(place, ()) if isinstance(each, str)] or ["a", "b"]
            return [texts[row % len(texts)] for row in range(len(numbers))]
        if feature.dtype is Dtype.BOOL:
            return np.asarray(np.arange(len(numbers)) % 2 == 0)
        return np.ascontiguousarray(numbers)


@contextmanager
def _limit_memory(more_bytes: int) -> Iterator[None]:
    """Let this process map at most `more_bytes` more bytes while the block runs.

    The sandbox does not allow the process to lower its own limit, so all memory beyond `more_bytes` is mapped and never
    touched. Does nothing in a process without a limit.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform != "linux" or limit == resource.RLIM_INFINITY:
        yield
        return
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    surplus = limit - mapped - more_bytes - SLACK_BYTES
    if surplus <= 0:
        yield
        return
    with mmap.mmap(-1, surplus, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 0):
        yield
