"""Compares an answer with the expected one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """The largest distance between two numbers, whether anything exceeds the tolerance, and other reasons."""

    is_beyond: bool = False
    distance: float = 0.0
    reason: str = ""


_NONE = Difference()


def compare_values(expected: Any, got: Any, rtol: float, atol: float, *, is_shape_only: bool = False) -> Difference:
    """Compare one expected answer with one given, both as plain Python values.

    Lists must have equal lengths, objects equal keys. Text, bools and integers (labels, counts) must be equal; where
    one value is a float, they may differ by ``atol + rtol * |expected|``. null stands for any number that is not
    finite, as in an answer. `is_shape_only` compares only the lengths of lists and the keys of objects.
    """
    if isinstance(expected, (list, dict)) or isinstance(got, (list, dict)):
        return _compare_lists(expected, got, rtol, atol, is_shape_only)
    if is_shape_only:
        return _NONE
    expected, got = _null_if_not_finite(expected), _null_if_not_finite(got)
    if _is_number(expected) and _is_number(got) and (isinstance(expected, float) or isinstance(got, float)):
        distance = abs(expected - got)
        return Difference(distance > atol + rtol * abs(expected), distance)
    if type(expected) is type(got) and expected == got:
        return _NONE
    distance = float(abs(expected - got)) if _is_number(expected) and _is_number(got) else 0.0
    return Difference(True, distance)


def scale_of(sizes: NDArray[Any]) -> float:
    """Return the number to which differences of small numbers are relative: the largest of `sizes`, at most 1."""
    return min(1.0, float(sizes.max(initial=0.0)) or 1.0)


def relative_distances(
    wanted: NDArray[Any], given: NDArray[Any], scale: Callable[[NDArray[Any]], Any] = scale_of
) -> NDArray[Any]:
    """Return the distances of two arrays of floats, relative to the wanted number or to a scale where that is larger.

    If any number differs, `scale` is called with the absolute values of the wanted numbers, 0 for those not finite.
    NaN equals NaN. The distance between NaN and anything else is infinite, and so is that of infinity and a number.
    """
    with np.errstate(all="ignore"):
        is_same = (wanted == given) | (np.isnan(wanted) & np.isnan(given))
        if is_same.all():
            return np.zeros(wanted.shape)
        distances = np.where(is_same, 0.0, np.abs(wanted - given))
        sizes = np.where(np.isfinite(wanted), np.abs(wanted), 0.0)
        relative = distances / np.maximum(sizes, scale(sizes))
        return np.where(np.isnan(relative), np.inf, relative)


def _compare_lists(expected: Any, got: Any, rtol: float, atol: float, is_shape_only: bool) -> Difference:
    if isinstance(expected, dict) and isinstance(got, dict):
        if expected.keys() != got.keys():
            return Difference(True, reason=f"keys {_list_values(expected)} expected, {_list_values(got)} given")
        expected, got = list(expected.values()), [got[key] for key in expected]
    if not isinstance(expected, list) or not isinstance(got, list):
        return Difference(True, reason="one is a list or an object, the other is not")
    if len(expected) != len(got):
        return Difference(True, reason=f"{len(expected)} values expected, {len(got)} given")
    if expected == got:
        return _NONE
    pairs = zip(expected, got, strict=True)
    return max(compare_values(wanted, given, rtol, atol, is_shape_only=is_shape_only) for wanted, given in pairs)


def _list_values(keys: dict[str, Any]) -> str:
    return ", ".join(sorted(keys)[:10]) or "none"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _null_if_not_finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
