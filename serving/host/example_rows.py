"""Describes input columns from a sample of the training rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from serving.domain.signature import Container
from serving.host.date_columns import date_kind_of, format_dates
from serving.host.input_columns import InputColumn, dtype_of
from serving.host.model import LoadRefused
from serving.host.optional_pandas import pandas as pd
from serving.host.output_tensors import to_plain_value

MAX_TYPED_ROWS = 10_000
MAX_KEPT_ROWS = 32


class SampleRefused(LoadRefused):
    """The example rows do not have the columns that the estimator was trained on."""


def describe_columns(rows: Any) -> tuple[Container, list[str]]:
    """Return the container of example rows and the names of their columns: ``x0``, ``x1`` and so on without names.

    Raises SampleRefused for data without columns.
    """
    rows = _to_pandas(rows)
    if isinstance(rows, pd.DataFrame):
        return Container.DATAFRAME, [str(name) for name in rows.columns]
    array = rows if scipy.sparse.issparse(rows) else _to_array(rows)
    if array.ndim == 2:
        return Container.ARRAY, make_column_names(array.shape[1])
    if array.ndim == 1 and len(array) and all(isinstance(cell, str) for cell in array[:MAX_TYPED_ROWS]):
        return Container.TEXTS, ["text"]
    raise SampleRefused(f"the sample has the shape {array.shape}; rows and features are expected, or texts")


def make_column_names(count: int) -> list[str]:
    """Return names for `count` columns without names: ``x0``, ``x1`` and so on."""
    return [f"x{index}" for index in range(count)]


def note_examples(columns: list[InputColumn], rows: Any) -> None:
    """Note dtype and values of each column of `rows`: a DataFrame, an array, a sparse matrix, or a list of texts.

    Raises SampleRefused when the rows do not have the columns that the estimator was fitted with.
    """
    rows = _to_pandas(rows)
    if scipy.sparse.issparse(rows):
        rows = rows.tocsr()[:MAX_KEPT_ROWS].toarray()
    if isinstance(rows, pd.DataFrame):
        _note_frame(columns, rows)
        return
    array = _to_array(rows)
    if array.ndim == 1 and len(columns) == 1:
        array = array.reshape(-1, 1)
    if array.ndim != 2 or array.shape[1] != len(columns):
        raise SampleRefused(f"the sample has the shape {array.shape}, the estimator takes {len(columns)} features")
    for column, cells in zip(columns, array[:MAX_TYPED_ROWS].T, strict=True):
        # scikit-learn takes an array of bools as numbers; only the columns of a table have a dtype of their own
        _note_cells(column, cells.astype(float).tolist() if cells.dtype.kind == "b" else cells.tolist())


def _to_pandas(rows: Any) -> Any:
    """Return the first rows of a Polars or PyArrow table as a pandas DataFrame, and everything else unchanged."""
    if isinstance(rows, (pd.DataFrame, np.ndarray)):
        return rows
    if hasattr(rows, "to_dicts"):
        return pd.DataFrame(rows.head(MAX_TYPED_ROWS).to_dict(as_series=False))
    return pd.DataFrame(rows.slice(0, MAX_TYPED_ROWS).to_pydict()) if hasattr(rows, "to_pydict") else rows


def _to_array(rows: Any) -> NDArray[Any]:
    return rows if isinstance(rows, np.ndarray) else np.asarray(list(rows), dtype=object)


def _note_frame(columns: list[InputColumn], frame: pd.DataFrame) -> None:
    names = [column.name for column in columns]
    if all(name is not None for name in names):
        lacking = [name for name in names if name not in frame.columns]
        if lacking:
            raise SampleRefused(f"the sample has no column '{lacking[0]}', which the estimator was fitted with")
        frame = frame[names]
    if frame.shape[1] != len(columns):
        raise SampleRefused(f"the sample has {frame.shape[1]} columns, the estimator takes {len(columns)}")
    for index, column in enumerate(columns):
        cells = frame.iloc[:MAX_TYPED_ROWS, index]
        column.date_kind = date_kind_of(cells)
        _note_cells(column, cells.tolist() if column.date_kind is None else format_dates(cells))


def _note_cells(column: InputColumn, cells: list[Any]) -> None:
    values = [None if _is_missing(cell) else to_plain_value(cell) for cell in cells]
    present = [value for value in values if value is not None]
    dtype = dtype_of(present)
    if dtype is None:
        return
    column.dtype = dtype
    # a missing cell gets the next present value, so that one position is one row in all columns
    kept, fill = [], present[0]
    for value in reversed(values[:MAX_KEPT_ROWS]):
        fill = fill if value is None else value
        kept.append(fill)
    column.values = kept[::-1]


def _is_missing(cell: Any) -> bool:
    return cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and math.isnan(cell))
