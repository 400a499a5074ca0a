"""The two values between a request and a model: a batch of rows, and the prediction for it."""

from __future__ import annotations

from itertools import chain
from types import NoneType
from typing import Any, NamedTuple, Union

import numpy as np
from numpy.typing import NDArray

Column = Union[NDArray[np.float64], NDArray[np.int64], NDArray[np.uint64], NDArray[np.bool_], list[Any]]
Tensor = Union[NDArray[Any], list[Any]]

MAX_ANSWER_BYTES = 256 << 20
MAX_ROW_BYTES = 32 << 20  # four million numbers for one row
MAX_DIMENSIONS = 8

_SCALARS = frozenset({str, int, float, bool, NoneType})


class Batch(NamedTuple):
    """Validated rows in the order of the signature's features. A tuple: each request makes one, and it is cheap.

    Exactly one of two layouts: `matrix`, C-contiguous float64 of shape (rows, features), when every feature is a
    number (NaN = missing); otherwise `columns`, one per feature: float64 (NaN = missing) for numbers, int64 or uint64
    for integers if float64 would round one of them, bool for bools without missing values, a list of
    str/int/float/bool/None for everything else. If all features are numbers, there are `columns` only when one of them
    is int64 or uint64.
    """

    rows: int
    matrix: NDArray[np.float64] | None = None
    columns: tuple[Column, ...] | None = None


class Prediction(NamedTuple):
    """The answer of one method to one batch.

    One tensor whose first axis is the row; or, for methods that give one array per output (``predict_proba`` of a
    multi-output classifier), several. Arrays are numeric or bool; lists hold what arrays cannot (labels as text,
    objects).
    """

    tensors: tuple[Tensor, ...]

    def list_rows(self) -> list[Any]:
        """Return plain Python values, one entry per row; several tensors are interleaved row by row."""
        plain = [tensor.tolist() if isinstance(tensor, np.ndarray) else tensor for tensor in self.tensors]
        if len(plain) == 1:
            return list(plain[0])
        return [list(row) for row in zip(*plain, strict=True)]


def bound_answer_bytes(rows: int) -> int:
    """Return the most bytes that the answer to `rows` rows may take."""
    return min(MAX_ANSWER_BYTES, rows * MAX_ROW_BYTES)


def why_not_an_answer(tensors: tuple[Tensor, ...], rows: int) -> str | None:
    """Say why `tensors` cannot be the answer of a method to `rows` rows; None when they can.

    Both sides check this: a host before it sends an answer, and the server for every answer it receives. The model
    decides which columns an answer has. But all code that writes answers needs the right number of rows, and numbers or
    plain values with bounded nesting.
    """
    if not tensors:
        return f"no values at all for {rows} rows"
    for tensor in tensors:
        if isinstance(tensor, np.ndarray) and not tensor.ndim:
            return f"a single value for {rows} rows"
        if len(tensor) != rows:
            return f"{len(tensor)} values for {rows} rows"
        if not isinstance(tensor, np.ndarray):
            if not _is_plain(tensor):
                return "values that are neither text, numbers, bools and null nor lists and objects of these"
        elif tensor.ndim > MAX_DIMENSIONS or (tensor.ndim != 2 and (len(tensors) > 1 or not tensor.size)):
            # an array of three dimensions without a value could have any number of empty lists in each row
            return f"an array of shape {tensor.shape} where (rows, values) was expected"
    return None


def _is_plain(values: list[Any]) -> bool:
    """Say whether all values are plain: scalars, lists and objects with text keys, nested at most `MAX_DIMENSIONS`."""
    for _ in range(MAX_DIMENSIONS):
        kinds = set(map(type, values))
        if kinds <= _SCALARS:
            return True
        if not kinds <= _SCALARS | {list, dict}:
            return False
        objects = [value for value in values if type(value) is dict] if dict in kinds else []
        if not all(type(key) is str for value in objects for key in value):
            return False
        inner = chain((value for value in values if type(value) is list), (value.values() for value in objects))
        values = list(chain.from_iterable(inner))
    return False
