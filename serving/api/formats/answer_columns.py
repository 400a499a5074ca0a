"""The columns of an answer and what they are called, for forms that have names."""

from __future__ import annotations

import numpy as np

from serving.domain.errors import NotAcceptable
from serving.domain.signature import Label, Signature
from serving.plane.prediction import Answer
from serving.rows.batch import Tensor

_BY_CLASS = frozenset({"predict_proba", "predict_log_proba", "decision_function"})


def columns_of(answer: Answer, signature: Signature) -> list[tuple[str, Tensor]]:
    """Return names and columns, each with one value per row: arrays of shape (rows,), or lists.

    A single column has the name of the method. Several columns have the labels of the classes if the method gives one
    value for each class, else the name of the method with a number. With several outputs, the output's number comes
    first. Raises NotAcceptable for values that are arrays themselves.
    """
    tensors = answer.prediction.tensors
    classes = signature.classes or ()
    found: list[tuple[str, Tensor]] = []
    for output, tensor in enumerate(tensors):
        columns = _columns(tensor, answer.method)
        labels = classes[output] if answer.method in _BY_CLASS and output < len(classes) else ()
        names = _names(answer.method, labels, len(columns))
        if len(tensors) > 1:
            names = [f"{output}.{name}" for name in names]
        found += zip(names, columns, strict=True)
    return found


def _columns(tensor: Tensor, method: str) -> list[Tensor]:
    if isinstance(tensor, np.ndarray):
        if tensor.ndim > 2:
            raise _nested(method)
        return [tensor] if tensor.ndim == 1 else list(tensor.T)
    kinds = set(map(type, tensor))
    if dict in kinds:
        raise _nested(method)
    if list not in kinds:
        return [tensor]
    is_even = all(type(row) is list and len(row) == len(tensor[0]) for row in tensor)
    if not is_even or any(type(cell) in (list, dict) for row in tensor for cell in row):
        raise _nested(method)
    return [list(column) for column in zip(*tensor, strict=True)]


def _names(method: str, labels: tuple[Label, ...], count: int) -> list[str]:
    if count == 1:
        return [method]
    if len(labels) == count:
        return [_shown(label) for label in labels]
    return [f"{method}_{place}" for place in range(count)]


def _shown(label: Label) -> str:
    if isinstance(label, bool):
        return "true" if label else "false"
    return str(label)


def _nested(method: str) -> NotAcceptable:
    return NotAcceptable(
        f"{method} gives objects, arrays in arrays, or rows of different lengths, which have no place in columns: "
        "ask for application/json"
    )
