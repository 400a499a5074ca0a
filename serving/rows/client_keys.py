"""Finds who a client is in the rows it sends: the value of one column in the first row."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from serving.domain.signature import Signature
from serving.rows.tables import Table


def find_key(rows: Any, signature: Signature, name: str) -> bytes | None:
    """Return the value of the column `name` in the first row as bytes, None if it has none.

    `rows` are those of a `PredictRequest`. A column that the model does not take is found by its name, in rows that are
    objects. Many rows that come in pieces are read as far as the first one.
    """
    value: Any = None
    if isinstance(rows, Table):
        names = rows.names if rows.names is not None else _names_of(signature)
        if rows.rows and name in names and names.index(name) < rows.width:
            value = rows.get_column(names.index(name))[0]
    else:
        value = _value_in(_first_row(rows), signature, name)
    if isinstance(value, (int, float, np.number)):  # the same number in all formats
        with suppress(OverflowError):
            value = float(value)
    return None if value is None else str(value).encode("utf-8", "backslashreplace")


def _first_row(rows: Any) -> Any:
    if isinstance(rows, list):
        return rows[0] if rows else None
    piece = next(iter(rows), None)
    return piece.rows[0] if piece is not None and piece.rows else None


def _value_in(row: Any, signature: Signature, name: str) -> Any:
    if isinstance(row, dict):
        return row.get(name)
    names = _names_of(signature)
    if isinstance(row, (list, tuple)) and name in names and names.index(name) < len(row):
        return row[names.index(name)]
    return None


def _names_of(signature: Signature) -> tuple[str, ...]:
    return tuple(feature.name for feature in signature.features)
