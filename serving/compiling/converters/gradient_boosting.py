"""GradientBoosting of scikit-learn: ``estimators_`` (stages, outputs) of trees on float32 rows, summed in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import register_converter
from serving.compiling.converters.forests import make_table
from serving.compiling.converters.labels import (
    draw_both_probabilities,
    draw_label_by_largest,
    draw_label_by_truth,
    draw_logistic,
    flatten_column,
)
from serving.compiling.drawing import Drawing, NotCompilable
from serving.compiling.tree_table import draw_sums_in_turn


@register_converter("GradientBoostingRegressor")
def draw_regressor(part: Any, rows: Rows, method: str) -> Any:
    """Draw the sum of the stages."""
    return flatten_column(rows.drawing, _draw_raw(part, rows)) if method == "predict" else NotImplemented


@register_converter("GradientBoostingClassifier")
def draw_classifier(part: Any, rows: Rows, method: str) -> Any:
    """Draw the sum of the stages, and the probabilities or labels that the loss defines."""
    drawing = rows.drawing
    raw = _draw_raw(part, rows)
    is_binary = part.estimators_.shape[1] == 1
    if method == "decision_function":
        return flatten_column(drawing, raw) if is_binary else raw
    if method == "predict" and is_binary:
        is_second = drawing.draw_node("GreaterOrEqual", flatten_column(drawing, raw), drawing.add_constant(0.0))
        return draw_label_by_truth(drawing, part.classes_, is_second)
    if method == "predict":
        return draw_label_by_largest(drawing, part.classes_, raw)
    if method != "predict_proba":
        return NotImplemented
    if not is_binary:
        return draw_softmax(drawing, raw)
    doubled = drawing.draw_node("Mul", raw, drawing.add_constant(2.0)) if part.loss == "exponential" else raw
    return draw_both_probabilities(drawing, draw_logistic(drawing, doubled))


def draw_softmax(drawing: Drawing, raw: str) -> str:
    """Return the probabilities of several classes."""
    return drawing.draw_node("Softmax", raw, axis=1)


def _draw_raw(part: Any, rows: Rows) -> str:
    return str(rows.drawing.compute_once(("raw", id(part), rows.blocks), lambda: _draw_trees(part, rows)))


def _draw_trees(part: Any, rows: Rows) -> str:
    trees = [member.tree_ for member in part.estimators_.ravel()]
    values = [tree.value[:, 0, 0] * part.learning_rate for tree in trees]
    table = make_table(trees, values).prepend_leaves(_compute_start(part).tolist())
    return draw_sums_in_turn(rows.drawing, table, rows.draw_matrix(), part.estimators_.shape[1])


def _compute_start(part: Any) -> NDArray[np.float64]:
    if not isinstance(part.init_, str) and type(part.init_).__name__ not in ("DummyClassifier", "DummyRegressor"):
        raise NotCompilable(f"{type(part).__name__} that begins with another estimator has no compiled form")
    start: NDArray[np.float64] = part._raw_predict_init(np.zeros((1, part.n_features_in_), dtype=np.float32))
    return start.ravel()
