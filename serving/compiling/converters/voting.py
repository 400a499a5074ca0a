"""Voting: the mean of several estimators, or the label that most of them give; and all their answers, as columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.composition import draw_total
from serving.compiling.converters.converter_registry import (
    draw_answer,
    draw_numeric_answer,
    register_converter,
    register_transform,
)
from serving.compiling.converters.labels import draw_label_by_largest, reshape_to_column
from serving.compiling.drawing import Drawing, NotCompilable


@register_converter("VotingRegressor")
def draw_voting_regressor(part: Any, rows: Rows, method: str) -> Any:
    """Draw the weighted mean of the predictions."""
    if method != "predict":
        return NotImplemented
    drawing = rows.drawing
    return draw_weighted_mean(
        drawing, [draw_numeric_answer(each, rows, "predict") for each in part.estimators_], part._weights_not_none
    )


@register_converter("VotingClassifier")
def draw_voting_classifier(part: Any, rows: Rows, method: str) -> Any:
    """Draw the mean of the probabilities, or the votes: of equal ones, the first class wins."""
    drawing = rows.drawing
    weights = part._weights_not_none
    if part.voting == "soft" and method in ("predict", "predict_proba"):
        shares = [draw_answer(each, rows, "predict_proba") for each in part.estimators_]
        mean = draw_weighted_mean(drawing, shares, weights)
        return mean if method == "predict_proba" else draw_label_by_largest(drawing, part.classes_, mean)
    if part.voting != "hard" or method != "predict":
        return NotImplemented
    places = drawing.add_constant(np.arange(len(part.classes_)))
    votes = []
    for place, each in enumerate(part.estimators_):
        label = drawing.draw_node("Cast", draw_answer(each, rows, "predict"), to=TensorProto.INT64)
        vote = drawing.draw_node(
            "Cast", drawing.draw_node("Equal", reshape_to_column(drawing, label), places), to=TensorProto.DOUBLE
        )
        votes.append(
            vote if weights is None else drawing.draw_node("Mul", vote, drawing.add_constant(float(weights[place])))
        )
    return draw_label_by_largest(drawing, part.classes_, draw_total(drawing, votes))


def draw_weighted_mean(drawing: Drawing, tensors: list[str], weights: Any) -> str:
    """Return the weighted mean of tensors, as numpy's average: sum, then one division."""
    if weights is None:
        return drawing.draw_node("Div", draw_total(drawing, tensors), drawing.add_constant(float(len(tensors))))
    parts = [
        drawing.draw_node("Mul", tensor, drawing.add_constant(float(weight)))
        for tensor, weight in zip(tensors, weights, strict=True)
    ]
    return drawing.draw_node("Div", draw_total(drawing, parts), drawing.add_constant(float(np.sum(weights))))


@register_transform("VotingClassifier", "VotingRegressor")
def draw_member_answers(part: Any, rows: Rows) -> Rows:
    """Draw the answers of all estimators side by side: values, positions of labels, or probabilities."""
    drawing = rows.drawing
    is_soft = getattr(part, "voting", None) == "soft"
    if is_soft and not part.flatten_transform:
        raise NotCompilable("VotingClassifier with flatten_transform=False has no compiled form")
    if is_soft:
        answers = [draw_answer(each, rows, "predict_proba") for each in part.estimators_]
    else:
        answers = [reshape_to_column(drawing, draw_numeric_answer(each, rows, "predict")) for each in part.estimators_]
    width = len(answers) * (len(part.classes_) if is_soft else 1)
    return rows.with_matrix(drawing.draw_node("Concat", *answers, axis=1), width)
