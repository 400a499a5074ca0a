"""Graphs run before the server runs them: at the largest size it will, within the memory that was found out for it.

Runs in a process that may die of it. What a graph takes longer or more for than it may ends in a refusal; the times of
the slowest values that were tried (ordinary ones, and numbers of every magnitude, as arithmetic on the smallest ones is
slow) say how many rows the server may answer where it stands.
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
from serving.plane.graph import GraphSession
from serving.rows.batch import Batch, Column

SLACK_BYTES = 32 << 20  # what allocators keep
FEATURE_BYTES = 128  # a cell of the rows that are tried, as numbers or text, with the copies of making it
SWEEP_SECONDS = 0.2
FEW_ROWS = 64
REPEATS = 2
LEAST_SECONDS = 1e-8
STEP_SECONDS = 5e-9  # one node of a tree, looked up in a cache
_MAGNITUDES = tuple(10.0**power for power in range(-320, 309, 12))


class Trial:
    """Sessions of all graphs of one version, and rows to try them with. Making one blocks.

    A session computes all of its graph whatever it is asked for, so each is tried by the method that answers most.
    """

    def __init__(self, graphs: Sequence[Graph], signature: Signature, guard: Guard) -> None:
        self._maker = _Maker(signature, guard)
        self._features = len(signature.features)
        try:
            self._sessions = [GraphSession(graph) for graph in graphs]
        except ModelFailed as error:
            raise GraphRefused(str(error)) from None

    def compare(self, graphs: Sequence[Graph], tensors: Sequence[Mapping[str, AbstractTensor]]) -> None:
        """Hold what is known of each graph's tensors against few rows; raises GraphRefused where it is not so."""
        batches = [self._maker.rows(rows, 1.0) for rows in shape_trial.FEW_ROWS]
        for graph, known in zip(graphs, tensors, strict=True):
            shape_trial.compare_shapes(graph, known, batches)

    def measure(self, bounds: RunBounds, steps: int) -> RunBounds:
        """Return the bounds with the rows that were run at once and the times that were measured.

        `steps` is how many nodes of trees one row may visit. Raises GraphRefused when a row takes too long, or a run
        more memory than its shapes say.
        """
        rows = bounds.rows
        own_bytes = rows * (self._features * FEATURE_BYTES + max(bounds.answer_bytes.values()))
        seconds: dict[Method, tuple[float, float]] = {}
        with _memory_limited(bounds.bytes_of(rows) + own_bytes):
            for session in self._sessions:
                method = max(session.methods, key=bounds.answer_bytes.__getitem__)
                one, each = self._times(session, method, steps, min(FEW_ROWS, rows))
                if one > PIECE_SECONDS:
                    raise GraphRefused(f"one row takes {one:.3g} s, at most {PIECE_SECONDS:g} s are given to a run")
                rows = self._shrink(session, method, min(rows, 1 + int((PIECE_SECONDS - one) / each)))
                seconds.update(dict.fromkeys(session.methods, (one, each)))
        return bounds.model_copy(update={"rows": rows, "seconds": seconds})

    def _times(self, session: GraphSession, method: Method, steps: int, few: int) -> tuple[float, float]:
        """Return the seconds of one row and of each further one, by the slowest values."""
        fastest, slowest, slowest_row = math.inf, 0.0, 1.0
        ends_at = time.monotonic() + SWEEP_SECONDS
        for magnitude in (1.0, *_MAGNITUDES):
            seconds = self._seconds(session, method, self._maker.rows(1, magnitude))
            fastest = min(fastest, seconds)
            if seconds > slowest:
                slowest, slowest_row = seconds, magnitude
            if time.monotonic() > ends_at:
                break
        each = max(STEP_SECONDS * steps, LEAST_SECONDS)
        for magnitude in {1.0, slowest_row} if few > 1 else ():
            many = self._seconds(session, method, self._maker.rows(few, magnitude))
            each = max(each, (many - fastest) / (few - 1))
        return max(slowest, each), each

    def _shrink(self, session: GraphSession, method: Method, rows: int) -> int:
        """Return how many rows were run at once in time: all, or as many as can."""
        while True:
            begin = time.thread_time()
            self._answer(session, method, self._maker.rows(rows, 1.0))
            if rows == 1 or time.thread_time() - begin <= 2 * PIECE_SECONDS:
                return rows
            rows //= 2

    def _seconds(self, session: GraphSession, method: Method, batch: Batch) -> float:
        """Return the least time of this thread for an answer: what others take from it is not its own."""
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


class _Maker:
    """Makes rows of the right types, within what the guard lets through: numbers of one magnitude and both signs."""

    def __init__(self, signature: Signature, guard: Guard) -> None:
        self._features = signature.features
        self._known = guard.known
        self._largest = np.finfo(np.float64).max if guard.largest is None else guard.largest
        self._smallest = -self._largest if guard.smallest is None else guard.smallest
        self._is_matrix = all(feature.is_number for feature in self._features)
        self._base = np.random.default_rng(0).normal(size=(FEW_ROWS, len(self._features)))

    def rows(self, count: int, magnitude: float) -> Batch:
        """Return so many rows."""
        base = self._base[:count] if count <= FEW_ROWS else np.resize(self._base, (count, self._base.shape[1]))
        with np.errstate(all="ignore"):
            numbers = base * magnitude
        np.minimum(np.maximum(numbers, self._smallest, out=numbers), self._largest, out=numbers)
        for place, known in self._known.items():
            if self._features[place].dtype is Dtype.NUMBER:
                numbers[:, place] = np.resize(np.array(known, dtype=np.float64), count)
        if self._is_matrix:
            return Batch(count, matrix=numbers)
        columns = [self._column(place, feature, numbers[:, place]) for place, feature in enumerate(self._features)]
        return Batch(count, columns=tuple(columns))

    def _column(self, place: int, feature: Feature, numbers: NDArray[np.float64]) -> Column:
        if feature.is_number:
            return np.ascontiguousarray(numbers)
        if feature.dtype is Dtype.STRING:
            texts = [each for each in self._known.get(place, ()) if isinstance(each, str)] or ["a", "b"]
            return [texts[row % len(texts)] for row in range(len(numbers))]
        if feature.dtype is Dtype.BOOL:
            return np.asarray(np.arange(len(numbers)) % 2 == 0)
        return np.ascontiguousarray(numbers)


@contextmanager
def _memory_limited(more_bytes: int) -> Iterator[None]:
    """Let this process map so many bytes more than it does, and no more, while the block runs.

    Its limit cannot be lowered any more from inside of the sandbox, so what is too much is mapped and never touched.
    Nothing happens in a process without a limit.
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
