"""Reads the constant tensors of a graph, and checks that their content fits their type and shape."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.domain.errors import GraphRefused

# for each element type, its dtype in NumPy and the field that holds the content if `raw_data` does not
_FORMS: dict[int, tuple[Any, str]] = {
    TensorProto.FLOAT: (np.dtype("<f4"), "float_data"),
    TensorProto.DOUBLE: (np.dtype("<f8"), "double_data"),
    TensorProto.INT8: (np.dtype("i1"), "int32_data"),
    TensorProto.UINT8: (np.dtype("u1"), "int32_data"),
    TensorProto.INT32: (np.dtype("<i4"), "int32_data"),
    TensorProto.INT64: (np.dtype("<i8"), "int64_data"),
    TensorProto.BOOL: (np.dtype("?"), "int32_data"),
    TensorProto.STRING: (np.dtype(object), "string_data"),
}
_DATA = ("float_data", "double_data", "int32_data", "int64_data", "string_data", "uint64_data", "raw_data")
_MOST_AXES = 8


def read_tensor(tensor: Any) -> NDArray[Any]:
    """Return the content of a TensorProto, without a copy if it is raw; texts are bytes.

    Raises GraphRefused if the content is in another file, of an unknown type, or does not fit the shape.
    """
    if tensor.data_type not in _FORMS:
        raise GraphRefused(f"a constant has the element type {tensor.data_type}, which is not known")
    if tensor.external_data or tensor.data_location != TensorProto.DEFAULT or tensor.HasField("segment"):
        raise GraphRefused("a constant is kept in another file")
    shape = tuple(tensor.dims)
    if len(shape) > _MOST_AXES or any(length < 0 for length in shape):
        raise GraphRefused(f"a constant has the shape {shape[:_MOST_AXES]}")
    dtype, own_field = _FORMS[tensor.data_type]
    used = [name for name in _DATA if len(getattr(tensor, name))]
    if len(used) > 1 or (used and used[0] not in ("raw_data", own_field)):
        raise GraphRefused(f"a constant keeps its content in {' and '.join(used)}")
    if used == ["raw_data"]:
        if dtype.kind == "O" or len(tensor.raw_data) != prod(shape) * dtype.itemsize:
            raise GraphRefused("a constant is not as long as its shape says")
        return np.frombuffer(tensor.raw_data, dtype).reshape(shape)
    values = getattr(tensor, own_field)
    if len(values) != prod(shape):
        raise GraphRefused("a constant is not as long as its shape says")
    made = np.empty(len(values), dtype)
    made[:] = values
    return made.reshape(shape)
