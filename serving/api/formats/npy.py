"""NumPy arrays in the format of files (``numpy.lib.format``): a header in Python's notation, then the values.

This module reads the header, and not numpy: a client may write anything into it, and only a few headers are allowed.
Only dtypes of numbers, bools, text and dates are made, so nothing is ever unpickled. Nothing is allocated: arrays are
views of the body.
"""

from __future__ import annotations

import ast
import math
import re
import sys
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.api.formats.iso_8601 import to_iso_texts
from serving.domain.errors import InvalidInput, Malformed, NotAcceptable
from serving.domain.signature import Signature
from serving.plane.prediction import Answer
from serving.rows.row_problems import describe_wrong_width
from serving.rows.tables import Table

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 32 << 10
MAX_TEXT_BYTES = 64 << 20
FEW_COLUMNS = 1000  # of text and dates beyond the right number: so few are looked at
TAKEN = "whole numbers and floats of up to 8 bytes, bools, text (U), dates, or a structure of these with names"

_UNIT = r"\[\d{0,3}(?:W|D|h|m|s|ms|us|ns)\]"
_SCALAR = re.compile(rf"[<>|=]?(?:b1|[iu][1248]|f[248]|U[1-9]\d{{0,8}}|[mM]8{_UNIT}|M8\[[YM]\])|\?")
_PADDING = re.compile(r"\|V\d{1,4}")
_KEYS = {"descr", "fortran_order", "shape"}
_ALIGNMENT = 64


class _Layout(NamedTuple):
    """The content of a header; `start` is where the values begin."""

    dtype: np.dtype[Any]
    is_fortran: bool
    shape: tuple[int, ...]
    start: int


def read(raw: bytes, signature: Signature) -> Table:
    """Return the rows of a ``.npy`` body, numbers as a view of it.

    Shape (rows, features), C or Fortran order, any byte order. One dimension is one row, or for a model of one feature
    one column. A structured dtype has named columns, in one dimension. Raises Malformed, also for a body that is longer
    or shorter than its header says; InvalidInput for dtypes that no model takes.
    """
    layout = _layout_of(raw)
    array = np.frombuffer(raw, layout.dtype, math.prod(layout.shape), layout.start)
    names = layout.dtype.names
    if names is not None:
        if len(layout.shape) > 1:
            raise InvalidInput(f"a structured array has one dimension, this one has {len(layout.shape)}")
        return Table(len(array), columns=tuple(_values(array[name]) for name in names), names=names)
    if not layout.shape or len(layout.shape) > 2:
        raise InvalidInput(f"an array of {len(layout.shape)} dimensions is no rows; send (rows, features)")
    if len(layout.shape) == 1:
        matrix = array.reshape((-1, 1) if len(signature.features) == 1 else (1, -1))
    else:
        matrix = array.reshape(layout.shape, order="F" if layout.is_fortran else "C")
    if matrix.dtype.kind in "UmM":
        if matrix.shape[1] > len(signature.features) + FEW_COLUMNS:  # before each cell is made a text
            raise InvalidInput(describe_wrong_width(signature, 0, matrix.shape[1]))
        return Table(len(matrix), columns=tuple(_values(column) for column in matrix.T))
    return Table(len(matrix), matrix=matrix)


def write(answer: Answer, _: Signature) -> bytes:
    """Return the array as a ``.npy`` body, version 1.0: shape (rows,), (rows, values), or (rows, outputs, values).

    Labels that are text have the dtype ``U``, as wide as the longest. Raises NotAcceptable for values without a dtype.
    """
    array = _array_of(answer)
    array = array if array.flags.c_contiguous else np.ascontiguousarray(array)
    shape = f"({array.shape[0]},)" if array.ndim == 1 else str(array.shape)
    header = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head = MAGIC + b"\x01\x00"
    length = -(-(len(head) + 2 + len(header) + 1) // _ALIGNMENT) * _ALIGNMENT - len(head) - 2
    return b"".join((head, length.to_bytes(2, "little"), header.ljust(length - 1), b"\n", array.data))


# --- reading ----------------------------------------------------------------------------------------------------------


def _layout_of(raw: bytes) -> _Layout:
    if raw[:6] != MAGIC or len(raw) < 10:
        raise Malformed("the body is not a .npy file: it does not begin with \\x93NUMPY")
    width = 2 if raw[6] == 1 else 4
    if raw[6] not in (1, 2, 3):
        raise Malformed(f"version {raw[6]}.{raw[7]} of .npy is not known here; numpy.save writes 1.0 to 3.0")
    start = 8 + width + int.from_bytes(raw[8 : 8 + width], "little")
    if start > len(raw):
        raise Malformed("the body ends before its .npy header does")
    if start > MAX_HEADER_BYTES:
        raise Malformed(f"the .npy header has more than {MAX_HEADER_BYTES} bytes")
    dtype, is_fortran, shape = _parsed(raw[8 + width : start])
    expected, found = math.prod(shape) * dtype.itemsize, len(raw) - start
    if expected != found:
        raise Malformed(f"an array of shape {shape} and dtype {dtype.str} has {expected} bytes, the body has {found}")
    return _Layout(dtype, is_fortran, shape, start)


@lru_cache(maxsize=256)
def _parsed(header: bytes) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    """Read a header. It is cached: clients send the same few, and to read one takes as long as a small prediction."""
    try:
        if b"\\" in header:
            raise ValueError
        found = ast.literal_eval(header.decode().strip())
        descr, is_fortran, shape = found["descr"], found["fortran_order"], found["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise Malformed("the .npy header is not one numpy.save writes") from None
    is_sound = found.keys() == _KEYS and type(is_fortran) is bool and type(shape) is tuple
    if not is_sound or not all(type(length) is int and 0 <= length < 1 << 40 for length in shape) or len(shape) > 8:
        raise Malformed("the .npy header is not one numpy.save writes")
    return _dtype_of(descr), is_fortran, shape


def _dtype_of(descr: Any) -> np.dtype[Any]:
    if isinstance(descr, str) and _SCALAR.fullmatch(descr):
        return np.dtype(descr)
    if not isinstance(descr, list):
        raise InvalidInput(f"values of dtype {str(descr)[:40]!r} are not taken; send {TAKEN}")
    names: list[str] = []
    formats: list[str] = []
    offsets: list[int] = []
    size = 0
    for field in descr:
        name, scalar = field if isinstance(field, tuple) and len(field) == 2 else ("", None)
        if name == "" and isinstance(scalar, str) and _PADDING.fullmatch(scalar):
            size += int(scalar[2:])  # what numpy writes between aligned fields
            continue
        if not (isinstance(name, str) and name and isinstance(scalar, str) and _SCALAR.fullmatch(scalar)):
            raise InvalidInput(f"a field {str(field)[:60]} is not taken; send {TAKEN}")
        names.append(name)
        formats.append(scalar)
        offsets.append(size)
        size += np.dtype(scalar).itemsize
    if not names or len(set(names)) != len(names):
        raise InvalidInput("a structured dtype needs fields, and each name once")
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


def _values(column: NDArray[Any]) -> NDArray[Any] | list[Any]:
    """Return a column in the form of a table: text, dates and durations as a list of text."""
    if column.dtype.kind in "mM":
        return to_iso_texts(column)
    if column.dtype.kind != "U":
        return column
    whole = np.ascontiguousarray(column)
    codes = whole.view(np.dtype(np.uint32).newbyteorder(whole.dtype.byteorder))
    if codes.size and codes.max() > sys.maxunicode:  # numpy itself would raise SystemError
        raise Malformed("the text in the array is not Unicode")
    return list(whole.tolist())


# --- writing ----------------------------------------------------------------------------------------------------------


def _array_of(answer: Answer) -> NDArray[Any]:
    tensors = [
        tensor if isinstance(tensor, np.ndarray) else _texts(tensor, answer.method)
        for tensor in answer.prediction.tensors
    ]
    if len({tensor.shape for tensor in tensors}) > 1:
        raise NotAcceptable(f"{answer.method} gives arrays of different shapes here: ask for application/json")
    array = tensors[0] if len(tensors) == 1 else np.stack(tensors, axis=1)
    if array.dtype.kind not in "biufU":
        raise NotAcceptable(f"{answer.method} gives no numbers here: ask for application/json")
    return array


def _texts(values: list[Any], method: str) -> NDArray[Any]:
    """Return labels as an array of text; every one takes as much memory as the longest."""
    is_flat = list not in set(map(type, values))
    is_even = is_flat or all(type(row) is list and len(row) == len(values[0]) for row in values)
    cells = values if is_flat or not is_even else [cell for row in values for cell in row]
    if any(type(cell) is not str for cell in cells):
        raise NotAcceptable(f"{method} gives values of several kinds here: ask for application/json or text/csv")
    longest = max(map(len, cells), default=1)
    if 4 * longest * len(cells) > MAX_TEXT_BYTES:
        raise NotAcceptable(
            f"{len(cells)} labels of up to {longest} characters have more than {MAX_TEXT_BYTES} bytes as an array: "
            "ask for application/json or text/csv"
        )
    array: NDArray[Any] = np.array(values, dtype=f"<U{max(1, longest)}")
    return array
