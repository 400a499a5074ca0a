"""The proof: estimator and graph answer the same rows, and the graph is faster. Runs in the process of `apart`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from serving.domain.batch import Batch, Prediction, Tensor
from serving.domain.compiled import MOST_ROWS, Compilation, Graph, ProvenRows
from serving.domain.errors import InvalidInput
from serving.domain.signature import Kind, Method
from serving.graph import GraphSession
from serving.host.compiling.drawing import NotCompilable
from serving.host.compiling.guard import guard_of
from serving.host.compiling.proof_rows import RowMaker
from serving.host.compiling.provable import Provable
from serving.host.compiling.thresholds import thresholds_of
from serving.host.estimator import EstimatorModel

# what a number of the input may grow to: far beyond anything measured, float32's end, float64's
MAGNITUDES = (1e9, 1e15, 1e30, 3.4028234663852886e38, 1.7e308)
BATCH_ROWS = 256
# many rows may take so much longer than the estimator takes: a host adds more by being another process
BATCH_SLACK = 1.25
LEAST_ROWS = 256
PROOF_SECONDS = 1.0
TIMED_SECONDS, MOST_TIMED = 0.005, 15
_LABELLED = (Kind.CLASSIFIER, Kind.CLUSTERER, Kind.OUTLIER_DETECTOR)


class _Prover:
    """Compares answers, and remembers the largest difference."""

    def __init__(self, model: Provable, graphs: Sequence[Graph], tolerance: float, most_rows: int) -> None:
        self.model = model
        sessions = [GraphSession(graph, most_rows) for graph in graphs]
        self.sessions = {method: session for session in sessions for method in session.methods}
        self.largest_difference = 0.0
        self.largest_rows = 0
        self._tolerance = tolerance
        self._scales: dict[tuple[Method, int], float] = {}

    def compare(self, kind: str, batch: Batch) -> None:
        """Raise NotCompilable unless all methods answer `batch` alike."""
        self.largest_rows = max(self.largest_rows, batch.rows)
        for method in self.model.signature.methods:
            try:
                expected = self.model.answer(method, batch)
            except InvalidInput as error:
                raise NotCompilable(f"the estimator refuses some of the rows ({kind}): {error}") from None
            self._compare(kind, method, expected, self.sessions[method].answer(method, batch))

    def _compare(self, kind: str, method: Method, expected: Prediction, got: Prediction) -> None:
        if len(expected.tensors) != len(got.tensors):
            raise NotCompilable(f"{method} gives {len(got.tensors)} arrays, the estimator {len(expected.tensors)}")
        for place, (wanted, given) in enumerate(zip(expected.tensors, got.tensors, strict=True)):
            where = f"{method} on rows of kind '{kind}'"
            if isinstance(wanted, list) or isinstance(given, list):
                self._labels(where, wanted, given)
                continue
            if wanted.shape != given.shape or wanted.dtype != given.dtype:
                mine, theirs = f"{given.dtype}{given.shape}", f"{wanted.dtype}{wanted.shape}"
                raise NotCompilable(f"{method} gives {mine}, the estimator {theirs}")
            is_label = method == "predict" and self.model.signature.kind in _LABELLED
            if is_label or wanted.dtype.kind != "f":
                self._labels(where, wanted, given)
            else:
                self._numbers(where, (method, place), wanted, given)

    def _labels(self, where: str, wanted: Tensor, given: Tensor) -> None:
        if type(wanted) is not type(given):
            raise NotCompilable(f"{where}: labels of another type")
        differ = [
            (mine, theirs) for mine, theirs in zip(_listed(given), _listed(wanted), strict=True) if mine != theirs
        ]
        if differ:
            mine, theirs = differ[0]
            raise NotCompilable(f"{where}: {len(differ)} of {len(wanted)} labels differ, such as {mine} for {theirs}")

    def _numbers(self, where: str, output: tuple[Method, int], wanted: Any, given: Any) -> None:
        with np.errstate(all="ignore"):
            is_same = (wanted == given) | (np.isnan(wanted) & np.isnan(given))
            if is_same.all():
                return
            distance = np.where(is_same, 0.0, np.abs(wanted - given))
            size = np.where(np.isfinite(wanted), np.abs(wanted), 0.0)
            scale = self._scales.setdefault(output, min(1.0, float(size.max(initial=0.0)) or 1.0))
            relative = distance / np.maximum(size, scale)
        is_beyond = ~(relative <= self._tolerance)
        if is_beyond.any():
            at = np.unravel_index(int(np.argmax(is_beyond)), wanted.shape)
            raise NotCompilable(f"{where}: {given[at]!r} for {wanted[at]!r}, beyond engine.compile_tolerance")
        self.largest_difference = max(self.largest_difference, float(relative.max()))


def prove(
    model: Provable,
    graphs: Sequence[Graph],
    tolerance: float,
    examples: Sequence[Batch],
    most_rows: int = MOST_ROWS,
) -> Compilation:
    """Return the proof that `graphs` together answer every method of `model` alike, and faster.

    No run of a graph has more than `most_rows` rows, as in service. `examples` are golden rows. Labels must be equal on
    all rows, other numbers within ``tolerance * max(|x|, s)`` where `s` is 1, or the largest of the first numbers seen
    when all are smaller. Raises NotCompilable with the first difference, or with the measured times when the graph is
    not faster.
    """
    prover = _Prover(model, graphs, tolerance, most_rows)
    guard = guard_of(model)
    maker = RowMaker(model, guard, _thresholds(model), examples)
    rows = _how_many(model, maker)
    times = _times(prover, maker)
    tried: Counter[str] = Counter()
    for kind, batch in maker.kinds(rows):
        prover.compare(kind, batch)
        tried[kind] += batch.rows
    guard = guard.model_copy(update={"largest": _largest(prover, maker, tried)})
    return Compilation(
        engine="onnx",
        reason=f"answers alike on {tried.total()} rows and {times[0][0] / times[0][1]:.3g} times as fast",
        rows=tuple(ProvenRows(kind=kind, rows=rows) for kind, rows in tried.items()),
        guard=guard,
        largest_difference=prover.largest_difference,
        row_seconds=times[0],
        batch_seconds=times[1],
        batch_rows=BATCH_ROWS,
        most_rows=min(prover.largest_rows, most_rows),
        graph_bytes=sum(len(graph.content) for graph in graphs),
    )


def _thresholds(model: Provable) -> dict[int, Any]:
    if not isinstance(model, EstimatorModel):
        return {}  # a file's own nodes are not drawn anew
    try:
        return thresholds_of(model.estimator, len(model.columns))
    except Exception:  # noqa: BLE001  (attributes may be anything; the other kinds of rows remain)
        return {}


def _how_many(model: Provable, maker: RowMaker) -> int:
    """Return how many rows of a kind to try: as many as a second or so is enough for."""
    begin = time.thread_time()
    for method in model.signature.methods:
        try:
            model.answer(method, maker.plausible(64))
        except InvalidInput as error:
            raise NotCompilable(f"the estimator refuses made-up rows: {error}") from None
    seconds = (time.thread_time() - begin) / 64
    return int(min(MOST_ROWS, max(LEAST_ROWS, PROOF_SECONDS / 4 / seconds)))


def _largest(prover: _Prover, maker: RowMaker, tried: Counter[str]) -> float | None:
    """Return up to which magnitude both answer, and alike; None when there is no end to it."""
    proven = None
    for magnitude in MAGNITUDES:
        batch = maker.extremes(magnitude)
        try:
            prover.compare("extremes", batch)
        except NotCompilable:
            if proven is None:
                raise
            return proven
        tried["extremes"] += batch.rows
        proven = magnitude
    return None


def _times(prover: _Prover, maker: RowMaker) -> list[tuple[float, float]]:
    """Return how long the estimator and the graph take for one row and for many.

    Raises NotCompilable when the graph is not faster for one row, or clearly slower for many.
    """
    model, method = prover.model, prover.model.signature.default_method
    session = prover.sessions[method]
    times = []
    for count, slack in ((1, 1.0), (BATCH_ROWS, BATCH_SLACK)):
        batch = maker.plausible(count)
        own = _seconds(lambda: model.answer(method, batch))  # noqa: B023  (called before the next turn)
        compiled = _seconds(lambda: session.answer(method, batch))  # noqa: B023
        if compiled >= own * slack and isinstance(model, EstimatorModel):  # a file is the same graph either way
            measured = f"{compiled * 1e6:.0f} us compiled, in {own * 1e6:.0f} us by the estimator"
            raise NotCompilable(f"not faster: {count} row{'s' * (count > 1)} in {measured}")
        times.append((own, compiled))
    return times


def _seconds(answer: Callable[[], Any]) -> float:
    """Return the median time of an answer: at least three, more while they are quick.

    The time of this thread, not of the clock: a host compiles at low priority, and on a busy machine what is measured
    would be who was preempted.
    """
    times: list[float] = []
    answer()
    begin = time.thread_time()
    while len(times) < 3 or (time.thread_time() - begin < TIMED_SECONDS and len(times) < MOST_TIMED):
        start = time.thread_time()
        answer()
        times.append(time.thread_time() - start)
    return median(times)


def _listed(tensor: Tensor) -> list[Any]:
    return tensor.ravel().tolist() if isinstance(tensor, np.ndarray) else tensor
