"""Gaussian mixtures and other densities: logarithms of likelihoods, as in sklearn.mixture and sklearn.covariance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import draw_answer, register_converter
from serving.compiling.converters.labels import flatten_column
from serving.compiling.converters.linear import draw_inlier_labels
from serving.compiling.converters.naive_bayes import normalize_logarithms
from serving.compiling.drawing import Drawing


@register_converter("BayesianGaussianMixture", "GaussianMixture")
def draw_mixture(part: Any, rows: Rows, method: str) -> Any:
    """Draw the likeliest component, the shares of all of them, or the log likelihood of a row."""
    drawing = rows.drawing
    joint = str(drawing.compute_once(("raw", id(part), rows.blocks), lambda: _draw_joint(part, rows)))
    if method == "predict":
        return drawing.draw_node("ArgMax", joint, axis=1, keepdims=0)
    if method == "predict_proba":
        return drawing.draw_node("Exp", normalize_logarithms(drawing, joint))
    return _sum_logarithms(drawing, joint) if method == "score_samples" else NotImplemented


def _sum_logarithms(drawing: Drawing, joint: str) -> str:
    """Return the logarithm of the sum of exponentials of each row, as scipy's logsumexp."""
    axis = drawing.add_constant(np.array([1], dtype=np.int64))
    largest = drawing.draw_node("ReduceMax", joint, axis)
    total = drawing.draw_node("ReduceSum", drawing.draw_node("Exp", drawing.draw_node("Sub", joint, largest)), axis)
    return flatten_column(drawing, drawing.draw_node("Add", drawing.draw_node("Log", total), largest))


def _draw_joint(part: Any, rows: Rows) -> str:
    """Draw the weighted log likelihood under each component, by the formulas of ``_estimate_log_gaussian_prob``."""
    drawing = rows.drawing
    cholesky = np.asarray(part.precisions_cholesky_, dtype=np.float64)
    means = np.asarray(part.means_, dtype=np.float64)
    if part.covariance_type in ("full", "tied"):
        each = cholesky if part.covariance_type == "full" else [cholesky] * len(means)
        squares = _draw_squared_distances(rows, means, each)
        diagonals = [np.log(np.diagonal(one)).sum() for one in each]
    else:
        wide = cholesky if part.covariance_type == "diag" else np.repeat(cholesky[:, None], rows.width, axis=1)
        precisions = wide**2
        matrix = rows.draw_matrix()
        cross = drawing.draw_node("MatMul", matrix, drawing.add_constant(-2.0 * (means * precisions).T))
        own = drawing.draw_node("MatMul", drawing.draw_node("Mul", matrix, matrix), drawing.add_constant(precisions.T))
        start = (means**2 * precisions).sum(axis=1)
        squares = drawing.draw_node("Add", drawing.draw_node("Add", cross, own), drawing.add_constant(start))
        diagonals = np.log(wide).sum(axis=1)
    offset = np.asarray(diagonals) - 0.5 * rows.width * np.log(2 * np.pi) + part._estimate_log_weights()
    if type(part).__name__ == "BayesianGaussianMixture":
        offset = offset + _compute_uncertainty(part, rows.width)
    return drawing.draw_node(
        "Add", drawing.draw_node("Mul", squares, drawing.add_constant(-0.5)), drawing.add_constant(offset)
    )


def _draw_squared_distances(rows: Rows, means: NDArray[np.float64], cholesky: Any) -> str:
    drawing = rows.drawing
    axis = drawing.add_constant(np.array([1], dtype=np.int64))
    made = []
    for mean, one in zip(means, cholesky, strict=True):
        rotated = drawing.draw_node(
            "MatMul", rows.draw_matrix(), drawing.add_constant(np.asarray(one, dtype=np.float64))
        )
        difference = drawing.draw_node("Sub", rotated, drawing.add_constant(mean @ one))
        made.append(drawing.draw_node("ReduceSum", drawing.draw_node("Mul", difference, difference), axis))
    return made[0] if len(made) == 1 else drawing.draw_node("Concat", *made, axis=1)


def _compute_uncertainty(part: Any, features: int) -> Any:
    freedom = part.degrees_of_freedom_
    spread = digamma(0.5 * (freedom - np.arange(features)[:, np.newaxis])).sum(axis=0)
    scaled = features * np.log(2.0) + spread - features / part.mean_precision_
    return 0.5 * scaled - 0.5 * features * np.log(freedom)


@register_converter("EllipticEnvelope")
def draw_envelope(part: Any, rows: Rows, method: str) -> Any:
    """Draw the negative of the squared Mahalanobis distance: rows at ``offset_`` and above are inliers."""
    drawing = rows.drawing
    if method == "score_samples":
        centered = drawing.draw_node(
            "Sub", rows.draw_matrix(), drawing.add_constant(np.asarray(part.location_, dtype=np.float64))
        )
        products = drawing.draw_node(
            "MatMul", centered, drawing.add_constant(np.asarray(part.get_precision(), dtype=np.float64))
        )
        axis = drawing.add_constant(np.array([1], dtype=np.int64))
        total = drawing.draw_node("ReduceSum", drawing.draw_node("Mul", products, centered), axis, keepdims=0)
        return drawing.draw_node("Neg", total)
    scores = drawing.draw_node(
        "Sub", draw_answer(part, rows, "score_samples"), drawing.add_constant(float(part.offset_))
    )
    if method == "decision_function":
        return scores
    return draw_inlier_labels(drawing, scores) if method == "predict" else NotImplemented
