"""Support vector machines and other sums over kernels of stored rows.

libsvm decides between the two classes of each pair: for the first one above 0. From these decisions scikit-learn makes
a score for each class (`sklearn.utils.multiclass._ovr_decision_function`).
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import register_converter
from serving.compiling.converters.labels import draw_label_by_largest, draw_label_by_truth, flatten_column
from serving.compiling.drawing import Drawing, NotCompilable


def draw_kernel(rows: Rows, part: Any, stored: Any, gamma: float | None) -> str:
    """Return (rows, stored): the kernel of each pair, by ``kernel``, ``degree`` and ``coef0`` of `part`."""
    drawing = rows.drawing
    matrix = rows.draw_matrix()
    others = np.asarray(stored.toarray() if hasattr(stored, "toarray") else stored, dtype=np.float64)
    scale = 1.0 / others.shape[1] if gamma is None else float(gamma)
    if part.kernel == "rbf":
        return drawing.draw_node(
            "Exp", drawing.draw_node("Mul", draw_squared_distances(rows, others), drawing.add_constant(-scale))
        )
    made = drawing.draw_node("MatMul", matrix, drawing.add_constant(others.T))
    if part.kernel == "linear":
        return made
    made = drawing.draw_node(
        "Add", drawing.draw_node("Mul", made, drawing.add_constant(scale)), drawing.add_constant(float(part.coef0))
    )
    if part.kernel in ("poly", "polynomial"):
        return drawing.draw_node("Pow", made, drawing.add_constant(float(part.degree)))
    if part.kernel == "sigmoid":
        return drawing.draw_node("Tanh", made)
    raise NotCompilable(f"{type(part).__name__} with the kernel {part.kernel!s:.40} has no compiled form")


def draw_squared_distances(rows: Rows, others: NDArray[np.float64]) -> str:
    """Return (rows, others) of squared Euclidean distances, around the mean of the others to lose few digits."""
    drawing = rows.drawing
    center = others.mean(axis=0)
    shifted = drawing.draw_node("Sub", rows.draw_matrix(), drawing.add_constant(center))
    around = others - center
    axis = drawing.add_constant(np.array([1], dtype=np.int64))
    own = drawing.draw_node("ReduceSum", drawing.draw_node("Mul", shifted, shifted), axis)
    cross = drawing.draw_node("MatMul", shifted, drawing.add_constant(-2 * around.T))
    total = drawing.draw_node(
        "Add", drawing.draw_node("Add", cross, own), drawing.add_constant((around**2).sum(axis=1))
    )
    return drawing.draw_node("Max", total, drawing.add_constant(0.0))


def draw_nearest(rows: Rows, others: Any, *, as_kmeans: bool = False) -> str:
    """Return the position of the nearest of `others` (others, features), the first one among equals.

    Distances are computed as in scikit-learn's ``pairwise_distances_argmin``, in its order. k-means leaves out the
    square of the row, which is the same for all others. With enormous numbers this matters: the square leaves no digits
    for anything else.
    """
    drawing = rows.drawing
    known = np.asarray(others, dtype=np.float64)
    found = drawing.draw_node("MatMul", rows.draw_matrix(), drawing.add_constant(-2 * known.T))
    if not as_kmeans:
        squares = drawing.draw_node("Mul", rows.draw_matrix(), rows.draw_matrix())
        own = drawing.draw_node("ReduceSum", squares, drawing.add_constant(np.array([1], dtype=np.int64)))
        found = drawing.draw_node("Add", own, found)
    found = drawing.draw_node("Add", found, drawing.add_constant((known**2).sum(axis=1)))
    if not as_kmeans:  # not Max: scikit-learn turns a distance that overflowed to NaN into 0, the nearest
        zero = drawing.add_constant(0.0)
        found = drawing.draw_node("Where", drawing.draw_node("Greater", found, zero), found, zero)
    return drawing.draw_node("ArgMin", found, axis=1, keepdims=0)


def weight_kernel(rows: Rows, made: str, weights: Any, intercept: Any) -> str:
    """Return the kernel times `weights` (stored, outputs) plus `intercept`."""
    drawing = rows.drawing
    total = drawing.draw_node("MatMul", made, drawing.add_constant(np.asarray(weights, dtype=np.float64)))
    return drawing.draw_node("Add", total, drawing.add_constant(np.asarray(intercept, dtype=np.float64)))


def _make_dense(array: Any) -> NDArray[np.float64]:
    return np.asarray(array.toarray() if hasattr(array, "toarray") else array, dtype=np.float64)


@register_converter("NuSVR", "OneClassSVM", "SVR")
def draw_one_sum(part: Any, rows: Rows, method: str) -> Any:
    """Draw one sum of kernels: a value, or how far inside a row lies."""
    drawing = rows.drawing
    made = draw_kernel(rows, part, part.support_vectors_, part._gamma)
    total = flatten_column(drawing, weight_kernel(rows, made, _make_dense(part._dual_coef_).T, part._intercept_))
    if type(part).__name__ != "OneClassSVM":
        return total if method == "predict" else NotImplemented
    if method == "score_samples":
        return drawing.draw_node("Add", total, drawing.add_constant(float(np.ravel(part.offset_)[0])))
    if method == "decision_function":
        return total
    is_inside = drawing.draw_node("Greater", total, drawing.add_constant(0.0))
    return drawing.draw_node("Where", is_inside, drawing.add_constant(np.int64(1)), drawing.add_constant(np.int64(-1)))


@register_converter("KernelRidge")
def draw_kernel_ridge(part: Any, rows: Rows, method: str) -> Any:
    """Draw kernel ridge regression."""
    if method != "predict":
        return NotImplemented
    weights = np.asarray(part.dual_coef_)
    made = draw_kernel(rows, part, part.X_fit_, part.gamma)
    if weights.ndim == 2:
        return rows.drawing.draw_node("MatMul", made, rows.drawing.add_constant(weights))
    return flatten_column(
        rows.drawing, rows.drawing.draw_node("MatMul", made, rows.drawing.add_constant(weights[:, None]))
    )


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
        scores = drawing.draw_node("Neg", flatten_column(drawing, between))
        if method == "decision_function":
            return scores
        return draw_label_by_truth(
            drawing, part.classes_, drawing.draw_node("GreaterOrEqual", scores, drawing.add_constant(0.0))
        )
    if method == "decision_function":
        return between if part.decision_function_shape == "ovo" else _draw_scores(drawing, between, pairs)
    if part.break_ties and part.decision_function_shape == "ovr":
        return draw_label_by_largest(drawing, part.classes_, _draw_scores(drawing, between, pairs))
    is_first = drawing.draw_node("Greater", between, drawing.add_constant(0.0))
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
    """Count votes: the first class of a pair gets one where `decided` equals `first`, else the second class."""
    classes = max(other for _, other in pairs) + 1
    change, start = np.zeros((len(pairs), classes)), np.zeros(classes)
    for place, (one, other) in enumerate(pairs):
        winner, loser = (one, other) if first else (other, one)
        change[place, winner], change[place, loser] = 1, -1
        start[loser] += 1
    counted = drawing.draw_node("Cast", decided, to=TensorProto.DOUBLE)
    return drawing.draw_node(
        "Add", drawing.draw_node("MatMul", counted, drawing.add_constant(change)), drawing.add_constant(start)
    )


def _draw_scores(drawing: Drawing, between: str, pairs: list[tuple[int, int]]) -> str:
    return draw_ovr_scores(drawing, drawing.draw_node("Less", between, drawing.add_constant(0.0)), between, pairs)


def draw_ovr_scores(drawing: Drawing, is_second: str, between: str, pairs: list[tuple[int, int]]) -> str:
    """Return (rows, classes): votes of the pairs by `is_second`, plus a share for `between`, their confidence."""
    classes = max(other for _, other in pairs) + 1
    signs = np.zeros((len(pairs), classes))
    for place, (one, other) in enumerate(pairs):
        signs[place, one], signs[place, other] = 1, -1
    votes = _draw_votes(drawing, is_second, pairs, first=False)
    confidence = drawing.draw_node("MatMul", between, drawing.add_constant(signs))
    size = drawing.draw_node("Add", drawing.draw_node("Abs", confidence), drawing.add_constant(1.0))
    share = drawing.draw_node("Div", confidence, drawing.draw_node("Mul", size, drawing.add_constant(3.0)))
    return drawing.draw_node("Add", votes, share)
