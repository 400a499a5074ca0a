"""Find the rows that a model stores: centers, means, support vectors, bounds. Rows near them give tiny differences.

There an estimator and a graph may differ although they agree elsewhere, if one subtracts first and the other squares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.domain.signature import Dtype
from serving.host.input_columns import InputColumn, dtype_of, find_first_parts

MOST_PARTS, MOST_ROWS_EACH = 16, 16


def find_landmarks(estimator: Any, columns: int) -> NDArray[np.float64]:
    """Return the rows (rows, columns) that are stored in the parts of a model which get the input unchanged."""
    found = [row for part in _find_first_parts(estimator) for row in _find_stored_rows(part, columns)]
    return np.array(found, dtype=np.float64).reshape(len(found), columns)


def _find_first_parts(estimator: Any) -> Iterator[Any]:
    waiting, seen = [estimator], 0
    while waiting and seen < MOST_PARTS:
        part = waiting.pop(0)
        seen += 1
        yield part
        waiting.extend(find_first_parts(part))


def _find_stored_rows(part: Any, columns: int) -> Iterator[NDArray[np.float64]]:
    if getattr(part, "n_features_in_", columns) != columns or not hasattr(part, "__dict__"):
        return
    for value in vars(part).values():
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim not in (1, 2):
            continue
        rows = value[:, None] if columns == 1 and value.ndim == 1 else np.atleast_2d(value)
        if rows.shape[1] == columns and np.isfinite(rows).all():
            places = np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS_EACH)).astype(int)
            yield from rows[places].astype(np.float64)


def find_scale(columns: Sequence[InputColumn], landmarks: NDArray[np.float64]) -> float | None:
    """Return the largest number known of all `columns`; None when nothing is known of one of them."""
    sizes = []
    for place, column in enumerate(columns):
        known = [bound for bound in (column.low, column.high) if bound is not None] + landmarks[:, place].tolist()
        if column.values and dtype_of(column.values) is Dtype.NUMBER:
            known.extend(column.values)
        if not known:
            return None
        sizes.append(max(map(abs, known)))
    return max(sizes, default=None)
