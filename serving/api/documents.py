"""Bodies that are a JSON object with rows under one of its keys, of any size: what several protocols have in common."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

from serving.api.pieces import LARGE_BYTES, PIECE_BYTES, RowPieces, pieces_of
from serving.api.strict_json import loads
from serving.api.structure import find_arrays, refuse_many_values, without
from serving.domain.errors import InvalidInput
from serving.domain.signature import Signature
from serving.domain.text import shorten
from serving.rows.conversion import PIECE_ROWS, ManyRows, Piece

COLUMN_BYTES = 256  # the least of an array in an object in the body that is not parsed with the rest

Rows = list[Any] | ManyRows


class ChangedRows:
    """Rows in pieces, each changed when it is its turn. `change` gives as many rows as it takes."""

    def __init__(self, rows: ManyRows, change: Callable[[list[Any]], list[Any]]) -> None:
        self._rows = rows
        self._change = change

    def __len__(self) -> int:
        return len(self._rows)

    def of_width(self, width: int) -> ChangedRows:
        """Return the same rows, limited as `limit_width` says."""
        return ChangedRows(limit_width(self._rows, width), self._change)

    def __iter__(self) -> Iterator[Piece]:
        """Yield the changed pieces; raises what reading and changing them raises."""
        for piece in self._rows:
            yield Piece(self._change(piece.rows))


def changed(rows: Rows, change: Callable[[list[Any]], list[Any]]) -> Rows:
    """Apply `change` to a list of rows now, to rows in pieces later."""
    return change(rows) if isinstance(rows, list) else ChangedRows(rows, change)


class ColumnRows:
    """Rows that came as columns by name, as long arrays. One piece of each at a time is parsed."""

    def __init__(self, columns: dict[str, RowPieces | list[Any]]) -> None:
        self._columns = columns
        self._count = len(next(iter(columns.values())))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Piece]:
        """Yield rows by name; raises what parsing raises."""
        runs = [_runs(column) for column in self._columns.values()]
        for cells in zip(*runs, strict=True):
            yield Piece([dict(zip(self._columns, row, strict=True)) for row in zip(*cells, strict=True)])


def load_object(raw: bytes, max_depth: int, wanted: str) -> dict[str, Any]:
    """Parse a body that must be an object; `wanted` says which, for the message. Raises NotJson or InvalidInput.

    In a large body the long arrays that are values of the object, or else of objects in it, are not lists but
    RowPieces, which hold the interpreter lock for no longer than a piece takes; what is left may not have many values.
    Blocks; any thread.
    """
    document = loads(raw, max_depth=max_depth) if len(raw) <= LARGE_BYTES else _load_large(raw, max_depth, wanted)
    if not isinstance(document, dict):
        kind = "an array" if isinstance(document, list) else "a single value"
        raise InvalidInput(f"the body is {kind}; send an object: {wanted}")
    return document


def _load_large(raw: bytes, max_depth: int, wanted: str) -> Any:
    """Parse a body with RowPieces in place of its long arrays: first a text that cannot be guessed stands for each."""
    arrays = find_arrays(raw, 2, PIECE_BYTES, max_depth) or find_arrays(raw, 3, COLUMN_BYTES, max_depth)
    mark = secrets.token_hex(16)
    found = {f"{mark}{place}": pieces_of(raw, array, max_depth) for place, array in enumerate(arrays)}
    envelope = without(raw, arrays, found)
    refuse_many_values(envelope, max_depth, f"send {wanted}")
    document = loads(envelope, max_depth=max_depth)
    return _put_back(document, found) if found else document


def _put_back(value: Any, found: dict[str, RowPieces], level: int = 1) -> Any:
    if isinstance(value, str):
        return found.get(value, value)
    if isinstance(value, dict) and level <= 2:
        return {key: _put_back(one, found, level + 1) for key, one in value.items()}
    return value


def _runs(column: RowPieces | list[Any]) -> Iterator[list[Any]]:
    """Yield a column in runs of as many values as any other's."""
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


def plain_rows(signature: Signature, rows: Rows, *, has_nan: bool) -> Rows:
    """Return rows as the native interface takes them; what is wrong with them is found out there.

    Scalars become rows where the model has one feature. NaN, which `has_nan` says may be there, becomes null where a
    feature may be missing.
    """
    is_alone = len(signature.features) == 1
    if not (is_alone or has_nan):
        return rows
    nullable = {feature.name: feature.nullable for feature in signature.features}
    may_miss = has_nan and any(nullable.values())

    def plain(some: list[Any]) -> list[Any]:
        if is_alone and set(map(type, some)).isdisjoint((list, dict)):
            some = [[value] for value in some]
        return [_without_nan(row, nullable) for row in some] if may_miss else some

    return changed(rows, plain)


def rows_of_columns(columns: dict[str, Any]) -> Rows:
    """Turn columns by name into rows by name, within the limits of the body they came in; raises InvalidInput."""
    if not columns:
        raise InvalidInput("no columns: send an array of values for each feature")
    for name, column in columns.items():
        if not isinstance(column, list | RowPieces):
            raise InvalidInput(f"column {_shown(name)} is not an array: send one value for each row")
    lengths = {name: len(column) for name, column in columns.items()}
    first, count = next(iter(lengths.items()))
    other = next((name for name, length in lengths.items() if length != count), None)
    if other is not None:
        seen = f"column {_shown(first)} has {count} values, column {_shown(other)} has {lengths[other]}"
        raise InvalidInput(f"{seen}: send one for each row")
    if count > PIECE_ROWS and any(isinstance(column, RowPieces) for column in columns.values()):
        return ColumnRows({name: limit_width(column, 1) for name, column in columns.items()})
    plain = [[*_all_of(column)] for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*plain, strict=True)]


def _all_of(column: RowPieces | list[Any]) -> Iterator[Any]:
    for some in _runs(column):
        yield from some


def limit_width(rows: Any, width: int) -> Any:
    """Return rows of which none is parsed that has far more values than `width`, where they are not parsed yet."""
    return rows.of_width(width) if isinstance(rows, RowPieces | ChangedRows) else rows


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
