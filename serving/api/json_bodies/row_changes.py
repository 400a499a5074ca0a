"""The changes that protocols make to rows before a model gets them: rows in pieces, columns, scalars, NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.api.json_bodies.brackets import find_word
from serving.api.json_bodies.cutter import Layout, read_json
from serving.api.json_bodies.long_array import LongArray
from serving.api.json_bodies.strict_json import refuse_repeated_keys
from serving.domain.errors import InvalidInput
from serving.domain.signature import Signature
from serving.domain.text import shorten
from serving.rows.conversion import PIECE_ROWS, ManyRows, Piece

Rows = list[Any] | ManyRows
Change = Callable[[list[Any]], list[Any]]
ChangeMatrix = Callable[[NDArray[np.float64]], NDArray[np.float64] | None]


class ChangedRows:
    """Rows in pieces, each changed when it is read. `change` returns as many rows as it gets.

    `change_matrix` does the same to rows that are plain numbers, shape (rows, columns); it returns None if it cannot.
    """

    def __init__(self, rows: ManyRows, change: Change, change_matrix: ChangeMatrix) -> None:
        self._rows = rows
        self._change = change
        self._change_matrix = change_matrix

    def __len__(self) -> int:
        return len(self._rows)

    def of_width(self, width: int) -> ChangedRows:
        """Return the same rows, limited as `limit_width` says."""
        return ChangedRows(limit_width(self._rows, width), self._change, self._change_matrix)

    def __iter__(self) -> Iterator[Piece]:
        """Yield the changed pieces; raises the errors of reading and of changing them."""
        for piece in self._rows:
            matrix = None if piece.matrix is None else self._change_matrix(piece.matrix)
            yield Piece(self._change(piece.rows) if matrix is None else partial(self._changed, piece), matrix)

    def _changed(self, piece: Piece) -> list[Any]:
        return self._change(piece.rows)


def keep(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return plain numbers unchanged: for changes that do not change numbers."""
    return matrix


def change_rows(rows: Rows, change: Change, change_matrix: ChangeMatrix = keep) -> Rows:
    """Apply `change` to a list of rows now, to rows in pieces later; see `ChangedRows`."""
    return change(rows) if isinstance(rows, list) else ChangedRows(rows, change, change_matrix)


class ColumnRows:
    """Rows that came as columns by name, in long arrays. One piece of each column is parsed at a time."""

    def __init__(self, columns: dict[str, LongArray | list[Any]]) -> None:
        self._columns = columns
        self._count = len(next(iter(columns.values())))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Piece]:
        """Yield rows by name; raises what parsing raises."""
        runs = [_runs(column) for column in self._columns.values()]
        for cells in zip(*runs, strict=True):
            yield Piece([dict(zip(self._columns, row, strict=True)) for row in zip(*cells, strict=True)])


def read_object(raw: bytes, layout: Layout, max_depth: int, wanted: str) -> dict[str, Any]:
    """Read a body that must be an object, with `read_json`; `wanted` describes the object in the error."""
    document, text = read_json(raw, layout, max_depth)
    if not isinstance(document, dict):
        kind = "an array" if isinstance(document, list) else "a single value"
        raise InvalidInput(f"the body is {kind}; send an object: {wanted}")
    if text.count(b'"') != 2 * len(document):  # nearly always there are no others than the keys
        refuse_repeated_keys(text, document, max_depth)
    return document


def _runs(column: LongArray | list[Any]) -> Iterator[list[Any]]:
    """Yield a column in runs; all columns have runs of the same length."""
    waiting: list[Any] = []
    for some in (column,) if isinstance(column, list) else (piece.rows for piece in column):
        waiting += some
        start = 0
        while len(waiting) - start >= PIECE_ROWS:
            yield waiting[start : start + PIECE_ROWS]
            start += PIECE_ROWS
        del waiting[:start]
    if waiting:
        yield waiting


def plain_rows(signature: Signature, rows: Rows, raw: bytes) -> Rows:
    """Return the rows of a body in the form of the native interface, which checks them later.

    Scalars become rows if the model has one feature. NaN becomes null if a feature may be missing.
    """
    is_alone = len(signature.features) == 1
    has_nan = find_word(raw, b"NaN") >= 0
    if not (is_alone or has_nan):
        return rows
    nullable = {feature.name: feature.nullable for feature in signature.features}
    may_miss = has_nan and any(nullable.values())

    def plain(some: list[Any]) -> list[Any]:
        if is_alone and set(map(type, some)).isdisjoint((list, dict)):
            some = [[value] for value in some]
        return [_without_nan(row, nullable) for row in some] if may_miss else some

    return change_rows(rows, plain)


def rows_of_columns(columns: dict[str, Any]) -> Rows:
    """Turn columns by name into rows by name, within the limits of the body they came in; raises InvalidInput."""
    if not columns:
        raise InvalidInput("no columns: send an array of values for each feature")
    for name, column in columns.items():
        if not isinstance(column, list | LongArray):
            raise InvalidInput(f"column {_shown(name)} is not an array: send one value for each row")
    columns = {name: each.cut_exactly() if isinstance(each, LongArray) else each for name, each in columns.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    first, count = next(iter(lengths.items()))
    other = next((name for name, length in lengths.items() if length != count), None)
    if other is not None:
        seen = f"column {_shown(first)} has {count} values, column {_shown(other)} has {lengths[other]}"
        raise InvalidInput(f"{seen}: send one for each row")
    if count > PIECE_ROWS and any(isinstance(column, LongArray) for column in columns.values()):
        return ColumnRows({name: limit_width(column, 1) for name, column in columns.items()})
    plain = [[*_all_of(column)] for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*plain, strict=True)]


def _all_of(column: LongArray | list[Any]) -> Iterator[Any]:
    for some in _runs(column):
        yield from some


def limit_width(rows: Any, width: int) -> Any:
    """Return the rows; those not parsed yet are refused if they have far more values than `width`."""
    return rows.of_width(width) if isinstance(rows, LongArray | ChangedRows) else rows


def _without_nan(row: Any, nullable: dict[str, bool]) -> Any:
    if isinstance(row, dict):
        return {name: None if nullable.get(name) and _is_nan(value) else value for name, value in row.items()}
    if isinstance(row, list) and len(row) == len(nullable):
        return [None if flag and _is_nan(value) else value for flag, value in zip(nullable.values(), row, strict=True)]
    return row


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value  # noqa: PLR0124 - what tells NaN


def _shown(name: str) -> str:
    return repr(shorten(name, 60))
