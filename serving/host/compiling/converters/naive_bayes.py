"""Naive Bayes: ``_joint_log_likelihood`` of sklearn.naive_bayes, normalized in log space."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from serving.host.compiling.converters.blocks import Rows
from serving.host.compiling.converters.labels import by_largest
from serving.host.compiling.converters.registry import converts
from serving.host.compiling.drawing import Drawing


@converts("BernoulliNB", "ComplementNB", "GaussianNB", "MultinomialNB")
def naive_bayes(part: Any, rows: Rows, method: str) -> Any:
    """Draw the class of the largest likelihood, or all of them normalized."""
    if method not in ("predict", "predict_proba", "predict_log_proba"):
        return NotImplemented
    joint = _JOINT[type(part).__name__](part, rows)
    if method == "predict":
        return by_largest(rows.drawing, part.classes_, joint)
    logarithms = normalized(rows.drawing, joint)
    return logarithms if method == "predict_log_proba" else rows.drawing.op("Exp", logarithms)


def normalized(drawing: Drawing, joint: str) -> str:
    """Return logarithms of probabilities for logarithms of weights, as scipy's logsumexp."""
    axis = drawing.constant(np.array([1], dtype=np.int64))
    shifted = drawing.op("Sub", joint, drawing.op("ReduceMax", joint, axis))
    total = drawing.op("Log", drawing.op("ReduceSum", drawing.op("Exp", shifted), axis))
    return drawing.op("Sub", shifted, total)


def _multinomial(part: Any, rows: Rows) -> str:
    drawing = rows.drawing
    made = drawing.op("MatMul", rows.matrix(), drawing.constant(part.feature_log_prob_.T))
    if type(part).__name__ == "ComplementNB":
        return drawing.op("Add", made, drawing.constant(part.class_log_prior_)) if len(part.classes_) == 1 else made
    return drawing.op("Add", made, drawing.constant(part.class_log_prior_))


def _bernoulli(part: Any, rows: Rows) -> str:
    drawing = rows.drawing
    matrix = rows.matrix()
    if part.binarize is not None:
        above = drawing.op("Greater", matrix, drawing.constant(float(part.binarize)))
        matrix = drawing.op("Cast", above, to=TensorProto.DOUBLE)
    absent = np.log(1 - np.exp(part.feature_log_prob_))
    made = drawing.op("MatMul", matrix, drawing.constant((part.feature_log_prob_ - absent).T))
    return drawing.op("Add", made, drawing.constant(part.class_log_prior_ + absent.sum(axis=1)))


def _gaussian(part: Any, rows: Rows) -> str:
    """Sum squares over features of (rows, classes, features): a product would lose digits."""
    drawing = rows.drawing
    spread = drawing.op("Unsqueeze", rows.matrix(), drawing.constant(np.array([1], dtype=np.int64)))
    apart = drawing.op("Sub", spread, drawing.constant(part.theta_))
    squares = drawing.op("Div", drawing.op("Mul", apart, apart), drawing.constant(part.var_))
    total = drawing.op("ReduceSum", squares, drawing.constant(np.array([2], dtype=np.int64)), keepdims=0)
    start = np.log(part.class_prior_) - 0.5 * np.log(2.0 * np.pi * part.var_).sum(axis=1)
    return drawing.op("Sub", drawing.constant(start), drawing.op("Mul", total, drawing.constant(0.5)))


_JOINT = {
    "BernoulliNB": _bernoulli,
    "ComplementNB": _multinomial,
    "GaussianNB": _gaussian,
    "MultinomialNB": _multinomial,
}
