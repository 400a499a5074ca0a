"""Convert columns of plain values, as rows are made up, to batches, as models take them, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.domain.signature import Dtype, Signature
from serving.rows.batch import Batch, Column


def make_batch(cells: list[list[Any]], signature: Signature) -> Batch:
    """Return a batch for `signature` from columns of plain values; None is null."""
    rows = len(cells[0])
    if all(feature.dtype is Dtype.NUMBER for feature in signature.features):
        matrix = np.column_stack([_make_numbers(column) for column in cells])
        return Batch(rows, matrix=np.ascontiguousarray(matrix))
    columns: list[Column] = []
    for feature, column in zip(signature.features, cells, strict=True):
        if feature.dtype is Dtype.NUMBER:
            columns.append(_make_numbers(column))
        elif feature.dtype is Dtype.BOOL and None not in column:
            columns.append(np.array(column, dtype=np.bool_))
        else:
            columns.append(list(column))
    return Batch(rows, columns=tuple(columns))


def list_cells(batch: Batch) -> list[list[Any]]:
    """Return the columns of a batch as plain values."""
    columns = batch.matrix.T if batch.matrix is not None else batch.columns or ()
    return [list(cells.tolist() if isinstance(cells, np.ndarray) else cells) for cells in columns]


def _make_numbers(column: list[Any]) -> Any:
    return np.array([np.nan if cell is None else cell for cell in column], dtype=np.float64)
