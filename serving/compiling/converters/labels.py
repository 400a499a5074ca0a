"""Draw labels from scores and probabilities, as scikit-learn's classifiers choose them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.compiling.drawing import Drawing

_EXACT_INTEGERS = np.dtype(np.int64)


def take_labels(drawing: Drawing, classes: Any, index: str) -> str:
    """Return ``classes[index]`` for an int64 tensor of positions."""
    labels: NDArray[Any] = np.asarray(classes)
    if labels.dtype == _EXACT_INTEGERS and np.array_equal(labels, np.arange(len(labels))):
        return index
    return drawing.draw_node("Gather", drawing.add_constant(labels), index, axis=0)


def draw_label_by_largest(drawing: Drawing, classes: Any, scores: str) -> str:
    """Return the label with the largest score in each row, the first one among equals, as numpy's argmax."""
    return take_labels(drawing, classes, drawing.draw_node("ArgMax", scores, axis=1, keepdims=0))


def draw_label_by_truth(drawing: Drawing, classes: Any, is_second: str) -> str:
    """Return the second of two labels where a bool tensor (rows,) holds, else the first."""
    labels: NDArray[Any] = np.asarray(classes)
    if labels.dtype == np.bool_ and len(labels) == 2:
        return is_second
    return take_labels(drawing, labels, drawing.draw_node("Cast", is_second, to=TensorProto.INT64))


def draw_label_by_sign(drawing: Drawing, classes: Any, scores: str) -> str:
    """Return the second of two labels where a score (rows,) is above 0."""
    return draw_label_by_truth(drawing, classes, drawing.draw_node("Greater", scores, drawing.add_constant(0.0)))


def draw_logistic(drawing: Drawing, scores: str) -> str:
    """Return scipy's expit. It is accurate far below 0 too, where onnxruntime's Sigmoid computes 1 - 1."""
    grown = drawing.draw_node("Exp", drawing.draw_node("Neg", scores))
    return drawing.draw_node("Reciprocal", drawing.draw_node("Add", grown, drawing.add_constant(1.0)))


def draw_both_probabilities(drawing: Drawing, second: str) -> str:
    """Return probabilities (rows, 2) for those of the second class (rows, 1)."""
    return drawing.draw_node("Concat", drawing.draw_node("Sub", drawing.add_constant(1.0), second), second, axis=1)


def flatten_column(drawing: Drawing, column: str) -> str:
    """Return (rows, 1) as (rows,)."""
    return drawing.draw_node("Squeeze", column, drawing.add_constant(np.array([1], dtype=np.int64)))


def reshape_to_column(drawing: Drawing, values: str) -> str:
    """Return (rows,) as (rows, 1)."""
    return drawing.draw_node("Unsqueeze", values, drawing.add_constant(np.array([1], dtype=np.int64)))
