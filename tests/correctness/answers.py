"""What an estimator says to rows, and whether what a server said is the same."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-5  # engine.compile_tolerance


@dataclass(frozen=True, slots=True)
class Expected:
    """Answers to rows: (rows, values) of float64 or of objects. `width` is 4 for float32, else 8; `scale` is usual."""

    values: NDArray[Any]
    width: int = 8
    scale: float = 1.0

    def row(self, place: int) -> Expected:
        """Return the answer to one of the rows."""
        return Expected(self.values[place : place + 1], self.width, self.scale)


def expect(answered: Any, rows: int) -> Expected:
    """Lay out what a method returned, several outputs side by side."""
    if hasattr(answered, "toarray"):
        answered = answered.toarray()
    parts = answered if isinstance(answered, list) else [answered]
    if any(len(part) != rows for part in parts):
        raise ValueError(f"an answer to {rows} rows that has none for each row")
    arrays = [np.asarray(each).reshape(rows, -1) for each in parts]
    kinds = {each.dtype.kind for each in arrays}
    if kinds == {"f"}:
        values = np.hstack(arrays)
        is_usual = np.isfinite(values)
        scale = min(1.0, float(np.abs(values[is_usual]).max(initial=0.0)) or 1.0)
        return Expected(values.astype(np.float64), 8 if values.dtype.itemsize >= 8 else 4, scale)
    return Expected(np.hstack([each.astype(object) for each in arrays]))


def ask_itself(method: Any, rows: Any, count: int) -> Expected | Exception:
    """Ask an estimator; return its error where it refuses. What was compiled for float32 alone is asked in float32."""
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        try:
            return expect(method(rows), count)
        except Exception as error:  # noqa: BLE001  (whatever it is: that is how it refuses)
            if isinstance(rows, np.ndarray) and rows.dtype == np.float64 and "Buffer dtype mismatch" in str(error):
                return ask_itself(method, rows.astype(np.float32), count)
            return error


@dataclass(frozen=True, slots=True)
class Comparison:
    """`exact`, `close` and `wrong` rows: bit for bit, within the tolerance, and beyond it; the `first` wrong one."""

    exact: int = 0
    close: int = 0
    wrong: int = 0
    first: int = -1
    largest: float = 0.0


def compare(expected: Expected, given: list[Any], *, is_strict: bool = True) -> Comparison:
    """Compare rows as a client has read them, each a list of values; `is_strict`: integers came as integers."""
    wanted = expected.values
    if len(given) != len(wanted) or any(len(row) != wanted.shape[1] for row in given):
        return Comparison(wrong=len(wanted), first=0, largest=np.inf)
    if wanted.dtype == object:
        same = np.array(
            [
                all(_is_same(mine, its, is_strict=is_strict) for mine, its in zip(row, own, strict=True))
                for row, own in zip(given, wanted.tolist(), strict=True)
            ]
        )
        return _count(same, np.zeros(len(same), bool), np.zeros(len(same)))
    if is_strict and {type(value) for row in given for value in row} & {int, bool, str}:
        return Comparison(wrong=len(wanted), first=0, largest=np.inf)
    found = np.array(given, dtype=np.float64).reshape(wanted.shape)
    is_null = np.isnan(found)
    with np.errstate(all="ignore"):
        at_width = found.astype(np.float32).astype(np.float64) if expected.width == 4 else found
        exact = (at_width == wanted) | (is_null & ~np.isfinite(wanted))
        distance = np.abs(found - wanted) / np.maximum(np.abs(wanted), expected.scale)
    distance = np.where(exact, 0.0, np.where(np.isnan(distance), np.inf, distance))
    return _count(exact.all(axis=1), (distance <= TOLERANCE).all(axis=1), distance.max(axis=1, initial=0.0))


def _count(exact: NDArray[np.bool_], close: NDArray[np.bool_], distance: NDArray[Any]) -> Comparison:
    wrong = ~(exact | close)
    first = int(np.argmax(wrong)) if wrong.any() else -1
    return Comparison(
        int(exact.sum()), int((close & ~exact).sum()), int(wrong.sum()), first, float(distance.max(initial=0.0))
    )


def _is_same(given: Any, wanted: Any, *, is_strict: bool) -> bool:
    if isinstance(wanted, bytes):
        wanted = wanted.decode()
    if isinstance(wanted, float):
        if np.isnan(wanted):
            return given is None or (isinstance(given, float) and np.isnan(given))
        return isinstance(given, (int, float)) and float(given) == wanted
    if isinstance(wanted, np.generic):
        wanted = wanted.item()
    if type(wanted) is int and type(given) is float:  # passed on among fractions
        return given == wanted
    return bool(given == wanted) and (not is_strict or type(given) is type(wanted))
