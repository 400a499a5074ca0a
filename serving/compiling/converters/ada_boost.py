"""AdaBoost over decision trees: every tree votes with its weight (SAMME), or the weighted median is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import draw_numeric_answer, register_converter
from serving.compiling.converters.forests import make_table
from serving.compiling.converters.labels import (
    draw_label_by_largest,
    draw_label_by_sign,
    flatten_column,
    reshape_to_column,
)
from serving.compiling.tree_table import draw_leaf_values, draw_sum

_TREES = {
    "classifier": ("DecisionTreeClassifier", "ExtraTreeClassifier"),
    "regressor": ("DecisionTreeRegressor", "ExtraTreeRegressor"),
}


@register_converter("AdaBoostClassifier")
def draw_classifier(part: Any, rows: Rows, method: str) -> Any:
    """Draw the votes: ``w`` for the class a tree chooses, ``-w / (classes - 1)`` for the others."""
    drawing = rows.drawing
    if method == "predict_log_proba" or part.n_classes_ < 2:
        return NotImplemented
    if any(type(member).__name__ not in _TREES["classifier"] for member in part.estimators_):
        return NotImplemented
    votes = [
        _compute_votes(part, member, weight)
        for member, weight in zip(part.estimators_, part.estimator_weights_, strict=False)
    ]
    is_binary = part.n_classes_ == 2
    if is_binary:
        votes = [vote[:, 1] for vote in votes]
    table = make_table([member.tree_ for member in part.estimators_], votes)
    found = drawing.compute_once(("raw", id(part), rows.blocks), lambda: draw_sum(drawing, table, rows.draw_matrix()))
    scores = drawing.draw_node("Div", str(found), drawing.add_constant(_sum_weights(part)))
    if is_binary:
        scores = drawing.draw_node("Add", scores, scores)
    if method == "predict_proba" and is_binary:
        halved = drawing.draw_node("Mul", scores, drawing.add_constant(np.array([-0.5, 0.5])))
        return drawing.draw_node("Softmax", halved, axis=1)
    if method == "predict_proba":
        return drawing.draw_node(
            "Softmax", drawing.draw_node("Div", scores, drawing.add_constant(part.n_classes_ - 1.0)), axis=1
        )
    if method == "predict" and not is_binary:
        return draw_label_by_largest(drawing, part.classes_, scores)
    scores = flatten_column(drawing, scores) if is_binary else scores
    return scores if method == "decision_function" else draw_label_by_sign(drawing, part.classes_, scores)


def _compute_votes(part: Any, member: Any, weight: float) -> NDArray[np.float64]:
    chosen = member.classes_[np.argmax(member.tree_.value[:, 0, :], axis=1)]
    return np.where(chosen[:, None] == part.classes_, weight, -1 / (part.n_classes_ - 1) * weight)


def _sum_weights(part: Any) -> float:
    return float(np.sum(part.estimator_weights_))


@register_converter("AdaBoostRegressor")
def draw_regressor(part: Any, rows: Rows, method: str) -> Any:
    """Draw the weighted median: the first of the sorted predictions where half of the weight is reached."""
    if method != "predict":
        return NotImplemented
    drawing = rows.drawing
    members = part.estimators_
    if all(type(member).__name__ in _TREES["regressor"] for member in members):
        values = [member.tree_.value[:, 0, 0] for member in members]
        found = draw_leaf_values(drawing, make_table([member.tree_ for member in members], values), rows.draw_matrix())
    else:
        columns = [reshape_to_column(drawing, draw_numeric_answer(member, rows, "predict")) for member in members]
        found = drawing.draw_node("Concat", *columns, axis=1)
    count = drawing.add_constant(np.array([len(members)], dtype=np.int64))
    ordered, places = drawing.draw_node_with_outputs("TopK", found, count, outputs=2, axis=1, largest=0, sorted=1)
    weights = drawing.add_constant(np.asarray(part.estimator_weights_[: len(members)], dtype=np.float64))
    reached = drawing.draw_node(
        "CumSum", drawing.draw_node("Gather", weights, places), drawing.add_constant(np.array(1))
    )
    last = drawing.draw_node("Gather", reached, drawing.add_constant(np.array([len(members) - 1])), axis=1)
    is_half = drawing.draw_node("GreaterOrEqual", reached, drawing.draw_node("Mul", last, drawing.add_constant(0.5)))
    middle = drawing.draw_node("ArgMax", drawing.draw_node("Cast", is_half, to=TensorProto.INT32), axis=1, keepdims=1)
    return flatten_column(drawing, drawing.draw_node("GatherElements", ordered, middle, axis=1))
