"""Multi-layer perceptrons: products, additions and activations, as ``_forward_pass_fast`` of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import register_converter
from serving.compiling.converters.labels import (
    draw_both_probabilities,
    draw_label_by_largest,
    draw_label_by_truth,
    draw_logistic,
    flatten_column,
)
from serving.compiling.drawing import Drawing, NotCompilable


@register_converter("MLPRegressor")
def draw_regressor(part: Any, rows: Rows, method: str) -> Any:
    """Draw the last layer; a single output is flat."""
    if method != "predict":
        return NotImplemented
    made = _draw_layers(part, rows)
    return flatten_column(rows.drawing, made) if part.n_outputs_ == 1 else made


@register_converter("MLPClassifier")
def draw_classifier(part: Any, rows: Rows, method: str) -> Any:
    """Draw the last layer as probabilities, or the label: where they are above one half, or the largest."""
    if method not in ("predict", "predict_proba"):
        return NotImplemented
    drawing = rows.drawing
    shares = _draw_layers(part, rows)
    kind = part._label_binarizer.y_type_
    half = drawing.add_constant(0.5)
    if kind == "multilabel-indicator":
        is_on = drawing.draw_node("Greater", shares, half)
        return shares if method == "predict_proba" else drawing.draw_node("Cast", is_on, to=TensorProto.INT64)
    if part.n_outputs_ > 1:
        return shares if method == "predict_proba" else draw_label_by_largest(drawing, part.classes_, shares)
    if method == "predict_proba":
        return draw_both_probabilities(drawing, shares)
    return draw_label_by_truth(
        drawing, part.classes_, drawing.draw_node("Greater", flatten_column(drawing, shares), half)
    )


def _draw_layers(part: Any, rows: Rows) -> str:
    return str(rows.drawing.compute_once(("raw", id(part), rows.blocks), lambda: _draw_forward(part, rows)))


def _draw_forward(part: Any, rows: Rows) -> str:
    drawing = rows.drawing
    made = rows.draw_matrix()
    last = len(part.coefs_) - 1
    for place, (weights, bias) in enumerate(zip(part.coefs_, part.intercepts_, strict=True)):
        made = drawing.draw_node("MatMul", made, drawing.add_constant(np.asarray(weights, dtype=np.float64)))
        made = drawing.draw_node("Add", made, drawing.add_constant(np.asarray(bias, dtype=np.float64)))
        made = _draw_activation(drawing, made, part.out_activation_ if place == last else part.activation)
    return made


def _draw_activation(drawing: Drawing, made: str, activation: str) -> str:
    if activation == "identity":
        return made
    if activation == "logistic":
        return draw_logistic(drawing, made)
    if activation == "softmax":
        return drawing.draw_node("Softmax", made, axis=1)
    kinds = {"tanh": "Tanh", "relu": "Relu", "exp": "Exp"}
    if activation not in kinds:
        raise NotCompilable(f"a perceptron with the activation {activation!s:.40} has no compiled form")
    return drawing.draw_node(kinds[activation], made)
