"""Integers that float64 cannot hold are kept as integers or refused by name; they are never rounded.

Numbers travel as float64, in which every integer up to 2**53 is itself. Of larger ones only some are. A column that has
another one travels as int64 or uint64: whole, or it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXACT = 2.0**53 - 1  # up to here; 2**53 may be what 2**53 + 1 was rounded to

_INT64, _UINT64 = range(-(1 << 63), 1 << 63), range(1 << 64)


def is_rounded(cell: Any) -> bool:
    """Say whether a value is an integer that becomes another number in float64."""
    if type(cell) is not int or -EXACT <= cell <= EXACT:
        return False
    try:
        return int(float(cell)) != cell
    except OverflowError:
        return True


def any_rounded(cells: Iterable[Any]) -> bool:
    """Say whether one of the values is an integer that becomes another number in float64."""
    return any(map(is_rounded, cells))


def has_rounded(numbers: NDArray[Any]) -> bool:
    """Say whether an array has an integer that becomes another number in float64; at once for other dtypes."""
    return _is_wide(numbers) and bool(rounded_places(numbers).any())


def rounded_places(integers: NDArray[Any]) -> NDArray[np.bool_]:
    """Say of each of an array's integers whether it becomes another number in float64. Shape as given."""
    found = np.zeros(integers.shape, dtype=np.bool_)
    if not _is_wide(integers):
        return found
    large = integers > int(EXACT)
    if integers.dtype.kind == "i":
        large |= integers < -int(EXACT)
    if large.any():
        found[large] = [is_rounded(value) for value in integers[large].tolist()]
    return found


def integer_column(cells: Sequence[Any]) -> NDArray[np.int64] | NDArray[np.uint64] | None:
    """Return integers as int64, or as uint64 where one needs that; None when a value is none or they fit neither."""
    if set(map(type, cells)) != {int}:
        return None
    low, high = min(cells), max(cells)
    if low in _INT64 and high in _INT64:
        return np.array(cells, dtype=np.int64)
    return np.array(cells, dtype=np.uint64) if low in _UINT64 and high in _UINT64 else None


def joined_columns(parts: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
    """Return parts of one column, of floats, integers or bools, as one array; None where that would round an integer.

    Where there is an integer that float64 would round, floats that are whole join it as integers.
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
    return integer_column(cells)


def _is_wide(numbers: NDArray[Any]) -> bool:
    return numbers.dtype.kind in "iu" and numbers.dtype.itemsize >= np.dtype(np.int64).itemsize
