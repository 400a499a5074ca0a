"""Rows on their way to a model, and answers on their way back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64] | NDArray[np.bool_] | list[Any]
Tensor = NDArray[Any] | list[Any]


class Batch(NamedTuple):
    """Validated rows in the order of the signature's features. A tuple: one is made per request, and it is cheaper.

    Exactly one of two layouts: `matrix`, C-contiguous float64 of shape (rows, features), when every feature is a
    number (NaN = missing); otherwise `columns`, one per feature: float64 (NaN = missing) for numbers, bool for bools
    without missing values, a list of str/float/bool/None for everything else.
    """

    rows: int
    matrix: NDArray[np.float64] | None = None
    columns: tuple[Column, ...] | None = None


class Prediction(NamedTuple):
    """What one method gave for one batch.

    One tensor whose first axis is the row; or, for methods that give one array per output (``predict_proba`` of a
    multi-output classifier), several. Arrays are numeric or bool; lists hold what arrays cannot (labels as text).
    """

    tensors: tuple[Tensor, ...]

    def by_row(self) -> list[Any]:
        """Return plain Python values, one entry per row; several tensors are interleaved row by row."""
        plain = [tensor.tolist() if isinstance(tensor, np.ndarray) else tensor for tensor in self.tensors]
        if len(plain) == 1:
            return list(plain[0])
        return [list(row) for row in zip(*plain, strict=True)]
