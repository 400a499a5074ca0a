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
from collections.abc import Callable, Iterable
from itertools import chain
from types import NoneType
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
_NO_STRINGS = frozenset({dict, list, int, float, bool, NoneType})
_GZIP = b"\x1f\x8b"
_MINUS_ZERO = re.compile(rb"-0(?![0-9.eE])")
_STRING_OR_MINUS_ZERO = re.compile(rb'"(?:[^"\\]++|\\.)*+"|-0(?![0-9.eE])', re.DOTALL)


class _Repeated(NamedTuple):
    """Stands for an object that repeats a key; it holds the key."""

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


def refuse_repeated_keys(raw: bytes, document: Any, max_depth: int = MAX_DEPTH, first_row: int | None = 0) -> None:
    """Raise InvalidInput where an object names a key twice: no parser of JSON reports that.

    `document` is what `raw`, a valid text, was parsed to; whatever stands in it for a part of the
    text stands for one string. Errors name the row, counted from `first_row`; None: there are no rows.
    """
    if _has_fewer_strings(document, count_strings(raw)):
        refuse_depth(raw, max_depth)
        found = json.loads(raw, object_pairs_hook=_object, parse_int=len, parse_float=len)
        _refuse_first_repeat(found, None, first_row)


def _has_fewer_strings(document: Any, count: int) -> bool:
    """Say whether there are fewer than `count` strings in a document, keys included.

    All that is on one level is taken at once, and nothing more as soon as `count` have been found: most often these are
    the keys and names around the numbers.
    """
    levels: list[Iterable[Any]] = [[document]]
    while count > 0 and levels:
        inside = list(levels.pop())
        kinds = list(map(type, inside))
        found = set(kinds)
        for kind in found - _NO_STRINGS:
            count -= kinds.count(kind)
        if count > 0 and dict in found:
            objects = inside if len(found) == 1 else [each for each in inside if type(each) is dict]
            count -= sum(map(len, objects))
            levels.append(chain.from_iterable(map(dict.values, objects)))
        if count > 0 and list in found:
            arrays = inside if len(found) == 1 else [each for each in inside if type(each) is list]
            levels.append(chain.from_iterable(arrays))
    return count > 0


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Repeated:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            return _Repeated(key)
        found[key] = value
    return found


def _refuse_first_repeat(value: Any, row: int | None, first_row: int | None) -> None:
    """Raise InvalidInput for the first `_Repeated` in a value that is part of row number `row`, if of any."""
    if isinstance(value, _Repeated):
        name = repr(shorten(value.key, 60))
        where = f"{name} appears twice in the body" if row is None else f"row {row}, feature {name}: appears twice"
        raise InvalidInput(f"{where}: send it once")
    if isinstance(value, dict):
        for key, each in value.items():
            _refuse_first_repeat(each, first_row if row is None and key == "input" else row, first_row)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            is_row = row is None and first_row is not None
            _refuse_first_repeat(each, index + (first_row or 0) if is_row else row, first_row)


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
