"""Encode and decode the payloads of predictions: tensors, the rows of a request, and the answers of a model.

Buffers lie one after another, each aligned to 8 bytes; the header describes them. Decoded arrays are views into the
payload. An answer of a host is data from an enemy: `decode_answer` bounds the memory it may take before it parses it.
`encode_answer`, in the host, refuses what the server would not accept, with an error that the caller can use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, TypeGuard

import numpy as np

from serving import json_codec
from serving.domain.errors import InvalidInput, ModelFailed, ProtocolError
from serving.domain.signature import METHODS
from serving.domain.text import one_line
from serving.rows.batch import (
    MAX_DIMENSIONS,
    Batch,
    Column,
    Prediction,
    Tensor,
    bound_answer_bytes,
    why_not_an_answer,
)
from serving.wire.frames import BOUNDS, Buffer, FrameKind, count_separators, decode_object

MAX_JSON_BYTES = 16 << 20
MAX_JSON_VALUES = 1 << 20

_ALIGNMENT = 8
_LONGEST_AXIS = 1 << 40  # beyond what any memory holds
_DTYPES = frozenset(
    ["|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"],
)
_BOOL = "|b1"
_JSON = "json"


# --- tensors ----------------------------------------------------------------------------------------------------------


def encode_tensors(tensors: Iterable[Tensor | Column]) -> tuple[list[dict[str, Any]], list[Buffer]]:
    """Return descriptions of arrays and lists for a header, and buffers for a payload; arrays are not copied."""
    descriptions: list[dict[str, Any]] = []
    buffers: list[Buffer] = []
    for tensor in tensors:
        if isinstance(tensor, np.ndarray):
            array = np.ascontiguousarray(tensor)
            if array.dtype.byteorder == ">":
                array = array.astype(array.dtype.newbyteorder("<"))
            if array.dtype.str not in _DTYPES:
                raise ProtocolError(f"arrays of dtype {array.dtype} do not go over the wire")
            descriptions.append({"dtype": array.dtype.str, "shape": tensor.shape})
            buffers.append(array.reshape(-1).view(np.uint8).data if array.size else b"")
        else:
            raw = json_codec.dumps(tensor)
            descriptions.append({"dtype": _JSON, "nbytes": len(raw)})
            buffers.append(raw)
        padding = -len(buffers[-1]) % _ALIGNMENT
        if padding:
            buffers.append(bytes(padding))
    return descriptions, buffers


def decode_tensors(
    descriptions: Sequence[Any], payload: memoryview, budget: _JsonBudget | None = None
) -> tuple[Tensor, ...]:
    """Rebuild tensors as views into `payload` (lists are copies); raises ProtocolError unless it fits exactly.

    `budget` is what may be parsed; None for what comes from the server.
    """
    tensors: list[Tensor] = []
    offset = 0
    for description in descriptions:
        tensor, nbytes = _decode_tensor(description, payload, offset, budget)
        tensors.append(tensor)
        offset += nbytes + (-nbytes % _ALIGNMENT)
    if offset != len(payload):
        raise ProtocolError(f"tensors describe {offset} bytes of a payload of {len(payload)}")
    return tuple(tensors)


def _decode_tensor(
    description: Any, payload: memoryview, offset: int, budget: _JsonBudget | None
) -> tuple[Tensor, int]:
    if not isinstance(description, dict):
        raise ProtocolError("a tensor description is not an object")
    dtype = description.get("dtype")
    if dtype == _JSON:
        return _decode_list(description.get("nbytes"), payload[offset:], budget)
    shape = description.get("shape")
    if type(dtype) is not str or dtype not in _DTYPES or not _is_shape(shape):
        raise ProtocolError(f"not a tensor: dtype {dtype!r:.50}, shape {shape!r:.200}")
    count = prod(shape)
    nbytes = count * np.dtype(dtype).itemsize
    if nbytes > len(payload) - offset:
        raise ProtocolError(f"a tensor of {nbytes} bytes does not fit its payload")
    array = np.frombuffer(payload, dtype=dtype, count=count, offset=offset)
    if dtype == _BOOL and count and array.view(np.uint8).max() > 1:
        raise ProtocolError("a byte of a bool is neither 0 nor 1")
    return array.reshape(shape), nbytes


def _decode_list(nbytes: Any, payload: memoryview, budget: _JsonBudget | None) -> tuple[list[Any], int]:
    if type(nbytes) is not int or not 0 <= nbytes <= len(payload):
        raise ProtocolError("a JSON tensor does not fit its payload")
    raw = payload[:nbytes]
    if budget is not None:
        budget.charge(raw)
    try:
        value = json_codec.loads(raw)
    except json_codec.JSONDecodeError as error:
        raise ProtocolError(f"a JSON tensor is not JSON: {error}") from None
    if not isinstance(value, list):
        raise ProtocolError("a JSON tensor is not a list")
    return value, nbytes


def _is_shape(value: Any) -> TypeGuard[list[int]]:
    return (
        isinstance(value, list)
        and len(value) <= MAX_DIMENSIONS
        and all(type(length) is int and 0 <= length <= _LONGEST_AXIS for length in value)
    )


# --- predictions ------------------------------------------------------------------------------------------------------


def encode_batch(method: str, batch: Batch) -> tuple[bytes, list[Buffer]]:
    """Return header and payload buffers of a PREDICT frame."""
    columns = batch.columns if batch.matrix is None else (batch.matrix,)
    descriptions, buffers = encode_tensors(columns or ())
    header = {"method": method, "rows": batch.rows, "matrix": batch.matrix is not None, "tensors": descriptions}
    return json_codec.dumps(header), buffers


def decode_batch(header: Buffer, payload: memoryview) -> tuple[str, Batch]:
    """Return method and batch of a PREDICT frame; arrays are read-only views into `payload`."""
    fields = decode_object(header)
    method, rows, is_matrix = fields.get("method"), fields.get("rows"), fields.get("matrix")
    tensors = fields.get("tensors")
    if method not in METHODS or type(rows) is not int or type(is_matrix) is not bool or not isinstance(tensors, list):
        raise ProtocolError("not the header of a prediction")
    decoded = decode_tensors(tensors, payload)
    if any(len(tensor) != rows for tensor in decoded):
        raise ProtocolError(f"a column does not have {rows} rows")
    if not is_matrix:
        return method, Batch(rows, columns=decoded)
    if len(decoded) != 1 or not isinstance(decoded[0], np.ndarray) or decoded[0].ndim != 2:
        raise ProtocolError("a matrix is one tensor of two dimensions")
    return method, Batch(rows, matrix=decoded[0])


# --- answers ----------------------------------------------------------------------------------------------------------


def encode_answer(prediction: Prediction, rows: int) -> tuple[bytes, list[Buffer]]:
    """Return header and payload buffers of a PREDICTION frame for a request of `rows` rows.

    Where the server would not accept the answer, raises the error for the caller: InvalidInput when fewer rows would
    help, else ModelFailed.
    """
    wrong = why_not_an_answer(prediction.tensors, rows)
    if wrong is not None:
        raise ModelFailed(f"the model gave {wrong}")
    descriptions, buffers = encode_tensors(prediction.tensors)
    header = json_codec.dumps({"tensors": descriptions})
    try:
        _check_size(header, sum(map(len, buffers)), rows)
        budget = _JsonBudget()
        for description, buffer in zip(descriptions, _strip_padding(buffers), strict=True):
            if description["dtype"] == _JSON:
                budget.charge(buffer)
    except ProtocolError as error:
        raise InvalidInput(f"{error}: send fewer rows") if rows > 1 else ModelFailed(str(error)) from None
    return header, buffers


def decode_answer(header: Buffer, payload: memoryview, rows: int) -> Prediction:
    """Return what a PREDICTION frame holds for a request of `rows` rows; raises ProtocolError."""
    _check_size(header, len(payload), rows)
    fields = decode_object(header)
    tensors = fields.get("tensors")
    if len(fields) != 1 or not isinstance(tensors, list):
        raise ProtocolError("not the header of an answer")
    decoded = decode_tensors(tensors, payload, _JsonBudget())
    wrong = why_not_an_answer(decoded, rows)
    if wrong is not None:
        raise ProtocolError(f"the answer has {wrong}")
    return Prediction(decoded)


def encode_detail(detail: str) -> bytes:
    """Return the header of a REFUSAL or FAILURE frame."""
    return json_codec.dumps({"detail": one_line(detail)})


def decode_detail(header: Buffer) -> str:
    """Return the line that a REFUSAL or FAILURE frame holds; raises ProtocolError."""
    fields = decode_object(header)
    detail = fields.get("detail")
    if len(fields) != 1 or not isinstance(detail, str):
        raise ProtocolError("not the header of a refusal")
    return one_line(detail)


class _JsonBudget:
    """How much JSON one answer may still have. Parsed values take up to 20 times the memory of their JSON."""

    def __init__(self) -> None:
        self._bytes, self._values = MAX_JSON_BYTES, MAX_JSON_VALUES

    def charge(self, raw: Buffer) -> None:
        """Count a document before it is parsed; raises ProtocolError when the budget is used up."""
        self._bytes -= len(raw)
        self._values -= count_separators(raw, b",:[{" if b"{" in bytes(raw) else b",[{")
        if self._bytes < 0 or self._values < 0:
            raise ProtocolError(
                f"the answer has more than {MAX_JSON_BYTES >> 20} MB or {MAX_JSON_VALUES} values that are no array"
            )


def _check_size(header: Buffer, payload_bytes: int, rows: int) -> None:
    most_bytes = bound_answer_bytes(rows)
    if payload_bytes > most_bytes or len(header) > BOUNDS[FrameKind.PREDICTION].header_bytes:
        raise ProtocolError(
            f"the answer takes {payload_bytes >> 20} MB, at most {most_bytes >> 20} MB can be given for {rows} rows"
        )


def _strip_padding(buffers: Iterable[Buffer]) -> Iterable[Buffer]:
    """Yield the buffers of tensors without the padding that `encode_tensors` puts between them."""
    them = iter(buffers)
    for buffer in them:
        yield buffer
        if len(buffer) % _ALIGNMENT:
            next(them)
