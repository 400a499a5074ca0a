"""Answers as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from serving.domain.batch import Prediction, Tensor
from serving.domain.errors import ModelFailed
from serving.prediction import Answer

# 20,000 numbers take about 1 ms: see `serving.prediction` for why more than that is done in pieces and in a thread.
INLINE_VALUES = 20_000
PIECE_VALUES = 10_000

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def is_small(answer: Answer) -> bool:
    """Say whether an answer has so few values that its body is best made on the event loop."""
    return answer.rows == 1 or answer.rows * _width(answer.prediction) <= INLINE_VALUES


def encode(answer: Answer) -> bytes:
    """Return the native body of an answer. Blocks for as long as it has values, many of them in pieces.

    Numbers that are not finite become null. Raises ModelFailed when the model gave something JSON has no form for.
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


def _encode_many(answer: Answer) -> bytes:
    head = orjson.dumps({"model": answer.model, "version": answer.version})[:-1] + b',"predictions":['
    values = _by_row(answer.prediction)
    step = max(1, PIECE_VALUES // _width(answer.prediction))
    pieces = [
        orjson.dumps(values[start : start + step], _plain, _OPTIONS)[1:-1] for start in range(0, len(values), step)
    ]
    return head + b",".join(pieces) + b"]}"


def _by_row(prediction: Prediction) -> Tensor:
    """Leave a single array to orjson, which reads it where it is."""
    tensors = prediction.tensors
    return tensors[0] if len(tensors) == 1 else prediction.by_row()


def _width(prediction: Prediction) -> int:
    """Estimate how many values one row of an answer holds."""
    width = 0
    for tensor in prediction.tensors:
        if isinstance(tensor, np.ndarray):
            width += tensor.size // max(1, len(tensor))
        else:
            first = tensor[0] if tensor else None
            width += len(first) if isinstance(first, list) else 1
    return max(1, width)


def _plain(value: Any) -> Any:
    """Give orjson what it does not take itself: arrays of an unusual dtype."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"values of type {type(value).__name__}")
