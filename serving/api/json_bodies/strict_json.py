"""The JSON that clients may send: strict, bounded, and refused with a reason that helps.

orjson does the work, except for the sign of ``-0``, which an integer loses. It accepts neither NaN, Infinity, 1e999 nor
integers too large for a float. A body with one of them is read again by a tolerant parser, so that the error can name
the row and the feature instead of an offset. An integer beyond 64 bits is read as a float: JavaScript writes floats up
to 1e21 in that form.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import orjson

from serving.domain.errors import InvalidInput, NotJson
from serving.domain.text import shorten

MAX_DEPTH = 16

PlaceOf = Callable[[int], int]
"""What tells where in a body a place of a part of it is."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_STEPS = bytes(1 if byte in b"[{" else 255 if byte in b"]}" else 0 for byte in range(256))
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_MAX_INTEGER_DIGITS = 19
_GZIP = b"\x1f\x8b"
_MINUS_ZERO = re.compile(rb"-0(?![0-9.eE])")
_STRING_OR_MINUS_ZERO = re.compile(rb'"(?:[^"\\]++|\\.)*+"|-0(?![0-9.eE])', re.DOTALL)


class Repeated(NamedTuple):
    """Stands for an object with a repeated key, in the result of `with_repeats`; it holds the key."""

    key: str


def loads(raw: bytes, max_depth: int = MAX_DEPTH, place_of: PlaceOf | None = None) -> Any:
    """Parse one JSON document. Raises NotJson.

    `place_of` returns the position in the body of a position in the document, for errors; None if it is the whole body.
    Numbers that no float can hold come back as NaN or infinity; the caller refuses them by name.
    """
    try:
        return parsed(raw)
    except orjson.JSONDecodeError as error:
        return _second_look(raw, error, max_depth, place_of)


def parsed(raw: bytes) -> Any:
    """Parse one JSON document; a zero with a sign keeps it, as a float. Raises orjson.JSONDecodeError."""
    document = orjson.loads(raw)
    if b"-0" in raw and has_minus_zero(raw):  # nearly always the first says no
        return orjson.loads(_STRING_OR_MINUS_ZERO.sub(_with_fraction, raw))
    return document


def has_minus_zero(raw: bytes) -> bool:
    """Say whether there may be a zero with a sign and without a fraction; it may also be in a string."""
    return b"-0" in raw and _MINUS_ZERO.search(raw) is not None


def _with_fraction(found: re.Match[bytes]) -> bytes:
    text = found.group()
    return text if text.startswith(b'"') else b"-0.0"


def refuse_depth(raw: bytes, max_depth: int = MAX_DEPTH) -> None:
    """Raise NotJson if brackets nest deeper than `max_depth`. A few passes at the speed of C, for any bytes.

    No valid body nests deeper than 3, so this is called only if something else is wrong.
    """
    steps = np.frombuffer(_STRING.sub(b"", raw).translate(_STEPS, _NOT_BRACKETS), np.int8)
    if steps.size and int(np.cumsum(steps, dtype=np.int32).max()) > max_depth:
        raise NotJson(f"the body is nested deeper than {max_depth} levels")


def count_strings(raw: bytes) -> int:
    """Count the strings in a valid JSON document, keys included."""
    quotes = raw.count(b'"')
    if b"\\" in raw:
        quotes -= raw.replace(b"\\\\", b"").count(b'\\"')
    return quotes // 2


def strings_in(rows: list[Any]) -> int:
    """Count the strings in rows, keys included, but not those nested inside a row: such rows are refused anyway."""
    count = 0
    for row in rows:
        if isinstance(row, dict):
            count += len(row) + list(map(type, row.values())).count(str)
        elif isinstance(row, list):
            count += list(map(type, row)).count(str)
        elif isinstance(row, str):
            count += 1
    return count


def with_repeats(raw: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Parse a valid document again, slowly, with `Repeated` in place of every object that repeats a key."""
    refuse_depth(raw, max_depth)
    return json.loads(raw, object_pairs_hook=_object, parse_int=len, parse_float=len)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Repeated:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            return Repeated(key)
        found[key] = value
    return found


def _second_look(raw: bytes, error: orjson.JSONDecodeError, max_depth: int, place_of: PlaceOf | None) -> Any:
    refuse_depth(raw, max_depth)
    try:
        text = raw.decode()
    except UnicodeDecodeError as wrong:
        hint = "; it looks compressed, send it as it is" if raw.startswith(_GZIP) else ""
        raise NotJson(
            f"the body is not UTF-8 text at byte {place_of(wrong.start) if place_of else wrong.start}{hint}"
        ) from None
    is_out_of_range = False

    def checked(read: Callable[[str], float]) -> Callable[[str], float]:
        def number(digits: str) -> float:
            nonlocal is_out_of_range
            value = read(digits)
            is_out_of_range = is_out_of_range or not math.isfinite(value)
            return value

        return number

    try:
        document = json.loads(
            text, parse_float=checked(float), parse_int=checked(_integer), parse_constant=checked(float)
        )
    except (ValueError, RecursionError):
        document = None
    if not is_out_of_range or document is None:
        raise NotJson(_why_not(text, error, place_of))
    return document


def _integer(digits: str) -> float:
    # int() refuses more than 4,300 digits, and takes quadratic time for fewer.
    return int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else float(digits)


def _why_not(text: str, error: orjson.JSONDecodeError, place_of: PlaceOf | None) -> str:
    if not text.strip():
        return 'the body is empty; send a JSON object such as {"instances": [[...]]}'
    where = f"near byte {place_of(error.pos)}" if place_of else f"at line {error.lineno}, column {error.colno}"
    hint = _hint(text, error.pos)
    return f"the body is not JSON: {error.msg} {where}" + (f"; {hint}" if hint else "")


def _hint(text: str, position: int) -> str:
    rest = text[position : position + 5]
    if rest.startswith("'"):
        return "JSON quotes strings and keys with double quotes"
    if rest.startswith(("True", "False", "None")):
        return "JSON writes true, false and null"
    if position == 0 and "=" in text[:200] and text[0] not in "{[":
        return "it looks like form data, send a JSON object"
    if position >= len(text.rstrip()):
        return "it ends too early"
    return ""


def refuse_repeats(document: Any, first_row: int = 0) -> None:
    """Raise InvalidInput for the first `Repeated` that is the document itself or one of its rows.

    The document is a native body, or a list of rows whose first one is number `first_row`.
    """
    if isinstance(document, Repeated):
        raise InvalidInput(f"{_shown(document.key)} appears twice in the body: send it once")
    if isinstance(document, dict):
        rows = document["instances"] if "instances" in document else [document.get("input")]
    else:
        rows = document
    for index, row in enumerate(rows if isinstance(rows, list) else []):
        if isinstance(row, Repeated):
            raise InvalidInput(f"row {first_row + index}, feature {_shown(row.key)}: appears twice: send it once")


def _shown(name: str) -> str:
    return repr(shorten(name, 60))
