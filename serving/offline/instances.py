"""Converts rows as data scientists hold them into rows as clients send them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from serving.domain.signature import Signature


def to_instances(rows: Any, signature: Signature) -> list[Any]:
    """Return an array, a DataFrame, a sparse matrix or any iterable of rows as a list of JSON rows.

    Rows are objects keyed by feature name when the model was fitted with names, else arrays; NaN becomes null. It looks
    at methods instead of classes, because this package does not import the libraries of these classes.
    """
    names = [feature.name for feature in signature.features]
    if hasattr(rows, "toarray"):
        rows = rows.toarray()
    if hasattr(rows, "columns") and hasattr(rows, "notna"):
        names = [str(name) for name in rows.columns]
        rows = rows.astype(object).where(rows.notna(), None).to_numpy()
    if hasattr(rows, "to_dicts") or hasattr(rows, "to_pylist"):  # tables of Polars and PyArrow
        rows = rows.to_dicts() if hasattr(rows, "to_dicts") else rows.to_pylist()
        rows = rows if signature.is_named else [tuple(row.values()) for row in rows]
    if hasattr(rows, "tolist"):
        rows = rows.tolist()
    return [_make_instance(row, names if signature.is_named else None) for row in _list_rows(rows)]


def to_plain_value(value: Any) -> Any:
    """Return one cell as JSON data: NumPy's scalars and arrays as Python's, NaN as None, dates in ISO 8601."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124  (only NaN differs from itself)


def _list_rows(rows: Any) -> list[Any]:
    return list(rows) if isinstance(rows, Iterable) else [rows]


def _make_instance(row: Any, names: list[str] | None) -> Any:
    if isinstance(row, Mapping):
        return {str(name): to_plain_value(value) for name, value in row.items()}
    if hasattr(row, "tolist"):
        row = row.tolist()
    if not isinstance(row, (list, tuple)):
        return to_plain_value(row)
    cells = [to_plain_value(value) for value in row]
    if names is None or len(names) != len(cells):
        return cells
    return dict(zip(names, cells, strict=True))
