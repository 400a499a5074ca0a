"""The small functions that the checks of model files call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Check = Callable[[Any], None]

# exceptions that a check raises itself if the parts of an object have unexpected types
_UNEXPECTED = (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError)


class Unsound(Exception):  # the outcome of a check: `run_checks` returns its message
    """No library made an object with such numbers. The message says which numbers, in a few words."""


def require(holds: Any, otherwise: str) -> None:
    """Raise Unsound with the message `otherwise` unless `holds` is true."""
    if not holds:
        raise Unsound(otherwise)


def find_checks(kind: type, checks: Mapping[str, Check]) -> list[Check]:
    """Return the checks for a class and its bases, from a table with full names of classes."""
    found = (checks.get(f"{one.__module__}.{one.__qualname__}") for one in kind.__mro__)
    return [check for check in found if check is not None]


def run_checks(checks: Iterable[Check], content: Any) -> str | None:
    """Return in a few words why one of `checks` refuses `content`, None if all pass."""
    try:
        for check in checks:
            check(content)
    except Unsound as error:
        return str(error)
    except _UNEXPECTED as error:
        lines = str(error).splitlines() or [""]
        return f"its parts do not fit together ({type(error).__name__}: {lines[0][:160]})"
    return None


def get_attributes(owner: Any) -> dict[str, Any]:
    """Return the attributes of an object."""
    found: dict[str, Any] = vars(owner)
    return found


def require_integer(value: Any, name: str, low: int = 0, high: int = (1 << 31) - 1) -> int:
    """Return `value` if it is an integer from `low` to `high`; raises Unsound otherwise."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and low <= value <= high
    require(is_whole, f"{name} is no number from {low} to {high}")
    return int(value)


def require_array(value: Any, name: str, *, rank: int, kinds: str = "f") -> NDArray[Any]:
    """Return `value` if it is an array of `rank` dimensions with a dtype of `kinds`; raises Unsound otherwise."""
    is_right = isinstance(value, np.ndarray) and value.ndim == rank and value.dtype.kind in kinds
    require(is_right, f"{name} is no array of {rank} dimensions")
    return np.asarray(value)


def require_indices(value: Any, name: str, below: int, *, rank: int = 1) -> NDArray[Any]:
    """Return `value` if it is an array of integers from 0 to below `below`; raises Unsound otherwise."""
    found = require_array(value, name, rank=rank, kinds="iu")
    require(
        not found.size or (found.min() >= 0 and found.max() < below), f"{name} points to an entry that does not exist"
    )
    return found
