"""Find integers that float64 cannot hold, and keep them as integers. They are never rounded.

Numbers are passed on as float64, which holds every integer up to 2**53, but only some larger ones. A column with an
integer that float64 would round is passed on as int64 or uint64. If it does not fit there either, it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXACT = 2.0**53 - 1  # the largest integer that is certainly exact: 2**53 may be a rounded 2**53 + 1

_INT64, _UINT64 = range(-(1 << 63), 1 << 63), range(1 << 64)


def is_rounded(cell: Any) -> bool:
    """Say whether a value is an integer that becomes another number in float64."""
    if type(cell) is not int or -EXACT <= cell <= EXACT:
        return False
    try:
        return int(float(cell)) != cell
    except OverflowError:
        return True


def has_rounded_cell(cells: Iterable[Any]) -> bool:
    """Say whether one of the values is an integer that becomes another number in float64."""
    return any(map(is_rounded, cells))


def has_rounded(numbers: NDArray[Any]) -> bool:
    """Say whether an array has an integer that becomes another number in float64; at once for other dtypes."""
    return _is_wide(numbers) and bool(find_rounded(numbers).any())


def find_rounded(integers: NDArray[Any]) -> NDArray[np.bool_]:
    """Return for each integer of an array whether it becomes another number in float64. Same shape."""
    found = np.zeros(integers.shape, dtype=np.bool_)
    if not _is_wide(integers):
        return found
    large = integers > int(EXACT)
    if integers.dtype.kind == "i":
        large |= integers < -int(EXACT)
    if large.any():
        found[large] = [is_rounded(value) for value in integers[large].tolist()]
    return found


def make_integer_column(cells: Sequence[Any]) -> NDArray[np.int64] | NDArray[np.uint64] | None:
    """Return integers as int64, or as uint64 if one needs that; None when a value is no integer or fits neither."""
    if set(map(type, cells)) != {int}:
        return None
    low, high = min(cells), max(cells)
    if low in _INT64 and high in _INT64:
        return np.array(cells, dtype=np.int64)
    return np.array(cells, dtype=np.uint64) if low in _UINT64 and high in _UINT64 else None


def join_columns(parts: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
    """Join parts of one column (floats, integers or bools) to one array; None where that would round an integer.

    If an integer would be rounded by float64, whole floats become integers too.
    """
    if len({part.dtype for part in parts}) == 1:
        return np.concatenate(parts)
    if not any(map(has_rounded, parts)):
        return np.concatenate([part.astype(np.float64) for part in parts])
    cells: list[int] = []
    for part in parts:
        if part.dtype.kind == "f" and not (np.isfinite(part) & (part == np.trunc(part))).all():
            return None
        cells += map(int, part.tolist())
    return make_integer_column(cells)


def _is_wide(numbers: NDArray[Any]) -> bool:
    return numbers.dtype.kind in "iu" and numbers.dtype.itemsize >= np.dtype(np.int64).itemsize
