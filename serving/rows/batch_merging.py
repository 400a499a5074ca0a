"""Batches of several requests as one batch, and one answer as several.

Only batches of one layout are merged. Arrays of one dtype stay what they are when they are joined, and a model turns
lists of numbers, of bools and of other values into different arrays. So each of them is a layout of its own: otherwise
the rows of one request could change what the model sees of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from serving.rows.batch import Batch, Column, Prediction

MAX_MERGED_BYTES = 4 << 20

_CELL_BYTES = 8


def measure_batch(batch: Batch) -> tuple[int, tuple[Any, ...]]:
    """Return the size of a batch in bytes, roughly, and its layout: only batches of one layout can be merged."""
    if batch.matrix is not None:
        return batch.matrix.nbytes, (batch.matrix.shape[1], batch.matrix.dtype.str)
    columns = [_measure_column(column) for column in batch.columns or ()]
    return sum(nbytes for nbytes, _ in columns), tuple(kind for _, kind in columns)


def merge_batches(batches: Sequence[Batch]) -> Batch:
    """Return one batch with the rows of several of one layout, in order. Arrays are copied."""
    rows = sum(batch.rows for batch in batches)
    if batches[0].matrix is not None:
        return Batch(rows, matrix=np.concatenate([batch.matrix for batch in batches if batch.matrix is not None]))
    parts = zip(*(batch.columns or () for batch in batches), strict=True)
    return Batch(rows, columns=tuple(_merge_columns(columns) for columns in parts))


def split_prediction(prediction: Prediction, rows: Sequence[int]) -> list[Prediction]:
    """Cut one answer into answers for so many rows each, in order; arrays are views."""
    answers = []
    start = 0
    for count in rows:
        answers.append(Prediction(tuple(tensor[start : start + count] for tensor in prediction.tensors)))
        start += count
    return answers


def _merge_columns(columns: Sequence[Column]) -> Column:
    if isinstance(columns[0], np.ndarray):
        merged: Any = np.concatenate(columns)
        return cast(Column, merged)
    return [cell for column in columns for cell in column]


def _measure_column(column: Column) -> tuple[int, str]:
    """Return the size and kind of a column. Merged columns of one kind have that kind again."""
    if isinstance(column, np.ndarray):
        return column.nbytes, column.dtype.str
    kinds = set(map(type, column))
    if kinds == {str}:
        return sum(map(len, column)), "values"
    nbytes = sum(len(cell) if type(cell) is str else _CELL_BYTES for cell in column)
    if kinds == {bool}:
        return nbytes, "bools"
    present = kinds - {type(None)}
    return nbytes, "numbers" if present and present <= {int, float} else "values"
