"""Answers as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from serving.domain.errors import ModelFailed
from serving.plane.prediction import Answer
from serving.rows.batch import Prediction, Tensor

# 20,000 numbers take about 1 ms: see `serving.rows.conversion` for why more is done in pieces and in a thread.
INLINE_VALUES = 20_000
PIECE_VALUES = 10_000

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def is_small(answer: Answer) -> bool:
    """Say whether an answer has few values, so that its body is made on the event loop."""
    tensors = answer.prediction.tensors
    if answer.rows == 1 and len(tensors) == 1 and not answer.also:
        only = tensors[0]
        if isinstance(only, np.ndarray):  # what nearly every request gets; but one row may have millions of values
            return only.size <= INLINE_VALUES
    return answer.rows * sum(_width(prediction) for _, prediction in answer.outputs) <= INLINE_VALUES


def encode(answer: Answer) -> bytes:
    """Return the native body of an answer. Blocks, the longer the more values it has; many are encoded in pieces.

    Numbers that are not finite become null. Raises ModelFailed for values that JSON cannot hold.
    """
    prediction = answer.prediction
    try:
        if answer.is_single:
            document = {"model": answer.model, "version": answer.version, "prediction": _by_row(prediction)[0]}
            return orjson.dumps(document, _plain, _OPTIONS)
        if is_small(answer):
            document = {"model": answer.model, "version": answer.version, "predictions": _by_row(prediction)}
            return orjson.dumps(document, _plain, _OPTIONS)
        return _encode_many(answer)
    except orjson.JSONEncodeError as error:
        raise ModelFailed(f"the answer has no form in JSON: {error}") from None


def encode_under(key: str, prediction: Prediction) -> bytes:
    """Return a JSON object with one key, which has the predictions, row by row; otherwise as `encode`."""
    values, width = _by_row(prediction), _width(prediction)
    try:
        if len(values) * width <= PIECE_VALUES:
            return orjson.dumps({key: values}, _plain, _OPTIONS)
        return orjson.dumps({key: []})[:-2] + _pieces(values, width) + b"]}"
    except orjson.JSONEncodeError as error:
        raise ModelFailed(f"the answer has no form in JSON: {error}") from None


def _encode_many(answer: Answer) -> bytes:
    head = orjson.dumps({"model": answer.model, "version": answer.version})[:-1] + b',"predictions":['
    return head + _pieces(_by_row(answer.prediction), _width(answer.prediction)) + b"]}"


def _pieces(values: Tensor, width: int) -> bytes:
    """Encode rows of `width` values each, without the brackets around all rows; many rows in several runs."""
    step = max(1, PIECE_VALUES // width)
    runs = [orjson.dumps(values[start : start + step], _plain, _OPTIONS)[1:-1] for start in range(0, len(values), step)]
    return b",".join(runs)


def _by_row(prediction: Prediction) -> Tensor:
    """Return a single array as it is, because orjson reads it in place; of several, a list for each row."""
    tensors = prediction.tensors
    return tensors[0] if len(tensors) == 1 else prediction.list_rows()


def _width(prediction: Prediction) -> int:
    """Estimate how many values one row of an answer holds."""
    width = 0
    for tensor in prediction.tensors:
        if isinstance(tensor, np.ndarray):
            width += tensor.size // max(1, len(tensor))
        else:
            first = tensor[0] if tensor else None
            width += len(first) if isinstance(first, list | dict) else 1
    return max(1, width)


def _plain(value: Any) -> Any:
    """Return as a list what orjson does not take itself: an array of an unusual dtype."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"values of type {type(value).__name__}")
