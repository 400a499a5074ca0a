"""Reads MLflow's description of a model's rows: the signature in the file ``MLmodel``, and an input example.

``MLmodel`` is YAML as MLflow's ``Model.to_yaml`` writes it. This module reads one value of it: ``signature.inputs``,
JSON in single quotes. That value completes what an estimator knows of itself, and never contradicts it. A file without
columns, or in another layout, is ignored.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from serving.domain.signature import Dtype

MLMODEL_NAME = "MLmodel"
EXAMPLE_NAMES = ("serving_input_example.json", "input_example.json")
MAX_MLMODEL_BYTES = 1 << 20
MAX_EXAMPLE_ROWS = 256

# A top-level key, and in it a quoted scalar that may span lines; a quote inside of it is doubled.
_INPUTS = re.compile(r"^signature:\n(?:  .*\n)*?  inputs: '((?:[^']|'')*)'", re.MULTILINE)
_FOLD = re.compile(r"\s*\n\s*")
_NUMBERS = ("double", "float", "integer", "long")
_DTYPES = {**dict.fromkeys(_NUMBERS, Dtype.NUMBER), "string": Dtype.STRING, "boolean": Dtype.BOOL}


class NamedColumn(NamedTuple):
    """One input column of a signature."""

    name: str
    dtype: Dtype


def columns_of(raw: bytes) -> tuple[NamedColumn, ...]:
    """Return the columns of the signature in the bytes of an ``MLmodel``; an empty tuple when there are none.

    Tensors have no columns. A column of an unknown type (a date, bytes, an array) makes the others useless, too.
    """
    found = _INPUTS.search(raw.decode("utf-8", "replace"))
    if found is None:
        return ()
    try:
        given = json.loads(_FOLD.sub(" ", found[1]).replace("''", "'"))
        columns = tuple(NamedColumn(each["name"], _DTYPES[each["type"]]) for each in given)
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()
    return columns if all(isinstance(column.name, str) for column in columns) else ()


def rows_of_example(raw: bytes) -> list[Any]:
    """Return the rows in the bytes of an input example, as a client would send them; an empty list without rows.

    MLflow writes tables as ``{"columns", "data"}``, by itself or as ``dataframe_split``, arrays as ``inputs``.
    """
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return []
    if isinstance(found, dict):
        found = next((found[key] for key in ("dataframe_split", "inputs", "instances") if key in found), found)
    if isinstance(found, dict) and isinstance(found.get("data"), list):
        names = found.get("columns")
        found = [
            dict(zip(names, row, strict=False)) if isinstance(names, list) and isinstance(row, list) else row
            for row in found["data"]
        ]
    return found[:MAX_EXAMPLE_ROWS] if isinstance(found, list) else []
