"""Tensors in messages: in the typed fields of their contents, or raw, beside all of them.

Raw tensors are views of the message, not copies. `serving.api.oip.tensors` says which values they may have.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.api.grpc.inference_pb2 import InferTensorContents, ModelInferRequest, ModelInferResponse
from serving.api.oip.tensors import (
    BYTES,
    MAX_DIMENSIONS,
    ReceivedTensor,
    dtype_of,
    from_blob,
    from_texts,
    shape_of,
    to_blob,
)
from serving.domain.errors import InvalidInput, ModelFailed
from serving.rows.row_problems import describe_value

# Taking 20,000 numbers out of a message takes 1.5 ms, in one call that holds the interpreter lock.
PIECE_VALUES = 20_000
YIELD_SECONDS = 1e-5

# The field of the contents that holds a datatype, and the dtype of what is in it.
_FIELDS: dict[str, tuple[str, np.dtype[Any]]] = {
    "BOOL": ("bool_contents", np.dtype("?")),
    **{name: ("int_contents", np.dtype("<i4")) for name in ("INT8", "INT16", "INT32")},
    "INT64": ("int64_contents", np.dtype("<i8")),
    **{name: ("uint_contents", np.dtype("<u4")) for name in ("UINT8", "UINT16", "UINT32")},
    "UINT64": ("uint64_contents", np.dtype("<u8")),
    "FP32": ("fp32_contents", np.dtype("<f4")),
    "FP64": ("fp64_contents", np.dtype("<f8")),
}


def tensors_in(request: ModelInferRequest) -> list[ReceivedTensor]:
    """Return the inputs of a request; raises InvalidInput. Blocks for as long as there are many values; any thread."""
    raw = request.raw_input_contents
    if not raw:
        return [_of_contents(tensor) for tensor in request.inputs]
    if len(raw) != len(request.inputs):
        expected = f"one for each of the {len(request.inputs)} inputs, in their order"
        raise InvalidInput(f"{len(raw)} raw_input_contents; expected {expected}")
    found = []
    for tensor, blob in zip(request.inputs, raw, strict=True):
        if tensor.HasField("contents"):
            raise InvalidInput(
                f"input {describe_value(tensor.name)} has contents, and there are raw_input_contents: send one"
            )
        found.append(from_blob(tensor.name, tensor.datatype, _shape_of(tensor), blob))
    return found


def put_tensors(response: ModelInferResponse, tensors: Iterable[ReceivedTensor], *, is_raw: bool) -> None:
    """Add the outputs, raw or in typed fields. Blocks for as long as there are many values; any thread."""
    for tensor in tensors:
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if is_raw:
            response.raw_output_contents.append(to_blob(tensor))
        else:
            _fill(output.contents, tensor)


def _shape_of(tensor: ModelInferRequest.InferInputTensor) -> tuple[int, ...]:
    return shape_of(tensor.name, tensor.shape[: MAX_DIMENSIONS + 1])  # there may be millions


def _of_contents(tensor: ModelInferRequest.InferInputTensor) -> ReceivedTensor:
    name, datatype, contents = tensor.name, tensor.datatype, tensor.contents
    shape = _shape_of(tensor)
    if datatype == BYTES:
        return from_texts(name, shape, contents.bytes_contents)
    wanted = dtype_of(name, datatype)
    if datatype not in _FIELDS:
        raise InvalidInput(
            f"input {describe_value(name)}: no typed contents hold {datatype}; send it in raw_input_contents"
        )
    field, dtype = _FIELDS[datatype]
    values = getattr(contents, field)
    count = math.prod(shape)
    if len(values) != count:
        raise InvalidInput(
            f"input {describe_value(name)}: {len(values)} {field}, expected {count} for shape {list(shape)}"
        )
    array = _array_of(values, dtype)
    narrow = array.astype(wanted, copy=False)
    if wanted.itemsize < dtype.itemsize and not np.array_equal(narrow, array):
        raise InvalidInput(f"input {describe_value(name)}: a number is beyond the range of {datatype}")
    return ReceivedTensor(name, datatype, shape, narrow)


def _array_of(values: Sequence[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Take numbers out of a message in pieces, so that other threads get their turn; see `serving.rows.conversion`."""
    array = np.empty(len(values), dtype)
    for start in range(0, len(values), PIECE_VALUES):
        array[start : start + PIECE_VALUES] = values[start : start + PIECE_VALUES]
        if len(values) > PIECE_VALUES:
            time.sleep(YIELD_SECONDS)
    return array


def _fill(contents: InferTensorContents, tensor: ReceivedTensor) -> None:
    values = tensor.values
    if isinstance(values, list):
        contents.bytes_contents.extend((text or "").encode("utf-8", "backslashreplace") for text in values)
        return
    if tensor.datatype not in _FIELDS:
        raise ModelFailed(f"no typed contents hold {tensor.datatype}")
    field = getattr(contents, _FIELDS[tensor.datatype][0])
    for start in range(0, len(values), PIECE_VALUES):
        field.extend(values[start : start + PIECE_VALUES].tolist())
        if len(values) > PIECE_VALUES:
            time.sleep(YIELD_SECONDS)
