"""Turn rows that come as columns into a Batch: binary tensors, NumPy arrays, CSV, Arrow, data frames.

The rules and messages are those of `serving.rows.parsing`. The differences: numbers may have any numeric dtype, NaN
stands for a missing value, and float64 is not copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from serving.domain.errors import InvalidInput
from serving.domain.signature import Container, Dtype, Feature, Signature
from serving.rows.batch import Batch, Column
from serving.rows.integers import has_rounded
from serving.rows.parsing import rows_to_batch
from serving.rows.row_problems import describe_value, describe_wrong_names, describe_wrong_width

BLOCK_ROWS = 2048

_NUMERIC = "iuf"
_BLOCK_BYTES = 4096  # smaller columns are as fast when stacked block by block


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length, not yet checked against any signature.

    One of two layouts: `matrix`, a numeric or bool array of shape (rows, columns); or `columns`, each an array of shape
    (rows,) or a list of str, bool, int, float and None. `names` are those of the columns; None: in the features' order.
    """

    rows: int
    matrix: NDArray[Any] | None = None
    columns: tuple[NDArray[Any] | list[Any], ...] = ()
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Return the number of rows, as for other rows of a request."""
        return self.rows

    def get_column(self, place: int) -> NDArray[Any] | list[Any]:
        """Return one column."""
        return self.columns[place] if self.matrix is None else self.matrix[:, place]

    @property
    def width(self) -> int:
        """The number of columns."""
        return len(self.columns) if self.matrix is None else int(self.matrix.shape[1])


def table_to_batch(signature: Signature, table: Table) -> Batch:
    """Check a table against `signature` and lay it out for the model.

    Raises InvalidInput, naming the first row and the feature at fault. Computes only; any thread. For many rows that
    are not float64 already it takes a while.
    """
    if not table.rows:
        raise InvalidInput("no rows: send at least one")
    if signature.container is Container.OBJECTS:
        return rows_to_batch(signature, _make_objects(table))
    arranged = table if table.names is None else _order_columns(signature, table, table.names)
    features = signature.features
    unused = [place for place, feature in enumerate(features) if not feature.is_used]
    if arranged.width != len(features):
        raise InvalidInput(describe_wrong_width(signature, 0, arranged.width))
    is_numeric = all(feature.is_number for feature in features)
    is_numeric, is_typed = is_numeric and not signature.is_typed, signature.is_typed
    if unused:
        arranged = _blank_unused(arranged, unused)
    is_table = signature.container is Container.DATAFRAME and not is_typed
    matrix = arranged.matrix
    if is_table and is_numeric and matrix is not None and matrix.dtype.kind == "b":
        matrix = matrix.astype(np.float64)
    if is_numeric and matrix is not None and matrix.dtype.kind in _NUMERIC and not has_rounded(matrix):
        return Batch(table.rows, matrix=_require_finite(signature, matrix))
    columns = [arranged.get_column(place) for place in range(arranged.width)]
    if is_table:
        columns = [_convert_flags(feature, column) for feature, column in zip(features, columns, strict=True)]
    is_exact = not any(isinstance(column, np.ndarray) and has_rounded(column) for column in columns)
    if is_numeric and is_exact and all(_is_numeric(column) for column in columns):
        return Batch(table.rows, matrix=_require_finite(signature, _stack_columns(columns)))
    if signature.container is not Container.TEXTS and _need_no_check(features, columns, is_typed=is_typed):
        return Batch(table.rows, columns=tuple(_keep_dtype(column, is_typed=is_typed) for column in columns))
    listed = [_list_values(feature, column) for feature, column in zip(features, columns, strict=True)]
    return rows_to_batch(signature, [list(row) for row in zip(*listed, strict=True)])


def _make_objects(table: Table) -> list[Any]:
    """Return rows as objects: values by the names of their columns, without missing values."""
    if table.names is None:
        raise InvalidInput("the model takes objects: send columns with names")
    columns = [table.get_column(place) for place in range(table.width)]
    listed = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns]
    return [
        {name: cell for name, cell in zip(table.names, row, strict=True) if cell is not None and cell == cell}  # noqa: PLR0124
        for row in zip(*listed, strict=True)
    ]


def _blank_unused(table: Table, unused: list[int]) -> Table:
    """Put NaN into columns that the model does not use."""
    nothing = np.full(table.rows, np.nan)
    columns = (nothing if place in unused else table.get_column(place) for place in range(table.width))
    return Table(table.rows, columns=tuple(columns))


def _order_columns(signature: Signature, table: Table, names: tuple[str, ...]) -> Table:
    """Put the columns into the order of the features. Each feature must be there once, and no other column."""
    places = {name: place for place, name in enumerate(names)}
    wanted = [feature.name for feature in signature.features]
    if len(places) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"the column {describe_value(repeated)} is there twice")
    unused = {feature.name for feature in signature.features if not feature.is_used}
    if not set(wanted) - unused <= places.keys() <= set(wanted):
        raise InvalidInput(describe_wrong_names(signature, [dict.fromkeys(names)]).removeprefix("row 0 "))
    if places.keys() != set(wanted):
        nothing = np.full(table.rows, np.nan)
        columns = tuple(table.get_column(places[name]) if name in places else nothing for name in wanted)
        return Table(table.rows, columns=columns)
    order = [places[name] for name in wanted]
    if table.matrix is None:
        return Table(table.rows, columns=tuple(table.columns[place] for place in order))
    is_ordered = order == sorted(order)
    return Table(table.rows, matrix=table.matrix if is_ordered else table.matrix[:, order])


def _require_finite(signature: Signature, matrix: NDArray[Any]) -> NDArray[np.float64]:
    """Return numbers as C-contiguous float64. They must be finite; NaN is accepted where the feature is nullable."""
    numbers: NDArray[np.float64] = np.ascontiguousarray(matrix, dtype=np.float64)
    is_finite = np.isfinite(numbers)
    if is_finite.all():
        return numbers
    may_miss = np.array([feature.nullable for feature in signature.features])
    is_wrong = ~is_finite & ~(np.isnan(numbers) & may_miss)
    if is_wrong.any():
        row, place = (int(axis) for axis in np.unravel_index(int(np.argmax(is_wrong)), is_wrong.shape))
        value = "NaN" if np.isnan(numbers[row, place]) else "an infinity"
        allowed = " or NaN for a missing one" if may_miss[place] else ", and this feature may not be missing"
        name = signature.features[place].name
        raise InvalidInput(f"row {row}, feature '{name}': is {value}; expected a finite number{allowed}")
    return numbers


def _stack_columns(columns: Sequence[Any]) -> NDArray[Any]:
    """Return ``np.column_stack(columns)``, for many rows in a third to two thirds of its time.

    Columns that lie in memory at equal distances (as in an Arrow record batch) are a matrix of shape (columns, rows)
    already. Other columns are put together block by block, so that each block is transposed in the cache.
    """
    rows = len(columns[0])
    matrix = np.empty((rows, len(columns)), np.result_type(*columns))
    rowwise = _view_as_matrix(columns)
    if rowwise is not None:
        matrix[:] = rowwise.T
        return matrix
    for start in range(0, rows, BLOCK_ROWS):
        end = start + BLOCK_ROWS
        matrix[start:end] = np.stack([column[start:end] for column in columns]).T
    return matrix


def _view_as_matrix(columns: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
    """Return a view of columns as the rows of one matrix; None where they do not lie at equal distances.

    The view reaches only bytes of the columns. It is valid as long as all columns are.
    """
    first = columns[0]
    places = [column.__array_interface__["data"][0] for column in columns]
    step = places[1] - places[0] if len(places) > 1 else first.nbytes
    # A step much larger than a column may pass over other memory. When NumPy copies from such a view, it finds that the
    # view may share memory with the target, and makes a copy first. It finds the same about that copy, and so on until
    # the stack overflows.
    is_whole = first.flags.c_contiguous and first.nbytes >= _BLOCK_BYTES
    if not is_whole or not first.nbytes <= step <= first.nbytes + first.nbytes // 4:
        return None
    is_one = places == [places[0] + step * place for place in range(len(places))] and all(
        column.dtype == first.dtype and column.strides == first.strides for column in columns
    )
    return as_strided(first, (len(columns), len(first)), (step, *first.strides), writeable=False) if is_one else None


def _need_no_check(features: Sequence[Feature], columns: Sequence[NDArray[Any] | list[Any]], *, is_typed: bool) -> bool:
    """Say whether no cell needs a check: all columns are arrays, of finite numbers or bools as the features require."""
    for feature, column in zip(features, columns, strict=True):
        if isinstance(column, list):
            return False
        if feature.is_number or (is_typed and feature.dtype is Dtype.ANY):
            if is_typed and column.dtype.kind == "b":
                continue
            if column.dtype.kind not in _NUMERIC or not np.isfinite(column).all():
                return False
        elif feature.dtype is not Dtype.BOOL or column.dtype.kind != "b":
            return False
    return True


def _convert_flags(feature: Feature, column: NDArray[Any] | list[Any]) -> NDArray[Any] | list[Any]:
    """Convert bools to numbers, and zeros and ones to bools, where the feature takes the other kind."""
    if not isinstance(column, np.ndarray):
        return column
    if feature.dtype is Dtype.NUMBER and column.dtype.kind == "b":
        return column.astype(np.float64)
    if feature.dtype is Dtype.BOOL and column.dtype.kind in _NUMERIC and ((column == 0) | (column == 1)).all():
        return column.astype(np.bool_)
    return column


def _is_numeric(column: NDArray[Any] | list[Any]) -> bool:
    return isinstance(column, np.ndarray) and column.dtype.kind in _NUMERIC


def _keep_dtype(column: NDArray[Any] | list[Any], *, is_typed: bool) -> Column:
    array = np.asarray(column)
    if array.dtype.kind == "b":
        return array
    if is_typed or has_rounded(array):
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    return array.astype(np.float64, copy=False)


def _list_values(feature: Feature, column: NDArray[Any] | list[Any]) -> list[Any]:
    """Return plain values. NaN becomes None if the feature may be missing, so that the rules for rows apply."""
    values = column.tolist() if isinstance(column, np.ndarray) else column
    if not feature.nullable:
        return values
    return [None if isinstance(value, float) and value != value else value for value in values]  # noqa: PLR0124
