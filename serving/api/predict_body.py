"""The native body: ``{"instances": [row, ...]}`` or ``{"input": row}``, optionally with ``"method"``."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from serving.api.strict_json import MAX_DEPTH, count_strings, loads, refuse_repeats, with_repeats
from serving.domain.errors import InvalidInput
from serving.domain.text import shorten
from serving.plane.prediction import PredictRequest

KEYS = ("instances", "input", "method")

_USUAL = b'{"instances":'


def parse(raw: bytes, max_depth: int = MAX_DEPTH) -> PredictRequest:
    """Read a whole body; raises NotJson or InvalidInput. Blocks for 20 ms per MiB: `pieces` is for large ones."""
    document = loads(raw, max_depth=max_depth)
    if raw.startswith(_USUAL) and raw.count(b'"') == 2:
        # One key and no string but that: what nearly every request looks like.
        rows = document["instances"]
        if isinstance(rows, list):
            return PredictRequest(rows)
    rows, is_single = rows_of(document)
    method = document.get("method")
    # Every string of a JSON text has two quotes. One that is not accounted for is either part of a row or a key that
    # came twice, which no parser of JSON reports.
    strings = len(document) + (method is not None)
    if raw.count(b'"') != 2 * strings and count_strings(raw) != strings + strings_in(rows):
        refuse_repeats(with_repeats(raw, max_depth))
    return PredictRequest(rows, method, is_single)


def rows_of(document: Any) -> tuple[list[Any], bool]:
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
    if not isinstance(rows, list):
        raise InvalidInput("'instances' is not an array of rows; for one row send 'input'")
    return rows, False


def strings_in(rows: list[Any]) -> int:
    """Count the strings in rows, keys included, but not what is nested inside of a row: no row is taken with it."""
    count = 0
    for row in rows:
        if isinstance(row, dict):
            count += len(row) + list(map(type, row.values())).count(str)
        elif isinstance(row, list):
            count += list(map(type, row)).count(str)
        elif isinstance(row, str):
            count += 1
    return count


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
