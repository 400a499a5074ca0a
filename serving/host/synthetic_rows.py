"""Makes up rows that fit a signature and resemble the training rows of a model.

A few, always the same ones. The many and hard rows of a proof come from `serving.compiling.proof_rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.domain.signature import Dtype, Feature, Signature
from serving.host.input_columns import InputColumn, dtype_of
from serving.rows.batch import Batch, Column
from serving.rows.integers import has_rounded_cell, make_integer_column

SEED = 20_261_120

# positive and not near 0: many estimators refuse negative numbers, and some divide by the number
_LOW, _HIGH = 0.25, 1.75
_STRINGS = ("a", "b", "c")


def make_batch(
    signature: Signature, columns: Sequence[InputColumn], rows: int, nulls: Sequence[bool] | None = None
) -> Batch:
    """Return `rows` rows for the features of `signature`, the same rows for the same arguments.

    Numbers come from the values or the range in `columns`, strings and bools from the values; where nothing is known,
    numbers are between 0.25 and 1.75. `nulls` says which features are null in the first row and in every third row;
    three neighbouring columns are null in different rows.
    """
    random = np.random.default_rng(SEED)
    places = random.random((rows, len(columns)))
    left_out = _choose_left_out(rows, nulls or [False] * len(columns))
    if all(feature.is_number for feature in signature.features) and not any(map(_has_large_integers, columns)):
        matrix = np.empty((rows, len(columns)))
        for index, column in enumerate(columns):
            matrix[:, index] = _make_numbers(column, places[:, index])
        matrix[left_out] = np.nan
        return Batch(rows, matrix=matrix)
    made = [
        _make_cells(feature, column, places[:, index], left_out[:, index])
        for index, (feature, column) in enumerate(zip(signature.features, columns, strict=True))
    ]
    return Batch(rows, columns=tuple(made))


def _choose_left_out(rows: int, nulls: Sequence[bool]) -> NDArray[np.bool_]:
    row, column = np.ogrid[:rows, : len(nulls)]
    pattern: NDArray[np.bool_] = ((row + column) % 3 == 0) | (row == 0)
    return pattern & np.asarray(nulls, dtype=np.bool_)


def _make_numbers(column: InputColumn, places: NDArray[np.float64]) -> NDArray[np.float64]:
    if column.values and dtype_of(column.values) is Dtype.NUMBER:
        return np.resize(np.asarray(column.values, dtype=np.float64), len(places))
    low = _LOW if column.low is None else column.low
    high = _HIGH if column.high is None else column.high
    return low + (high - low) * places


def _has_large_integers(column: InputColumn) -> bool:
    """Say whether a column's values are integers that float64 would round and that fit into 64 bits."""
    return has_rounded_cell(column.values) and make_integer_column(column.values) is not None


def _make_cells(
    feature: Feature, column: InputColumn, places: NDArray[np.float64], left_out: NDArray[np.bool_]
) -> Column:
    rows = len(places)
    if feature.is_number and _has_large_integers(column) and not left_out.any():
        return np.resize(np.array(make_integer_column(column.values)), rows)
    if feature.is_number:
        numbers = _make_numbers(column, places)
        numbers[left_out] = np.nan
        return numbers
    values: Sequence[Any] = column.values
    if feature.dtype is Dtype.STRING and dtype_of(values) is not Dtype.STRING:
        values = _STRINGS
    elif feature.dtype is Dtype.BOOL and dtype_of(values) is not Dtype.BOOL:
        values = (False, True)
    elif not values:
        values = _make_numbers(column, places).tolist()
    cells = [None if is_null else values[row % len(values)] for row, is_null in enumerate(left_out.tolist())]
    return np.array(cells, dtype=np.bool_) if feature.dtype is Dtype.BOOL and not left_out.any() else cells[:rows]
