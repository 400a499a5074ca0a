"""Estimators that compute ``X @ coef_.T + intercept_``: regressors, classifiers, one-class and discriminants."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import draw_answer, register_converter
from serving.compiling.converters.labels import (
    draw_both_probabilities,
    draw_label_by_largest,
    draw_label_by_sign,
    draw_logistic,
    flatten_column,
)
from serving.compiling.drawing import Drawing

_SOFTMAX = {"LogisticRegression", "LogisticRegressionCV", "LinearDiscriminantAnalysis"}
_LOGARITHMIC_LINKS = {"PoissonRegressor", "GammaRegressor"}


def draw_product(rows: Rows, coefficients: Any, intercept: Any) -> str:
    """Return ``X @ coefficients.T + intercept`` of shape (rows, outputs); coefficients (outputs, features)."""
    drawing = rows.drawing
    weights = np.atleast_2d(np.asarray(coefficients, dtype=np.float64)).T
    bias = np.atleast_1d(np.asarray(intercept, dtype=np.float64))
    made = drawing.draw_node("MatMul", rows.draw_matrix(), drawing.add_constant(weights))
    return made if not bias.any() else drawing.draw_node("Add", made, drawing.add_constant(bias))


@register_converter(
    "ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "GammaRegressor", "HuberRegressor", "Lars",
    "LarsCV", "Lasso", "LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "LinearRegression", "LinearSVR",
    "MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV", "OrthogonalMatchingPursuit",
    "OrthogonalMatchingPursuitCV", "PassiveAggressiveRegressor", "PoissonRegressor", "QuantileRegressor", "Ridge",
    "RidgeCV", "SGDRegressor", "TheilSenRegressor", "TweedieRegressor",
)  # fmt: skip
def draw_regressor(part: Any, rows: Rows, method: str) -> Any:
    """Draw a linear regressor, or one of the generalized ones with their links."""
    if method != "predict":
        return NotImplemented
    drawing = rows.drawing
    values = draw_product(rows, part.coef_, part.intercept_)
    values = flatten_column(drawing, values) if np.ndim(part.coef_) == 1 else values
    is_logarithmic = type(part).__name__ in _LOGARITHMIC_LINKS or _has_logarithmic_link(part)
    return drawing.draw_node("Exp", values) if is_logarithmic else values


def _has_logarithmic_link(part: Any) -> bool:
    if type(part).__name__ != "TweedieRegressor":
        return False
    return bool(part.link == "log" or (part.link == "auto" and part.power > 0))


@register_converter(
    "LinearDiscriminantAnalysis", "LinearSVC", "LogisticRegression", "LogisticRegressionCV",
    "PassiveAggressiveClassifier", "Perceptron", "RidgeClassifier", "RidgeClassifierCV", "SGDClassifier",
)  # fmt: skip
def draw_classifier(part: Any, rows: Rows, method: str) -> Any:
    """Draw a linear classifier: the sign of one score, or the largest of several."""
    drawing = rows.drawing
    is_multilabel = getattr(part, "_label_binarizer", None) is not None and part._label_binarizer.y_type_.startswith(
        "multilabel"
    )
    if is_multilabel or (method == "predict_log_proba" and type(part).__name__ != "LinearDiscriminantAnalysis"):
        return NotImplemented
    if method == "predict_log_proba":  # zeros become the smallest normal number before the logarithm
        shares = draw_answer(part, rows, "predict_proba")
        smallest = drawing.add_constant(np.finfo(np.float64).smallest_normal)
        is_none = drawing.draw_node("Equal", shares, drawing.add_constant(0.0))
        return drawing.draw_node("Log", drawing.draw_node("Where", is_none, smallest, shares))
    scores = draw_product(rows, part.coef_, part.intercept_)
    is_binary = np.atleast_2d(part.coef_).shape[0] == 1
    if method == "decision_function":
        return flatten_column(drawing, scores) if is_binary else scores
    if method == "predict":
        if is_binary:
            return draw_label_by_sign(drawing, part.classes_, flatten_column(drawing, scores))
        return draw_label_by_largest(drawing, part.classes_, scores)
    return _draw_probabilities(part, drawing, scores, is_binary=is_binary)


def _draw_probabilities(part: Any, drawing: Drawing, scores: str, *, is_binary: bool) -> Any:
    name = type(part).__name__
    if name in _SOFTMAX and not is_binary:
        return drawing.draw_node("Softmax", scores, axis=1)
    if name in _SOFTMAX or (name == "SGDClassifier" and part.loss == "log_loss" and is_binary):
        return draw_both_probabilities(drawing, draw_logistic(drawing, scores))
    if name == "SGDClassifier" and part.loss == "log_loss":
        shares = draw_logistic(drawing, scores)
        total = drawing.draw_node("ReduceSum", shares, drawing.add_constant(np.array([1])), keepdims=1)
        is_none = drawing.draw_node("Equal", total, drawing.add_constant(0.0))
        equal = drawing.add_constant(1.0 / len(part.classes_))
        return drawing.draw_node("Where", is_none, equal, drawing.draw_node("Div", shares, total))
    return NotImplemented


@register_converter("SGDOneClassSVM")
def draw_one_class(part: Any, rows: Rows, method: str) -> Any:
    """Draw the linear one-class SVM: ``X @ coef_ - offset_``; rows at 0 and above are inliers."""
    drawing = rows.drawing
    scores = flatten_column(drawing, draw_product(rows, part.coef_, -np.asarray(part.offset_)))
    if method == "score_samples":  # scikit-learn subtracts the offset and adds it again, with two roundings
        return drawing.draw_node("Add", scores, drawing.add_constant(float(np.ravel(part.offset_)[0])))
    return scores if method == "decision_function" else draw_inlier_labels(drawing, scores)


def draw_inlier_labels(drawing: Drawing, scores: str) -> str:
    """Return 1 where a score is not below 0, else -1."""
    is_outlier = drawing.draw_node("Less", scores, drawing.add_constant(0.0))
    return drawing.draw_node("Where", is_outlier, drawing.add_constant(np.int64(-1)), drawing.add_constant(np.int64(1)))
