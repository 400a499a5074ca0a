"""Bodies of TensorFlow Serving's REST interface, read as rows.

``{"signature_name"?, "instances" | "inputs"}`` for predict, ``{"signature_name"?, "context"?, "examples"}`` for
classify and regress; other keys are ignored, as TensorFlow Serving does. The format is that of its ``api_rest.md`` and
``json_tensor.h``. Each feature is one named input, a scalar of a row; an array with only that scalar means the same.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.api.json_bodies.cutter import Layout
from serving.api.json_bodies.long_array import COLUMN_BYTES, PIECE_BYTES
from serving.api.json_bodies.row_changes import (
    Rows,
    change_rows,
    limit_width,
    plain_rows,
    read_object,
    rows_of_columns,
)
from serving.domain.errors import InvalidInput
from serving.domain.signature import Signature

# TensorFlow's names for the default signature and the default method.
DEFAULT_NAMES = ("", "serving_default", *(f"tensorflow/serving/{verb}" for verb in ("predict", "classify", "regress")))


_WANTED_ROWS = '{"instances": [row, ...]} or {"inputs": ...}'
_WANTED_EXAMPLES = '{"examples": [{feature: value}, ...]}'
_ROWS = Layout(("instances", "inputs"), ((2, PIECE_BYTES), (3, COLUMN_BYTES)), f"send {_WANTED_ROWS}")
_EXAMPLES = Layout(("examples",), _ROWS.levels, f"send {_WANTED_EXAMPLES}")


class RowsRequest(NamedTuple):
    """A body, sent as `raw`. `method` None is the default one; `is_columnar`: it is answered with ``outputs``."""

    rows: Rows
    method: str | None
    is_columnar: bool = False
    raw: bytes = b""


def parse_predict(raw: bytes, max_depth: int) -> RowsRequest:
    """Read the body of predict; raises NotJson or InvalidInput. Blocks; any thread."""
    document = read_object(raw, _ROWS, max_depth, _WANTED_ROWS)
    if ("instances" in document) == ("inputs" in document):
        both = "both 'instances' and 'inputs' are given" if "inputs" in document else "the body has no rows"
        raise InvalidInput(f"{both}: send either 'instances' (an array of rows) or 'inputs' (rows, or columns by name)")
    is_columnar = "inputs" in document
    key = "inputs" if is_columnar else "instances"
    rows = document[key]
    if is_columnar and isinstance(rows, dict):
        rows = rows_of_columns(rows)
    return RowsRequest(_rows(rows, key), _method(document), is_columnar, raw)


def parse_examples(raw: bytes, max_depth: int) -> RowsRequest:
    """Read the body of classify or regress; raises NotJson or InvalidInput. Blocks; any thread."""
    document = read_object(raw, _EXAMPLES, max_depth, _WANTED_EXAMPLES)
    if "examples" not in document:
        raise InvalidInput("the body has no rows: send 'examples', an array of objects by feature name")
    rows, context = _rows(document["examples"], "examples"), document.get("context", {})
    if not isinstance(context, dict):
        raise InvalidInput("'context' is not an object of the features all examples share")
    rows = change_rows(rows, lambda some: _with_context(some, context), _refuse_numbers)
    return RowsRequest(rows, _method(document), False, raw)


def rows_for(signature: Signature, body: RowsRequest) -> Rows:
    """Return the rows in the form of the native interface; raises InvalidInput for text that is not base64."""

    def unwrapped(rows: list[Any]) -> list[Any]:
        if dict not in set(map(type, rows)):
            return rows
        return [_unwrapped(row) if isinstance(row, dict) else row for row in rows]

    rows = limit_width(body.rows, len(signature.features))
    return plain_rows(signature, change_rows(rows, unwrapped), body.raw)


def _rows(rows: Any, key: str) -> Rows:
    if isinstance(rows, dict | str) or not hasattr(rows, "__len__"):
        raise InvalidInput(f"{key!r} is not an array of rows")
    found: Rows = rows
    return found


def _method(document: dict[str, Any]) -> str | None:
    name = document.get("signature_name")
    if name is not None and not isinstance(name, str):
        raise InvalidInput("'signature_name' is not a string; leave it out for the model's default method")
    return None if name in DEFAULT_NAMES else name


def _refuse_numbers(_: NDArray[np.float64]) -> None:
    """Return None: plain numbers cannot stand for examples."""


def _with_context(rows: list[Any], context: dict[str, Any]) -> list[Any]:
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InvalidInput(f"row {index} is not an object: an example is one, of values by feature name")
        shared = row.keys() & context.keys()
        if shared:
            name = repr(min(shared)[:60])
            raise InvalidInput(f"row {index}: feature {name} is in 'context' as well: send it once")
    return [{**context, **row} for row in rows] if context else rows


def _unwrapped(row: dict[str, Any]) -> Any:
    if row.keys() == {"b64"}:
        return _text(row["b64"])
    if set(map(type, row.values())).isdisjoint((list, dict)):
        return row
    return {name: _scalar(value) for name, value in row.items()}


def _scalar(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return _text(value["b64"]) if isinstance(value, dict) and value.keys() == {"b64"} else value


def _text(encoded: Any) -> str:
    """Decode a string that was sent as base64, as UTF-8: models take text."""
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (TypeError, ValueError, binascii.Error):
        raise InvalidInput("the value of 'b64' is not text in base64") from None
