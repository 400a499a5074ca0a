"""Compare an estimator and its graph: both answer the same batch, and the answers must be alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.compiling.drawing import NotCompilable
from serving.compiling.find_guard import ProvableModel
from serving.compiling.proof_rows import EXTREMES, TINY
from serving.domain.compiled_form import Graph
from serving.domain.errors import InvalidInput
from serving.domain.signature import Method, ModelKind
from serving.host.comparison import relative_distances, scale_of
from serving.plane.graph import GraphSession
from serving.rows.batch import Batch, Prediction, Tensor

_LABELLED = (ModelKind.CLASSIFIER, ModelKind.CLUSTERER, ModelKind.OUTLIER_DETECTOR)
# smaller numbers have too few digits to compare
_LEAST_SIZE = 1e-290
# a result smaller than this, relative to the numbers it was computed from, is only rounding
CANCELLED = 1e-10
# differences grow with the numbers: at the limit they must be this many times smaller, for rows that are not tried
_ROOM = 10.0
# rounding changes smooth answers by fewer tolerances than this; answers that jump (nearest neighbours) change by more
_JUMP = 1000.0


class RefusedRows(NotCompilable):
    """The estimator refuses some of the rows, so the graph cannot be compared on them."""


Output = tuple[Method, int]
Answers = dict[Method, Prediction]


class Prover:
    """Compares answers, and remembers the largest difference."""

    def __init__(self, model: ProvableModel, graphs: Sequence[Graph], tolerance: float, most_rows: int) -> None:
        self.model = model
        sessions = [GraphSession(graph, most_rows) for graph in graphs]
        self.sessions = {method: session for session in sessions for method in session.methods}
        self.largest_difference = 0.0
        self.largest_rows = 0
        self._tolerance = tolerance
        self._scales: dict[Output, float] = {}
        self._overflowing: set[Output] = set()

    def compare_answers(self, kind: str, batch: Batch) -> Answers:
        """Raise NotCompilable unless all methods answer `batch` alike; returns the answers of the estimator.

        On rows of kind `TINY`, the output of a transformer is compared by the scale of each row: it is the input of
        another part, which may enlarge it. On rows of kind `EXTREMES`, answers must be closer than on others.
        """
        self.largest_rows = max(self.largest_rows, batch.rows)
        answers: Answers = {}
        for method in self.model.signature.methods:
            try:
                answers[method] = self.model.answer(method, batch)
            except InvalidInput as error:
                raise RefusedRows(f"the estimator refuses some of the rows ({kind}): {error}") from None
            least = _compute_least_scales(batch) if kind == TINY and method == "transform" else None
            self._compare_method(kind, method, answers[method], self.sessions[method].answer(method, batch), least)
        return answers

    def note_overflow(self, answers: Answers) -> None:
        """Remember which outputs are NaN or infinite for rows without enormous numbers: they show no overflow."""
        self._overflowing |= {output for output, tensor in _list_tensors(answers) if not _is_finite(tensor)}

    def require_steady(self, answers: Answers, mixed_rows: int) -> None:
        """Raise NotCompilable where answers to enormous numbers depend on rounding, or overflow.

        The last rows are `mixed_rows` rows three times: as they are, changed slightly, and changed as much as many
        roundings would; see `hard_numbers.make_extremes`. Labels must be equal in all three. Numbers may differ by the
        tolerance in the second, and in the third by as much as a smooth function changes.
        """
        for output, tensor in _list_tensors(answers):
            if output not in self._overflowing and not _is_finite(tensor):
                raise NotCompilable(f"{output[0]} overflows")
            as_is, slightly, as_rounding = (tensor[len(tensor) - n * mixed_rows :][:mixed_rows] for n in (3, 2, 1))
            if self._is_label(output[0], as_is):
                is_steady = _list_values(as_is) == _list_values(slightly) == _list_values(as_rounding)
            else:
                change, jump = (
                    self._compute_relative_distances(output, as_is, other) for other in (slightly, as_rounding)
                )
                is_steady = not ((change > self._tolerance) | (jump > self._tolerance * _JUMP)).any()
            if not is_steady:
                raise NotCompilable(f"{output[0]} depends on the last digits of the numbers")

    def require_growth(self, answers: Answers, magnitude: float) -> None:
        """Raise NotCompilable when no answer is nearly as large as `magnitude`: then none shows an overflow inside."""
        sizes = [np.abs(tensor).max(initial=0.0) for _, tensor in _list_tensors(answers) if not _is_label_like(tensor)]
        if not any(size >= magnitude**0.8 for size in sizes):
            raise NotCompilable("answers that do not grow with the numbers do not show where a sum overflows")

    def _compare_method(
        self, kind: str, method: Method, expected: Prediction, got: Prediction, least: NDArray[np.float64] | None
    ) -> None:
        if len(expected.tensors) != len(got.tensors):
            raise NotCompilable(f"{method} gives {len(got.tensors)} arrays, the estimator {len(expected.tensors)}")
        for place, (wanted, given) in enumerate(zip(expected.tensors, got.tensors, strict=True)):
            where = f"{method} on rows of kind '{kind}'"
            if isinstance(wanted, list) or isinstance(given, list):
                self._require_equal_labels(where, wanted, given)
                continue
            if wanted.shape != given.shape or wanted.dtype != given.dtype:
                mine, theirs = f"{given.dtype}{given.shape}", f"{wanted.dtype}{wanted.shape}"
                raise NotCompilable(f"{method} gives {mine}, the estimator {theirs}")
            if self._is_label(method, wanted):
                self._require_equal_labels(where, wanted, given)
                continue
            relative = self._compute_relative_distances((method, place), wanted, given, least)
            self._require_close_numbers(where, wanted, given, relative * (_ROOM if kind == EXTREMES else 1.0))
            self.largest_difference = max(self.largest_difference, float(relative.max(initial=0.0)))

    def _is_label(self, method: Method, tensor: Tensor) -> bool:
        if _is_label_like(tensor):
            return True
        return method == "predict" and self.model.signature.kind in _LABELLED

    def _require_equal_labels(self, where: str, wanted: Tensor, given: Tensor) -> None:
        if type(wanted) is not type(given):
            raise NotCompilable(f"{where}: labels of another type")
        differ = [
            (mine, theirs)
            for mine, theirs in zip(_list_values(given), _list_values(wanted), strict=True)
            if mine != theirs
        ]
        if differ:
            mine, theirs = differ[0]
            raise NotCompilable(f"{where}: {len(differ)} of {len(wanted)} labels differ, such as {mine} for {theirs}")

    def _require_close_numbers(self, where: str, wanted: Any, given: Any, relative: NDArray[np.float64]) -> None:
        is_beyond = ~(relative <= self._tolerance)
        if is_beyond.any():
            at = np.unravel_index(int(np.argmax(is_beyond)), wanted.shape)
            raise NotCompilable(f"{where}: {given[at]!r} for {wanted[at]!r}, beyond engine.compile_tolerance")

    def _compute_relative_distances(
        self, output: Output, wanted: Any, given: Any, least: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Return distances relative to the number, or to a scale if that is larger.

        The scale is that of the output, or the largest number of the row if that is smaller, but at least `least`.
        """

        def choose_scale(sizes: NDArray[np.float64]) -> Any:
            usual = self._scales.setdefault(output, scale_of(sizes))
            if least is None:
                return usual
            own = sizes.max(axis=tuple(range(1, sizes.ndim)), keepdims=True, initial=_LEAST_SIZE)
            return np.minimum(usual, np.maximum(own, least.reshape(own.shape)))

        return relative_distances(wanted, given, choose_scale)


def _compute_least_scales(batch: Batch) -> NDArray[np.float64]:
    """Return for each row the size below which a result is only rounding: what is left of sums that cancel out."""
    columns = [cells for cells in batch.columns or () if isinstance(cells, np.ndarray) and cells.dtype.kind == "f"]
    numbers = np.column_stack(columns) if batch.matrix is None else batch.matrix
    sizes: NDArray[np.float64] = np.nan_to_num(np.abs(numbers)).max(axis=1, initial=0.0)
    return CANCELLED * sizes


def _list_tensors(answers: Answers) -> list[tuple[Output, Tensor]]:
    return [
        ((method, place), tensor)
        for method, answer in answers.items()
        for place, tensor in enumerate(answer.tensors)
    ]  # fmt: skip


def _is_finite(tensor: Tensor) -> bool:
    return _is_label_like(tensor) or bool(np.isfinite(tensor).all())


def _is_label_like(tensor: Tensor) -> bool:
    return isinstance(tensor, list) or tensor.dtype.kind != "f"


def _list_values(tensor: Tensor) -> list[Any]:
    return tensor.ravel().tolist() if isinstance(tensor, np.ndarray) else tensor
