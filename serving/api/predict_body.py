"""The native body: ``{"instances": [row, ...]}`` or ``{"input": row}``, optionally with ``"method"``."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from serving.api.json_bodies.brackets import MOST_VALUES, count_values
from serving.api.json_bodies.cutter import LARGE_BYTES, Layout, read_json
from serving.api.json_bodies.long_array import PIECE_BYTES, LongArray
from serving.api.json_bodies.strict_json import MAX_DEPTH, loads, refuse_repeated_keys
from serving.domain.errors import InvalidInput
from serving.domain.text import shorten
from serving.plane.prediction import PredictRequest

KEYS = ("instances", "input", "method")

_LAYOUT = Layout(("instances",), ((2, PIECE_BYTES),), 'send rows as {"instances": [row, ...]}', only_keys=True)


def parse(raw: bytes, max_depth: int = MAX_DEPTH) -> PredictRequest:
    """Read a whole body; raises NotJson or InvalidInput. Blocks like `read_json`; so do the rows of a large body."""
    document, text = read_json(raw, _LAYOUT, max_depth)
    try:
        rows, is_single = rows_of(document)
        method = document.get("method")
        if text.count(b'"') != 2 * (len(document) + (method is not None)):  # nearly always there are no others
            refuse_repeated_keys(text, document, max_depth)
    except InvalidInput:
        if len(raw) > LARGE_BYTES and count_values(raw, max_depth).cost <= MOST_VALUES:
            loads(raw, max_depth)  # it may be no JSON either, which is said first
        raise
    return PredictRequest(rows, method, is_single)


def rows_of(document: Any) -> tuple[list[Any] | LongArray, bool]:
    """Return the rows of a parsed body and whether it was a single one; raises InvalidInput."""
    if not isinstance(document, dict):
        kind = "an array" if isinstance(document, list) else "a single value"
        raise InvalidInput(f'the body is {kind}; send an object: {{"instances": [row, ...]}} or {{"input": row}}')
    has_rows, has_input = "instances" in document, "input" in document
    if has_rows == has_input or len(document) != 1 + ("method" in document):
        raise InvalidInput(_wrong_keys(document))
    method = document.get("method")
    if method is not None and not isinstance(method, str):
        raise InvalidInput("'method' is not a string; leave it out for the model's default")
    if has_input:
        return [document["input"]], True
    rows = document["instances"]
    if not isinstance(rows, list | LongArray):
        raise InvalidInput("'instances' is not an array of rows; for one row send 'input'")
    return rows, False


def _wrong_keys(document: dict[str, Any]) -> str:
    unknown = [key for key in document if key not in KEYS]
    if unknown:
        key = shorten(unknown[0], 60)
        close = get_close_matches(key, KEYS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"the body takes {', '.join(KEYS)}"
        return f"unknown key {key!r} in the body; {hint}"
    if "instances" in document:
        return "both 'instances' and 'input' are given: send 'instances' for many rows, 'input' for one"
    return "the body has no rows: send 'instances' (an array of rows) or 'input' (one row)"
