"""From scores and probabilities to labels, as scikit-learn's classifiers choose them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.compiling.drawing import Drawing

_EXACT_INTEGERS = np.dtype(np.int64)


def take(drawing: Drawing, classes: Any, index: str) -> str:
    """Return ``classes[index]`` for an int64 tensor of positions."""
    labels: NDArray[Any] = np.asarray(classes)
    if labels.dtype == _EXACT_INTEGERS and np.array_equal(labels, np.arange(len(labels))):
        return index
    return drawing.op("Gather", drawing.constant(labels), index, axis=0)


def draw_label_by_largest(drawing: Drawing, classes: Any, scores: str) -> str:
    """Return the label with the largest score in each row, the first one among equals, as numpy's argmax."""
    return take(drawing, classes, drawing.op("ArgMax", scores, axis=1, keepdims=0))


def draw_label_by_truth(drawing: Drawing, classes: Any, is_second: str) -> str:
    """Return the second of two labels where a bool tensor (rows,) holds, else the first."""
    labels: NDArray[Any] = np.asarray(classes)
    if labels.dtype == np.bool_ and len(labels) == 2:
        return is_second
    return take(drawing, labels, drawing.op("Cast", is_second, to=TensorProto.INT64))


def draw_label_by_sign(drawing: Drawing, classes: Any, scores: str) -> str:
    """Return the second of two labels where a score (rows,) is above 0."""
    return draw_label_by_truth(drawing, classes, drawing.op("Greater", scores, drawing.constant(0.0)))


def draw_logistic(drawing: Drawing, scores: str) -> str:
    """Return scipy's expit: accurate far below 0 too, where onnxruntime's Sigmoid gives 1 - 1."""
    grown = drawing.op("Exp", drawing.op("Neg", scores))
    return drawing.op("Reciprocal", drawing.op("Add", grown, drawing.constant(1.0)))


def draw_both_probabilities(drawing: Drawing, second: str) -> str:
    """Return probabilities (rows, 2) for those of the second class (rows, 1)."""
    return drawing.op("Concat", drawing.op("Sub", drawing.constant(1.0), second), second, axis=1)


def flatten(drawing: Drawing, column: str) -> str:
    """Return (rows, 1) as (rows,)."""
    return drawing.op("Squeeze", column, drawing.constant(np.array([1], dtype=np.int64)))


def reshape_to_column(drawing: Drawing, values: str) -> str:
    """Return (rows,) as (rows, 1)."""
    return drawing.op("Unsqueeze", values, drawing.constant(np.array([1], dtype=np.int64)))
