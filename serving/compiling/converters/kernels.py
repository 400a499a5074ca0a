"""Support vector machines and other sums over kernels of remembered rows.

libsvm decides between each pair of classes (the first one above 0); scikit-learn makes scores for each class of that
(`sklearn.utils.multiclass._ovr_decision_function`).
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import register_converter
from serving.compiling.converters.labels import draw_label_by_largest, draw_label_by_truth, flatten
from serving.compiling.drawing import Drawing, NotCompilable


def draw_kernel(rows: Rows, part: Any, remembered: Any, gamma: float | None) -> str:
    """Return (rows, remembered): the kernel of each pair, by ``draw_kernel``, ``degree`` and ``coef0`` of `part`."""
    drawing = rows.drawing
    matrix = rows.matrix()
    others = np.asarray(remembered.toarray() if hasattr(remembered, "toarray") else remembered, dtype=np.float64)
    scale = 1.0 / others.shape[1] if gamma is None else float(gamma)
    if part.kernel == "rbf":
        return drawing.op("Exp", drawing.op("Mul", draw_squared_distances(rows, others), drawing.constant(-scale)))
    made = drawing.op("MatMul", matrix, drawing.constant(others.T))
    if part.kernel == "linear":
        return made
    made = drawing.op("Add", drawing.op("Mul", made, drawing.constant(scale)), drawing.constant(float(part.coef0)))
    if part.kernel in ("poly", "polynomial"):
        return drawing.op("Pow", made, drawing.constant(float(part.degree)))
    if part.kernel == "sigmoid":
        return drawing.op("Tanh", made)
    raise NotCompilable(f"{type(part).__name__} with the kernel {part.kernel!s:.40} has no compiled form")


def draw_squared_distances(rows: Rows, others: NDArray[np.float64]) -> str:
    """Return (rows, others) of squared Euclidean distances, around the mean of the others to lose few digits."""
    drawing = rows.drawing
    center = others.mean(axis=0)
    shifted = drawing.op("Sub", rows.matrix(), drawing.constant(center))
    around = others - center
    axis = drawing.constant(np.array([1], dtype=np.int64))
    own = drawing.op("ReduceSum", drawing.op("Mul", shifted, shifted), axis)
    cross = drawing.op("MatMul", shifted, drawing.constant(-2 * around.T))
    total = drawing.op("Add", drawing.op("Add", cross, own), drawing.constant((around**2).sum(axis=1)))
    return drawing.op("Max", total, drawing.constant(0.0))


def draw_nearest(rows: Rows, others: Any, *, as_kmeans: bool = False) -> str:
    """Return the position of the nearest of `others` (others, features), the first one among equals.

    Distances are those of scikit-learn's ``pairwise_distances_argmin``, in its order; k-means leaves out the square of
    the row, which is the same for all. That tells where an enormous number leaves no digits for anything else.
    """
    drawing = rows.drawing
    known = np.asarray(others, dtype=np.float64)
    found = drawing.op("MatMul", rows.matrix(), drawing.constant(-2 * known.T))
    if not as_kmeans:
        squares = drawing.op("Mul", rows.matrix(), rows.matrix())
        own = drawing.op("ReduceSum", squares, drawing.constant(np.array([1], dtype=np.int64)))
        found = drawing.op("Add", own, found)
    found = drawing.op("Add", found, drawing.constant((known**2).sum(axis=1)))
    if not as_kmeans:  # not the larger of the two: what has overflowed to NaN is 0 there, and the nearest
        zero = drawing.constant(0.0)
        found = drawing.op("Where", drawing.op("Greater", found, zero), found, zero)
    return drawing.op("ArgMin", found, axis=1, keepdims=0)


def weight_kernel(rows: Rows, made: str, weights: Any, intercept: Any) -> str:
    """Return the kernel times `weights` (remembered, outputs) plus `intercept`."""
    drawing = rows.drawing
    total = drawing.op("MatMul", made, drawing.constant(np.asarray(weights, dtype=np.float64)))
    return drawing.op("Add", total, drawing.constant(np.asarray(intercept, dtype=np.float64)))


def _make_dense(array: Any) -> NDArray[np.float64]:
    return np.asarray(array.toarray() if hasattr(array, "toarray") else array, dtype=np.float64)


@register_converter("NuSVR", "OneClassSVM", "SVR")
def draw_one_sum(part: Any, rows: Rows, method: str) -> Any:
    """Draw one sum of kernels: a value, or how far inside a row lies."""
    drawing = rows.drawing
    made = draw_kernel(rows, part, part.support_vectors_, part._gamma)
    total = flatten(drawing, weight_kernel(rows, made, _make_dense(part._dual_coef_).T, part._intercept_))
    if type(part).__name__ != "OneClassSVM":
        return total if method == "predict" else NotImplemented
    if method == "score_samples":
        return drawing.op("Add", total, drawing.constant(float(np.ravel(part.offset_)[0])))
    if method == "decision_function":
        return total
    is_inside = drawing.op("Greater", total, drawing.constant(0.0))
    return drawing.op("Where", is_inside, drawing.constant(np.int64(1)), drawing.constant(np.int64(-1)))


@register_converter("KernelRidge")
def draw_kernel_ridge(part: Any, rows: Rows, method: str) -> Any:
    """Draw kernel ridge regression."""
    if method != "predict":
        return NotImplemented
    weights = np.asarray(part.dual_coef_)
    made = draw_kernel(rows, part, part.X_fit_, part.gamma)
    if weights.ndim == 2:
        return rows.drawing.op("MatMul", made, rows.drawing.constant(weights))
    return flatten(rows.drawing, rows.drawing.op("MatMul", made, rows.drawing.constant(weights[:, None])))


@register_converter("NuSVC", "SVC")
def draw_classifier(part: Any, rows: Rows, method: str) -> Any:
    """Draw the decisions between pairs, and votes over them."""
    drawing = rows.drawing
    if method not in ("predict", "decision_function"):
        raise NotCompilable(f"{type(part).__name__} iterates to find probabilities, which has no compiled form")
    pairs = list(combinations(range(len(part.classes_)), 2))
    made = draw_kernel(rows, part, part.support_vectors_, part._gamma)
    between = weight_kernel(rows, made, _compute_pair_weights(part, pairs), part._intercept_)
    if len(pairs) == 1:
        scores = drawing.op("Neg", flatten(drawing, between))
        if method == "decision_function":
            return scores
        return draw_label_by_truth(drawing, part.classes_, drawing.op("GreaterOrEqual", scores, drawing.constant(0.0)))
    if method == "decision_function":
        return between if part.decision_function_shape == "ovo" else _draw_scores(drawing, between, pairs)
    if part.break_ties and part.decision_function_shape == "ovr":
        return draw_label_by_largest(drawing, part.classes_, _draw_scores(drawing, between, pairs))
    is_first = drawing.op("Greater", between, drawing.constant(0.0))
    return draw_label_by_largest(drawing, part.classes_, _draw_votes(drawing, is_first, pairs, first=True))


def _compute_pair_weights(part: Any, pairs: list[tuple[int, int]]) -> NDArray[np.float64]:
    coefficients = _make_dense(part._dual_coef_)
    bounds = np.cumsum([0, *part._n_support])
    weights = np.zeros((coefficients.shape[1], len(pairs)))
    for place, (one, other) in enumerate(pairs):
        own, its = slice(bounds[one], bounds[one + 1]), slice(bounds[other], bounds[other + 1])
        weights[own, place] = coefficients[other - 1, own]
        weights[its, place] = coefficients[one, its]
    return weights


def _draw_votes(drawing: Drawing, decided: str, pairs: list[tuple[int, int]], *, first: bool) -> str:
    """Count votes: a pair's first class gets one where `decided` is `first`, its second class otherwise."""
    classes = max(other for _, other in pairs) + 1
    change, start = np.zeros((len(pairs), classes)), np.zeros(classes)
    for place, (one, other) in enumerate(pairs):
        winner, loser = (one, other) if first else (other, one)
        change[place, winner], change[place, loser] = 1, -1
        start[loser] += 1
    counted = drawing.op("Cast", decided, to=TensorProto.DOUBLE)
    return drawing.op("Add", drawing.op("MatMul", counted, drawing.constant(change)), drawing.constant(start))


def _draw_scores(drawing: Drawing, between: str, pairs: list[tuple[int, int]]) -> str:
    return draw_ovr_scores(drawing, drawing.op("Less", between, drawing.constant(0.0)), between, pairs)


def draw_ovr_scores(drawing: Drawing, is_second: str, between: str, pairs: list[tuple[int, int]]) -> str:
    """Return (rows, classes): votes, where a pair chose its second class or not, and its confidence in the first."""
    classes = max(other for _, other in pairs) + 1
    signs = np.zeros((len(pairs), classes))
    for place, (one, other) in enumerate(pairs):
        signs[place, one], signs[place, other] = 1, -1
    votes = _draw_votes(drawing, is_second, pairs, first=False)
    confidence = drawing.op("MatMul", between, drawing.constant(signs))
    size = drawing.op("Add", drawing.op("Abs", confidence), drawing.constant(1.0))
    share = drawing.op("Div", confidence, drawing.op("Mul", size, drawing.constant(3.0)))
    return drawing.op("Add", votes, share)
