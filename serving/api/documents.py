"""Bodies that are a JSON object with rows under one of its keys, of any size: what several protocols have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from serving.api.pieces import LARGE_BYTES, split
from serving.api.strict_json import loads
from serving.conversion import ManyRows, Piece
from serving.domain.errors import InvalidInput
from serving.domain.signature import Signature

Rows = list[Any] | ManyRows


class ChangedRows:
    """Rows in pieces, each changed when it is its turn. `change` gives as many rows as it takes."""

    def __init__(self, rows: ManyRows, change: Callable[[list[Any]], list[Any]]) -> None:
        self._rows = rows
        self._change = change

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Piece]:
        """Yield the changed pieces; raises what reading and changing them raises."""
        for piece in self._rows:
            yield Piece(self._change(piece.rows), piece.may_contain_bools)


def changed(rows: Rows, change: Callable[[list[Any]], list[Any]]) -> Rows:
    """Apply `change` to a list of rows now, to rows in pieces later."""
    return change(rows) if isinstance(rows, list) else ChangedRows(rows, change)


def load_object(raw: bytes, max_depth: int, wanted: str) -> dict[str, Any]:
    """Parse a body that must be an object; `wanted` says which, for the message. Raises NotJson or InvalidInput.

    In a large body whose only array of any size is the value of a key, that value is not a list but ManyRows, which
    hold the interpreter lock for no longer than a piece takes. Blocks; any thread.
    """
    found = split(raw, max_depth) if len(raw) > LARGE_BYTES else None
    if found is not None:
        envelope, rows = found
        document = loads(envelope, max_depth=max_depth)
        if isinstance(document, dict):
            key = next((key for key, value in document.items() if value == [] and isinstance(value, list)), None)
            if key is not None:
                return document | {key: rows}
    document = loads(raw, max_depth=max_depth)
    if not isinstance(document, dict):
        kind = "an array" if isinstance(document, list) else "a single value"
        raise InvalidInput(f"the body is {kind}; send an object: {wanted}")
    return document


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


def rows_of_columns(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Turn columns by name into rows by name, within the limits of the body they came in; raises InvalidInput."""
    if not columns:
        raise InvalidInput("no columns: send an array of values for each feature")
    for name, column in columns.items():
        if not isinstance(column, list):
            raise InvalidInput(f"column {_shown(name)} is not an array: send one value for each row")
    lengths = {name: len(column) for name, column in columns.items()}
    first, count = next(iter(lengths.items()))
    other = next((name for name, length in lengths.items() if length != count), None)
    if other is not None:
        seen = f"column {_shown(first)} has {count} values, column {_shown(other)} has {lengths[other]}"
        raise InvalidInput(f"{seen}: send one for each row")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _without_nan(row: Any, nullable: dict[str, bool]) -> Any:
    if isinstance(row, dict):
        return {name: None if nullable.get(name) and _is_nan(value) else value for name, value in row.items()}
    if isinstance(row, list) and len(row) == len(nullable):
        return [None if flag and _is_nan(value) else value for flag, value in zip(nullable.values(), row, strict=True)]
    return row


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value  # noqa: PLR0124 - what tells NaN


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:57] + "...")
