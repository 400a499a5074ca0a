"""Bodies of MLflow's scoring server, read as rows, and its rules for columns.

JSON holds exactly one of ``dataframe_split``, ``dataframe_records``, ``instances`` and ``inputs``, and perhaps
``params``; only its ``method`` is read. Columns are found by name, in any order; unknown columns are ignored. If the
estimator was fitted without names, and no column is called like a feature, columns are found by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.api.json_bodies.cutter import Layout
from serving.api.json_bodies.long_array import COLUMN_BYTES, PIECE_BYTES, LongArray
from serving.api.json_bodies.row_changes import (
    Rows,
    change_rows,
    limit_width,
    plain_rows,
    read_object,
    rows_of_columns,
)
from serving.domain.errors import InvalidInput
from serving.domain.signature import Container, Signature
from serving.domain.text import shorten
from serving.rows.row_problems import describe_value
from serving.rows.tables import Table

SPLIT, RECORDS, INSTANCES, INPUTS = FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
NAMES_SHOWN = 20
MOST_COLUMNS = 100_000
MOST_EXTRA_COLUMNS = 10_000  # beyond those the model takes, which are ignored

Places = list[int | None]

_WANTED = f"exactly one of {', '.join(FORMS)}"
_LAYOUT = Layout(("data", INSTANCES, INPUTS), ((2, PIECE_BYTES), (3, COLUMN_BYTES)), f"send {_WANTED}")


class ScoringRequest(NamedTuple):
    """A JSON body, sent as `raw`. `columns` name the cells of rows that are arrays; None: in the features' order."""

    rows: Rows
    columns: tuple[str, ...] | None = None
    method: str | None = None
    raw: bytes = b""


def parse(raw: bytes, max_depth: int) -> ScoringRequest:
    """Read a JSON body; raises NotJson or InvalidInput. Blocks; any thread."""
    document = read_object(raw, _LAYOUT, max_depth, _WANTED)
    forms = [form for form in FORMS if form in document]
    if len(forms) != 1:
        seen = " and ".join(forms) or "none of them"
        raise InvalidInput(f"The input must be a JSON object with {_WANTED}; there is {seen}")
    (form,) = forms
    rows, columns = document[form], None
    if form == SPLIT:
        rows, columns = _split(rows)
    elif form == INPUTS and isinstance(rows, dict):
        rows = rows_of_columns(rows)
    if isinstance(rows, dict | str) or not hasattr(rows, "__len__"):
        raise InvalidInput(f"{form!r} is not an array of rows")
    if form == RECORDS:
        rows = change_rows(rows, _require_objects, _refuse_numbers)
    return ScoringRequest(rows, columns, _method(document), raw)


def rows_for(signature: Signature, body: ScoringRequest) -> Rows:
    """Return the rows with the columns that the model takes; raises InvalidInput for missing columns."""
    if signature.container is Container.OBJECTS:
        names = body.columns
        return (
            body.rows if names is None else change_rows(body.rows, lambda some: _objects(some, names), _refuse_numbers)
        )
    rows = limit_width(body.rows, len(signature.features) + MOST_EXTRA_COLUMNS)
    if body.columns is None:
        rows = change_rows(rows, lambda some: _aligned(signature, some))
    else:
        columns, places = body.columns, places_of(signature, body.columns)
        rows = change_rows(
            rows,
            lambda some: _picked(some, len(columns), places),
            lambda matrix: _picked_numbers(matrix, len(columns), places),
        )
    return plain_rows(signature, rows, body.raw)


def table_for(signature: Signature, table: Table) -> Table:
    """Return the columns the model takes, by position; raises InvalidInput for columns that are not there."""
    if table.names is None or signature.container is Container.OBJECTS:
        return table
    places = places_of(signature, table.names)
    if places is None:
        places = list(range(table.width))
    there = [place for place in places if place is not None]
    if table.matrix is not None and len(there) == len(places):
        return Table(table.rows, matrix=table.matrix[:, there])
    nothing = np.full(table.rows, np.nan)
    return Table(table.rows, columns=tuple(nothing if place is None else table.get_column(place) for place in places))


def places_of(signature: Signature, columns: Sequence[str]) -> Places | None:
    """Return the position in `columns` of each feature; None if columns are found by position. Raises InvalidInput.

    A feature that the model does not use may be missing: its position is None.
    """
    places = {name: place for place, name in enumerate(columns)}
    wanted = [feature.name for feature in signature.features]
    if len(places) != len(columns):
        repeated = next(name for name in columns if columns.count(name) > 1)
        raise InvalidInput(f"the column {describe_value(repeated)} is there twice")
    if not signature.is_named and places.keys().isdisjoint(wanted):
        return None
    missing = [feature.name for feature in signature.features if feature.is_used and feature.name not in places]
    if missing:
        known = set(wanted)
        extra = [name for name in columns if name not in known]
        note = f". Note that there were extra inputs: {_names(extra)}" if extra else ""
        raise InvalidInput(f"Model is missing inputs {_names(missing)}{note}")
    return [places.get(name) for name in wanted]


def _split(split: Any) -> tuple[Any, tuple[str, ...] | None]:
    if not isinstance(split, dict) or not isinstance(split.get("data"), list | LongArray):
        raise InvalidInput(f"{SPLIT!r} is an object of 'columns' and 'data', an array of rows")
    columns = split.get("columns")
    if columns is None:
        return split["data"], None
    if isinstance(columns, LongArray):
        if len(columns) > MOST_COLUMNS:
            raise InvalidInput(f"'columns' has {len(columns)} names; send the columns that the model takes")
        columns = [name for piece in columns for name in piece.rows]
    if not isinstance(columns, list) or not all(isinstance(name, str | int) for name in columns):
        raise InvalidInput("'columns' is not an array of names")
    return split["data"], tuple(map(str, columns))


def _method(document: dict[str, Any]) -> str | None:
    params = document.get("params")
    if params is None:
        return None
    if not isinstance(params, dict):
        raise InvalidInput("'params' is not an object")
    method = params.get("method")
    if method is not None and not isinstance(method, str):
        raise InvalidInput("'method' is not a string; leave it out for the model's default")
    return method


def _aligned(signature: Signature, rows: list[Any]) -> list[Any]:
    """Put objects into the features' order; other rows are left to the check that all rows have to pass."""
    if dict not in set(map(type, rows)):
        return rows
    names: tuple[str, ...] | None = None
    places: Places | None = None
    aligned = []
    for row in rows:
        if not isinstance(row, dict):
            aligned.append(row)
            continue
        if tuple(row) != names:  # nearly always all rows have the same
            names = tuple(row)
            places = places_of(signature, names)
        cells = list(row.values())
        aligned.append(cells if places is None else _chosen(cells, places))
    return aligned


def _objects(rows: list[Any], columns: Sequence[str]) -> list[Any]:
    """Return rows of cells as objects, for a model that takes objects."""
    return [dict(zip(columns, row, strict=True)) for row in _picked(rows, len(columns), None)]


def _chosen(cells: list[Any], places: Places) -> list[Any]:
    return [None if place is None else cells[place] for place in places]


def _picked(rows: list[Any], width: int, places: Places | None) -> list[Any]:
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            seen = f"{len(row)} values" if isinstance(row, list) else describe_value(row)
            raise InvalidInput(f"row {index} of 'data' has {seen}, there are {width} columns")
    return rows if places is None else [_chosen(row, places) for row in rows]


def _picked_numbers(matrix: NDArray[np.float64], width: int, places: Places | None) -> NDArray[np.float64] | None:
    if matrix.shape[1] != width or (places is not None and None in places):
        return None
    return matrix if places is None else np.take(matrix, [place for place in places if place is not None], axis=1)


def _require_objects(rows: list[Any]) -> list[Any]:
    if not all(isinstance(row, dict) for row in rows):
        raise InvalidInput(f"{RECORDS!r} is not an array of objects, one for each row")
    return rows


def _refuse_numbers(_: NDArray[np.float64]) -> None:
    """Return None: plain numbers cannot stand for objects."""


def _names(names: Sequence[str]) -> str:
    few = [shorten(name, 60) for name in names[:NAMES_SHOWN]]
    return str(few) if len(names) <= NAMES_SHOWN else f"{str(few)[:-1]}, ...]"
