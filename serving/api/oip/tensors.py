"""Tensors of the Open Inference Protocol: a datatype, a shape, and values in row-major order. No JSON, no HTTP.

The same values have three forms: a flat or nested list in JSON; a flat list in gRPC's typed fields; and a blob,
little-endian, in which each element of BYTES has its length in four bytes before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from struct import pack, unpack_from
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.domain.errors import InvalidInput
from serving.rows.integers import is_rounded
from serving.rows.row_problems import describe_value

BYTES = "BYTES"
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
MAX_DIMENSIONS = 2

_LENGTH_BYTES = 4
_FLOATS: frozenset[type] = frozenset({float, int, NoneType})
_TEXTS: frozenset[type] = frozenset({str, NoneType})
_TAKEN: dict[str, frozenset[type]] = {"b": frozenset({bool}), "u": frozenset({int}), "i": frozenset({int})}
_EXPECTED = {"b": "true and false", "u": "integers without a sign", "i": "integers", "f": "numbers"}


class ReceivedTensor(NamedTuple):
    """One named tensor. `values` has one dimension: an array, or for BYTES a list of texts (None: a missing one)."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | list[str | None]


def shape_of(name: str, shape: Sequence[Any]) -> tuple[int, ...]:
    """Return the shape of an input: ``[rows]`` or ``[rows, columns]``; raises InvalidInput."""
    sizes = tuple(shape)
    if not 1 <= len(sizes) <= MAX_DIMENSIONS or any(type(size) is not int or size < 0 for size in sizes):
        what = str(list(sizes[: MAX_DIMENSIONS + 1]))[:60]
        raise InvalidInput(f"input {describe_value(name)}: the shape is {what}; expected [rows, columns] or [rows]")
    return sizes


def from_values(
    name: str, datatype: str, shape: tuple[int, ...], values: list[Any], *, before: int = 0
) -> ReceivedTensor:
    """Make a tensor of a list, flat or nested like the shape. Raises InvalidInput; computes only, any thread.

    No value is converted to another kind: integers are not bools, texts are not numbers. Numbers beyond an integer's
    range, and integers that FP64 would round, are refused. `before` counts the values before these, for errors. None
    is a missing value if the datatype has one: NaN for FP16 to FP64, None for BYTES. Numbers of FP16 and FP32 are
    rounded to that precision, as they are in a blob.
    """
    flat = _flat(name, shape, values)
    types = set(map(type, flat))
    if datatype == BYTES:
        if not types <= _TEXTS:
            raise _wrong_kind(name, datatype, "texts", flat, _TEXTS, before)
        return ReceivedTensor(name, datatype, shape, flat)
    dtype = dtype_of(name, datatype)
    taken = _TAKEN.get(dtype.kind, _FLOATS)
    if not types <= taken:
        raise _wrong_kind(name, datatype, _EXPECTED[dtype.kind], flat, taken, before)
    try:
        if dtype.kind != "f":
            return ReceivedTensor(name, datatype, shape, np.array(flat, dtype))
        if datatype == "FP64" and (large := next(filter(is_rounded, flat), None)) is not None:
            raise InvalidInput(
                f"input {describe_value(name)}: FP64 would round {describe_value(large)}; send INT64 or UINT64"
            )
        return from_numbers(name, datatype, shape, np.array(flat, np.float64))
    except OverflowError:
        raise InvalidInput(f"input {describe_value(name)}: a number is beyond the range of {datatype}") from None


def from_numbers(name: str, datatype: str, shape: tuple[int, ...], numbers: NDArray[np.float64]) -> ReceivedTensor:
    """Make a tensor of FP16, FP32 or FP64 from numbers, shape (values,), which must be as many as its shape says."""
    dtype = DTYPES[datatype]
    return ReceivedTensor(
        name, datatype, shape, numbers if dtype.itemsize == numbers.itemsize else _narrowed(numbers, dtype)
    )


def from_blob(name: str, datatype: str, shape: tuple[int, ...], blob: bytes | memoryview) -> ReceivedTensor:
    """Make a tensor of a blob; an array is a view of it where its alignment allows. Raises InvalidInput; any thread.

    A blob with many texts takes a while.
    """
    count = math.prod(shape)
    if datatype == BYTES:
        return ReceivedTensor(name, datatype, shape, _texts(name, count, blob))
    dtype = dtype_of(name, datatype)
    if len(blob) != count * dtype.itemsize:
        needed = f"{count * dtype.itemsize} for shape {list(shape)} of {datatype}"
        raise InvalidInput(f"input {describe_value(name)}: {len(blob)} bytes of data, expected {needed}")
    if dtype.kind == "b" and blob and max(blob) > 1:
        raise InvalidInput(f"input {describe_value(name)}: a byte of BOOL is neither 0 nor 1")
    array = np.frombuffer(blob, dtype)
    return ReceivedTensor(name, datatype, shape, array if array.flags.aligned else array.copy())


def from_texts(name: str, shape: tuple[int, ...], texts: Sequence[bytes]) -> ReceivedTensor:
    """Make a tensor of BYTES of its elements; raises InvalidInput for too few, too many, and what is not UTF-8."""
    if len(texts) != math.prod(shape):
        raise wrong_count(name, shape, len(texts))
    return ReceivedTensor(name, BYTES, shape, [_text(name, text) for text in texts])


def to_blob(tensor: ReceivedTensor) -> bytes:
    """Return the values of a tensor as a blob. NaN and infinity, which JSON cannot have, are sent as they are."""
    values = tensor.values
    if isinstance(values, np.ndarray):
        return values.astype(DTYPES[tensor.datatype], copy=False).tobytes()
    encoded = [(text or "").encode("utf-8", "backslashreplace") for text in values]
    return b"".join(chain.from_iterable((pack("<I", len(text)), text) for text in encoded))


def wrong_count(name: str, shape: tuple[int, ...], count: int) -> InvalidInput:
    """Return the error for an input with this wrong number of values."""
    return InvalidInput(
        f"input {describe_value(name)}: {count} values, expected {math.prod(shape)} for shape {list(shape)}"
    )


def wrong_nesting(name: str, shape: tuple[int, ...]) -> InvalidInput:
    """Return the error for an input whose data is nested in another way than its shape says."""
    arrays = " arrays of ".join(map(str, shape))
    return InvalidInput(f"input {describe_value(name)}: the nested data are not {arrays}, as the shape says")


def check_shape(name: str, datatype: str, shape: tuple[int, ...], found: tuple[int, ...]) -> None:
    """Raise InvalidInput unless the shape `found` of numbers, flat or nested, fits an input's shape."""
    if len(found) > 1 and len(shape) == MAX_DIMENSIONS:
        if found != shape:
            raise wrong_nesting(name, shape)
    elif found[0] != math.prod(shape):
        raise wrong_count(name, shape, found[0])
    elif len(found) > 1:
        raise _wrong_kind(name, datatype, _EXPECTED["f"], [[]], _FLOATS, 0)


def joined(parts: list[NDArray[Any] | list[str | None]]) -> NDArray[Any] | list[str | None]:
    """Return the values of several tensors of one datatype as those of one."""
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts):
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return [value for part in parts for value in part]


def dtype_of(name: str, datatype: str) -> np.dtype[Any]:
    """Return the dtype of a datatype other than BYTES; raises InvalidInput for an unknown one."""
    found = DTYPES.get(datatype)
    if found is None:
        known = ", ".join(DTYPES)
        raise InvalidInput(
            f"input {describe_value(name)}: no datatype {describe_value(datatype)}; expected one of {known}, BYTES"
        )
    return found


def _flat(name: str, shape: tuple[int, ...], values: list[Any]) -> list[Any]:
    count = math.prod(shape)
    if values and type(values[0]) is list and len(shape) == MAX_DIMENSIONS:
        rows, columns = shape
        if len(values) != rows or any(type(row) is not list or len(row) != columns for row in values):
            raise wrong_nesting(name, shape)
        return list(chain.from_iterable(values))
    if len(values) != count:
        raise wrong_count(name, shape, len(values))
    return values


def _narrowed(numbers: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # an infinity is refused later, by row and feature
        return numbers.astype(dtype)


def _texts(name: str, count: int, blob: bytes | memoryview) -> list[str | None]:
    """Read texts with their lengths before them, as many as the shape says, and no byte more."""
    found: list[str | None] = []
    end = 0
    if count * _LENGTH_BYTES > len(blob):
        raise InvalidInput(f"input {describe_value(name)}: {len(blob)} bytes cannot hold {count} elements of BYTES")
    for _ in range(count):
        start = end + _LENGTH_BYTES
        if start <= len(blob):
            end = start + unpack_from("<I", blob, end)[0]
        if start > len(blob) or end > len(blob):
            raise InvalidInput(f"input {describe_value(name)}: the data end in element {len(found)} of {count}")
        found.append(_text(name, bytes(blob[start:end])))
    if end != len(blob):
        raise InvalidInput(f"input {describe_value(name)}: {len(blob) - end} bytes follow the last of {count} elements")
    return found


def _text(name: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"input {describe_value(name)}: an element of BYTES is not UTF-8 text") from None


def _wrong_kind(
    name: str, datatype: str, expected: str, flat: list[Any], taken: frozenset[type], before: int
) -> InvalidInput:
    place = next(place for place, value in enumerate(flat) if type(value) not in taken)
    seen = f"value {before + place} of the data is {describe_value(flat[place])}"
    return InvalidInput(f"input {describe_value(name)}: {datatype} takes {expected}, and {seen}")
