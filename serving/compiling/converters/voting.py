"""Voting: the mean of several estimators, or the label most of them give; and what each of them says, as columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.composition import total
from serving.compiling.converters.labels import as_column, by_largest
from serving.compiling.converters.registry import answer, converts, numbers, transforms
from serving.compiling.drawing import Drawing, NotCompilable


@converts("VotingRegressor")
def voting_regressor(part: Any, rows: Rows, method: str) -> Any:
    """Draw the weighted mean of the predictions."""
    if method != "predict":
        return NotImplemented
    drawing = rows.drawing
    return weighted(drawing, [numbers(each, rows, "predict") for each in part.estimators_], part._weights_not_none)


@converts("VotingClassifier")
def voting_classifier(part: Any, rows: Rows, method: str) -> Any:
    """Draw the mean of the probabilities, or the votes: among equal ones the first class wins."""
    drawing = rows.drawing
    weights = part._weights_not_none
    if part.voting == "soft" and method in ("predict", "predict_proba"):
        shares = [answer(each, rows, "predict_proba") for each in part.estimators_]
        mean = weighted(drawing, shares, weights)
        return mean if method == "predict_proba" else by_largest(drawing, part.classes_, mean)
    if part.voting != "hard" or method != "predict":
        return NotImplemented
    places = drawing.constant(np.arange(len(part.classes_)))
    votes = []
    for place, each in enumerate(part.estimators_):
        label = drawing.op("Cast", answer(each, rows, "predict"), to=TensorProto.INT64)
        vote = drawing.op("Cast", drawing.op("Equal", as_column(drawing, label), places), to=TensorProto.DOUBLE)
        votes.append(vote if weights is None else drawing.op("Mul", vote, drawing.constant(float(weights[place]))))
    return by_largest(drawing, part.classes_, total(drawing, votes))


def weighted(drawing: Drawing, tensors: list[str], weights: Any) -> str:
    """Return the weighted mean of tensors, as numpy's average: sum, then one division."""
    if weights is None:
        return drawing.op("Div", total(drawing, tensors), drawing.constant(float(len(tensors))))
    parts = [
        drawing.op("Mul", tensor, drawing.constant(float(weight)))
        for tensor, weight in zip(tensors, weights, strict=True)
    ]
    return drawing.op("Div", total(drawing, parts), drawing.constant(float(np.sum(weights))))


@transforms("VotingClassifier", "VotingRegressor")
def opinions(part: Any, rows: Rows) -> Rows:
    """Draw what each estimator says, side by side: values, labels as positions, or probabilities."""
    drawing = rows.drawing
    is_soft = getattr(part, "voting", None) == "soft"
    if is_soft and not part.flatten_transform:
        raise NotCompilable("VotingClassifier with flatten_transform=False has no compiled form")
    if is_soft:
        said = [answer(each, rows, "predict_proba") for each in part.estimators_]
    else:
        said = [as_column(drawing, numbers(each, rows, "predict")) for each in part.estimators_]
    width = len(said) * (len(part.classes_) if is_soft else 1)
    return rows.with_matrix(drawing.op("Concat", *said, axis=1), width)
