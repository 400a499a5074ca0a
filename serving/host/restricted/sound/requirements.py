"""The small functions that checks of model files are written with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Check = Callable[[Any], None]

# what is raised where the parts are of other types than a check expects
_UNEXPECTED = (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError)


class Unsound(Exception):  # an outcome of a check: `problem_of` makes a sentence of it
    """The numbers of an object cannot be what a library made. The message says which, in a few words."""


def need(holds: Any, otherwise: str) -> None:
    """Raise Unsound with `otherwise` unless something holds."""
    if not holds:
        raise Unsound(otherwise)


def checks_of(kind: type, checks: Mapping[str, Check]) -> list[Check]:
    """Return the checks in a table by full names of classes that hold for a class: its own, and those of its bases."""
    found = (checks.get(f"{one.__module__}.{one.__qualname__}") for one in kind.__mro__)
    return [check for check in found if check is not None]


def outcome_of(checks: Iterable[Check], content: Any) -> str | None:
    """Return in a few words why one of `checks` does not let `content` pass, None where all do."""
    try:
        for check in checks:
            check(content)
    except Unsound as error:
        return str(error)
    except _UNEXPECTED as error:
        told = str(error).splitlines() or [""]
        return f"its parts do not fit together ({type(error).__name__}: {told[0][:160]})"
    return None


def parts_of(owner: Any) -> dict[str, Any]:
    """Return the attributes of an object."""
    found: dict[str, Any] = vars(owner)
    return found


def whole_number(value: Any, name: str, low: int = 0, high: int = (1 << 31) - 1) -> int:
    """Return `value` when it is an integer from `low` to `high`; raises Unsound."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and low <= value <= high
    need(is_whole, f"{name} is no number from {low} to {high}")
    return int(value)


def numbers(value: Any, name: str, *, rank: int, kinds: str = "f") -> NDArray[Any]:
    """Return `value` when it is an array of so many dimensions and of these kinds of dtype; raises Unsound."""
    is_right = isinstance(value, np.ndarray) and value.ndim == rank and value.dtype.kind in kinds
    need(is_right, f"{name} is no array of {rank} dimensions")
    return np.asarray(value)


def indices(value: Any, name: str, below: int, *, rank: int = 1) -> NDArray[Any]:
    """Return `value` when it is an array of integers from 0 to `below`, which is not among them; raises Unsound."""
    found = numbers(value, name, rank=rank, kinds="iu")
    need(not found.size or (found.min() >= 0 and found.max() < below), f"{name} points to what is not there")
    return found
