"""Naive Bayes and quadratic discriminants: log likelihoods of each class, normalized in log space.

Formulas are those of ``_joint_log_likelihood`` in sklearn.naive_bayes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import register_converter
from serving.compiling.converters.labels import draw_label_by_largest
from serving.compiling.drawing import Drawing, NotCompilable


@register_converter("BernoulliNB", "ComplementNB", "GaussianNB", "MultinomialNB")
def draw_naive_bayes(part: Any, rows: Rows, method: str) -> Any:
    """Draw the class of the largest likelihood, or all of them normalized."""
    if method not in ("predict", "predict_proba", "predict_log_proba"):
        return NotImplemented
    joint = _JOINT[type(part).__name__](part, rows)
    if method == "predict":
        return draw_label_by_largest(rows.drawing, part.classes_, joint)
    logarithms = normalize_logarithms(rows.drawing, joint)
    return logarithms if method == "predict_log_proba" else rows.drawing.draw_node("Exp", logarithms)


@register_converter("QuadraticDiscriminantAnalysis")
def draw_quadratic(part: Any, rows: Rows, method: str) -> Any:
    """Draw the log posterior of each class, as ``_decision_function`` of QuadraticDiscriminantAnalysis."""
    drawing = rows.drawing
    joint = str(drawing.compute_once(("raw", id(part), rows.blocks), lambda: _draw_posterior(part, rows)))
    return draw_discriminant_answer(part, drawing, joint, method)


def draw_discriminant_answer(part: Any, drawing: Drawing, joint: str, method: str) -> Any:
    """Draw the answer of a classifier that decides by `joint`: the log posterior of each class, up to a constant."""
    if method == "predict":
        return draw_label_by_largest(drawing, part.classes_, joint)
    if method == "decision_function" and len(part.classes_) == 2:
        first, second = (
            drawing.draw_node("Gather", joint, drawing.add_constant(np.int64(at)), axis=1) for at in (0, 1)
        )
        return drawing.draw_node("Sub", second, first)
    if method == "decision_function":
        return joint
    logarithms = normalize_logarithms(drawing, joint)
    return logarithms if method == "predict_log_proba" else drawing.draw_node("Exp", logarithms)


def _draw_posterior(part: Any, rows: Rows) -> str:
    drawing = rows.drawing
    axis = drawing.add_constant(np.array([1], dtype=np.int64))
    norms = []
    for mean, rotation, scaling in zip(part.means_, part.rotations_, part.scalings_, strict=True):
        difference = drawing.draw_node("Sub", rows.draw_matrix(), drawing.add_constant(np.asarray(mean)))
        rotated = drawing.draw_node("MatMul", difference, drawing.add_constant(rotation * scaling**-0.5))
        norms.append(drawing.draw_node("ReduceSum", drawing.draw_node("Mul", rotated, rotated), axis))
    sizes = np.array([np.sum(np.log(scaling)) for scaling in part.scalings_])
    total = drawing.draw_node("Add", drawing.draw_node("Concat", *norms, axis=1), drawing.add_constant(sizes))
    halved = drawing.draw_node("Mul", total, drawing.add_constant(-0.5))
    return drawing.draw_node("Add", halved, drawing.add_constant(np.log(part.priors_)))


def normalize_logarithms(drawing: Drawing, joint: str) -> str:
    """Return logarithms of probabilities for logarithms of weights, as scipy's logsumexp."""
    axis = drawing.add_constant(np.array([1], dtype=np.int64))
    shifted = drawing.draw_node("Sub", joint, drawing.draw_node("ReduceMax", joint, axis))
    total = drawing.draw_node("Log", drawing.draw_node("ReduceSum", drawing.draw_node("Exp", shifted), axis))
    return drawing.draw_node("Sub", shifted, total)


def _draw_multinomial(part: Any, rows: Rows) -> str:
    drawing = rows.drawing
    made = drawing.draw_node("MatMul", rows.draw_matrix(), drawing.add_constant(part.feature_log_prob_.T))
    if type(part).__name__ == "ComplementNB":
        if part.norm:  # weights of each class add up to 1: a row of equal numbers gets that number from each
            raise NotCompilable("ComplementNB(norm=True) ties on rows of equal numbers, where rounding decides")
        return (
            drawing.draw_node("Add", made, drawing.add_constant(part.class_log_prior_))
            if len(part.classes_) == 1
            else made
        )
    return drawing.draw_node("Add", made, drawing.add_constant(part.class_log_prior_))


def _draw_bernoulli(part: Any, rows: Rows) -> str:
    drawing = rows.drawing
    matrix = rows.draw_matrix()
    if part.binarize is not None:
        above = drawing.draw_node("Greater", matrix, drawing.add_constant(float(part.binarize)))
        matrix = drawing.draw_node("Cast", above, to=TensorProto.DOUBLE)
    absent = np.log(1 - np.exp(part.feature_log_prob_))
    made = drawing.draw_node("MatMul", matrix, drawing.add_constant((part.feature_log_prob_ - absent).T))
    return drawing.draw_node("Add", made, drawing.add_constant(part.class_log_prior_ + absent.sum(axis=1)))


def _draw_gaussian(part: Any, rows: Rows) -> str:
    """Sum squares over features of (rows, classes, features): a product would lose digits."""
    drawing = rows.drawing
    spread = drawing.draw_node("Unsqueeze", rows.draw_matrix(), drawing.add_constant(np.array([1], dtype=np.int64)))
    difference = drawing.draw_node("Sub", spread, drawing.add_constant(part.theta_))
    squares = drawing.draw_node(
        "Div", drawing.draw_node("Mul", difference, difference), drawing.add_constant(part.var_)
    )
    total = drawing.draw_node("ReduceSum", squares, drawing.add_constant(np.array([2], dtype=np.int64)), keepdims=0)
    start = np.log(part.class_prior_) - 0.5 * np.log(2.0 * np.pi * part.var_).sum(axis=1)
    return drawing.draw_node(
        "Sub", drawing.add_constant(start), drawing.draw_node("Mul", total, drawing.add_constant(0.5))
    )


_JOINT = {
    "BernoulliNB": _draw_bernoulli,
    "ComplementNB": _draw_multinomial,
    "GaussianNB": _draw_gaussian,
    "MultinomialNB": _draw_multinomial,
}
