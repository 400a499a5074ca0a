"""What a sample of the training rows tells about the input columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse

from serving.host.answers import plain
from serving.host.columns import Column, dtype_of
from serving.host.model import LoadRefused

MAX_TYPED_ROWS = 10_000
MAX_KEPT_ROWS = 32


def note_examples(columns: list[Column], rows: Any) -> None:
    """Note dtype and values of each column of `rows`: a DataFrame, an array, a sparse matrix, or a list of texts.

    Raises LoadRefused when the sample does not have the columns the estimator was fitted with.
    """
    if scipy.sparse.issparse(rows):
        rows = rows[:MAX_KEPT_ROWS].toarray()
    if isinstance(rows, pd.DataFrame):
        _note_frame(columns, rows)
        return
    array = rows if isinstance(rows, np.ndarray) else np.asarray(list(rows), dtype=object)
    if array.ndim == 1 and len(columns) == 1:
        array = array.reshape(-1, 1)
    if array.ndim != 2 or array.shape[1] != len(columns):
        raise LoadRefused(f"the sample has the shape {array.shape}, the estimator takes {len(columns)} features")
    for column, cells in zip(columns, array[:MAX_TYPED_ROWS].T, strict=True):
        # a bool array is one kind of number for scikit-learn; only a table knows columns of their own kind
        _note(column, cells.astype(float).tolist() if cells.dtype.kind == "b" else cells.tolist())


def _note_frame(columns: list[Column], frame: pd.DataFrame) -> None:
    names = [column.name for column in columns]
    if all(name is not None for name in names):
        lacking = [name for name in names if name not in frame.columns]
        if lacking:
            raise LoadRefused(f"the sample has no column '{lacking[0]}', which the estimator was fitted with")
        frame = frame[names]
    if frame.shape[1] != len(columns):
        raise LoadRefused(f"the sample has {frame.shape[1]} columns, the estimator takes {len(columns)}")
    for index, column in enumerate(columns):
        _note(column, frame.iloc[:MAX_TYPED_ROWS, index].tolist())


def _note(column: Column, cells: list[Any]) -> None:
    values = [None if _is_missing(cell) else plain(cell) for cell in cells]
    present = [value for value in values if value is not None]
    dtype = dtype_of(present)
    if dtype is None:
        return
    column.dtype = dtype
    # a missing cell takes the next present value, so that values of one row stay together in all columns
    kept, fill = [], present[0]
    for value in reversed(values[:MAX_KEPT_ROWS]):
        fill = fill if value is None else value
        kept.append(fill)
    column.values = kept[::-1]


def _is_missing(cell: Any) -> bool:
    return cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and math.isnan(cell))
