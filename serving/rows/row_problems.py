"""Error texts for wrong rows: what is wrong, where, and what the client should send instead.

These functions run only after the fast code in `serving.rows.parsing` has refused rows. They check the cells one by one
for the first wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from serving.domain.signature import Container, Dtype, Feature, Signature
from serving.domain.text import shorten
from serving.rows.integers import is_rounded, make_integer_column

Row = Sequence[Any]

NUMBERS = frozenset({int, float})
FLAGS = frozenset({0, 1, None})  # equal to 0.0, False, 1.0 and True
_TYPES: dict[Dtype, frozenset[type]] = {
    Dtype.NUMBER: NUMBERS,
    Dtype.STRING: frozenset({str}),
    Dtype.BOOL: frozenset({bool}),
    Dtype.ANY: frozenset({int, float, str, bool}),
}
_IN_OBJECTS = frozenset({int, float, str, bool, type(None), list})
_ROWS = {
    Container.TEXTS: frozenset({str, list, dict}),
    Container.OBJECTS: frozenset({dict}),
    Container.ARRAY: frozenset({list, dict}),
}
_FLAGS_OR_NUMBERS = frozenset({int, float, bool})

_EXPECTED = {
    Dtype.NUMBER: "a number",
    Dtype.STRING: "a string",
    Dtype.BOOL: "true or false",
    Dtype.ANY: "a number, a string, true or false",
}
_SHOWN_NAMES = 3
_SHOWN_CHARACTERS = 60
_MAX_SUGGESTED_FROM = 1000
_INTEGERS = range(-(1 << 63), 1 << 64)


def list_taken_types(dtype: Dtype, is_table: bool) -> frozenset[type]:
    """Return the types that cells of a feature may have; in a table numbers and bools stand for each other."""
    if is_table and dtype in (Dtype.NUMBER, Dtype.BOOL):
        return _FLAGS_OR_NUMBERS
    return _TYPES[dtype]


def describe_wrong_cell(signature: Signature, rows: Sequence[Row]) -> str:
    """Name the first row of the wrong length, or the first cell that its feature does not take."""
    count = len(signature.features)
    if signature.container is Container.OBJECTS:
        index = next(index for index, (row,) in enumerate(rows) if not is_flat(row))
        return f"row {index} has values that are no numbers, strings, true, false, null or arrays of strings"
    for index, row in enumerate(rows):
        if len(row) != count:
            return describe_wrong_width(signature, index, len(row)) + _hint_at_nesting(row)
        for feature, cell in zip(signature.features, row, strict=True):
            problem = _explain_cell(feature, cell, signature.container is Container.DATAFRAME)
            if problem is not None:
                return f"row {index}, feature {_quote_name(feature.name)}: {problem}{_hint_at_nesting(row)}"
    return _find_rounded(signature, rows) or "the rows do not fit the model's signature"


def find_wrong_feature(signature: Signature, row: Row) -> str | None:
    """Return the name of the first feature that does not take its cell of a row; None where each does."""
    is_table = signature.container is Container.DATAFRAME
    if signature.container is Container.OBJECTS or len(row) != len(signature.features):
        return None
    cells = zip(signature.features, row, strict=True)
    return next((feature.name for feature, cell in cells if _explain_cell(feature, cell, is_table) is not None), None)


def _find_rounded(signature: Signature, rows: Sequence[Row]) -> str | None:
    """Name the first integer that float64 would round, in a column that is not one of 64-bit integers."""
    for index, row in enumerate(rows):
        for place, (feature, cell) in enumerate(zip(signature.features, row, strict=True)):
            if feature.dtype is Dtype.NUMBER and is_rounded(cell):
                others = (each[place] for each in rows)
                if make_integer_column([*others]) is None:
                    return f"row {index}, feature {_quote_name(feature.name)}: {describe_rounded(cell)}"
    return None


def describe_rounded(integer: int) -> str:
    """Say that an integer would be rounded."""
    return (
        f"{describe_value(integer)} would be rounded: beyond 2**53 send 64-bit integers only for this feature, or text"
    )


def describe_wrong_width(signature: Signature, index: int, width: int) -> str:
    """Say how many values a row has, and how many the model takes."""
    values = "1 value" if width == 1 else f"{width} values"
    names = _get_feature_names(signature)
    return f"row {index} has {values}, the model takes {len(names)}: {_list_names(names)}"


def describe_wrong_kind(signature: Signature, rows: Sequence[Any]) -> str:
    """Name the first value that is not a row, or else the first row of another kind than row 0."""
    count = len(signature.features)
    is_text = signature.container is Container.TEXTS
    wanted = (
        "a string"
        if is_text
        else "an object"
        if signature.container is Container.OBJECTS
        else f"an array of {count} value{'s' * (count != 1)} or an object"
    )
    for index, row in enumerate(rows):
        if type(row) not in _ROWS.get(signature.container, _ROWS[Container.ARRAY]):
            return f"row {index} is {describe_value(row)}: a row is {wanted}{_hint_at_brackets(rows, count)}"
    index, other = next((index, row) for index, row in enumerate(rows) if type(row) is not type(rows[0]))
    return f"row {index} is {describe_value(other)}, row 0 is {describe_value(rows[0])}: send all rows in one form"


def _hint_at_nesting(row: Row) -> str:
    """Say that there is a pair of brackets too many, if all values of a row are rows themselves."""
    is_wrapped = bool(row) and set(map(type, row)) <= {list, dict}
    return "; one pair of brackets is too many" if is_wrapped else ""


def _hint_at_brackets(rows: Sequence[Any], count: int) -> str:
    """Say that brackets are missing, if all rows are plain values."""
    if not set(map(type, rows)) <= {int, float, bool, str}:
        return ""
    alone = "; one row alone is [[...]], an array in an array" if count == len(rows) else ""
    return f"{alone}; one pair of brackets is missing"


def describe_wrong_names(signature: Signature, rows: Sequence[dict[str, Any]]) -> str:
    """Name the first object whose keys are not the features: which ones are missing, and which are unknown."""
    names = _get_feature_names(signature)
    known = set(names)
    needed = [feature.name for feature in signature.features if feature.is_used]
    for index, row in enumerate(rows):
        missing = [name for name in needed if name not in row]
        unknown = [name for name in row if name not in known]
        if missing or unknown:
            parts = [f"missing {_list_names(missing)}"] if missing else []
            parts += [f"unknown {_list_names(unknown)}{_suggest_names(names, unknown)}"] if unknown else []
            return f"row {index}: {'; '.join(parts)}"
    return f"the model takes {len(names)} features: {_list_names(names)}"


def explain_number(number: int | float, dtype: Dtype) -> str | None:
    """Say why a number is not taken: not finite, beyond float64, or an integer too large for an ANY feature."""
    if isinstance(number, float):
        if math.isfinite(number):
            return None
        return f"{'NaN' if math.isnan(number) else 'Infinity' if number > 0 else '-Infinity'} is not a finite number"
    try:
        float(number)
    except OverflowError:
        return f"{describe_value(number)} is beyond the range of a 64-bit float"
    return None if dtype is Dtype.NUMBER or number in _INTEGERS else f"{describe_value(number)} does not fit 64 bits"


def is_flat(cell: dict[str, Any]) -> bool:
    """Say whether an object holds numbers, strings, bools, null, and arrays of strings only; all of it in Unicode."""
    listed = [value for values in cell.values() if type(values) is list for value in values]
    numbers = [value for value in cell.values() if type(value) in NUMBERS]
    is_known = set(map(type, cell.values())) <= _IN_OBJECTS and set(map(type, listed)) <= {str}
    return (
        is_known
        and is_unicode([*cell, *cell.values(), *listed])
        and not any(explain_number(number, Dtype.ANY) for number in numbers)
    )


def is_unicode(cells: Sequence[Any]) -> bool:
    """Say whether no string holds half a surrogate pair, which JSON can spell and UTF-8 cannot."""
    try:
        "".join([cell for cell in cells if type(cell) is str]).encode()
    except UnicodeEncodeError:
        return False
    return True


def describe_value(value: Any) -> str:
    """Describe a JSON value of any size in a few printable words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the string "{repr(shorten(value, _SHOWN_CHARACTERS))[1:-1]}"'
    if isinstance(value, list):
        return "an array"
    if isinstance(value, dict):
        return "an object"
    is_long = isinstance(value, int) and value.bit_length() > 128
    return f"an integer of {value.bit_length()} bits" if is_long else f"the number {value}"


def _explain_cell(feature: Feature, cell: Any, is_table: bool) -> str | None:
    if cell is None:
        return None if feature.nullable else f"does not take null, send {_EXPECTED[feature.dtype]}"
    if type(cell) not in list_taken_types(feature.dtype, is_table) or (
        feature.dtype is Dtype.BOOL and cell not in FLAGS
    ):
        hint = "; send it without quotes" if isinstance(cell, str) and _is_quoted(feature.dtype, cell) else ""
        return f"expected {_EXPECTED[feature.dtype]}, got {describe_value(cell)}{hint}"
    if isinstance(cell, str):
        return None if is_unicode((cell,)) else f"{describe_value(cell)} holds half a surrogate pair, which is not text"
    if isinstance(cell, bool):
        return None
    problem = explain_number(cell, feature.dtype)
    is_missing = problem is not None and feature.nullable and isinstance(cell, float)
    return f"{problem}; send null for a missing value" if is_missing else problem


def _is_quoted(dtype: Dtype, text: str) -> bool:
    if dtype is Dtype.BOOL:
        return text in ("true", "false")
    try:
        return len(text) < _SHOWN_CHARACTERS and math.isfinite(float(text))
    except ValueError:
        return False


def _suggest_names(names: Sequence[str], unknown: Sequence[str]) -> str:
    if len(names) > _MAX_SUGGESTED_FROM:
        return ""
    short = [name for name in unknown[:_SHOWN_NAMES] if len(name) <= _SHOWN_CHARACTERS]
    close = [get_close_matches(name, names, n=1) for name in short]
    found = [_quote_name(match[0]) for match in close if match]
    return f" (did you mean {', '.join(found)}?)" if found else ""


def _get_feature_names(signature: Signature) -> list[str]:
    return [feature.name for feature in signature.features]


def _list_names(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(map(_quote_name, names[:_SHOWN_NAMES])) + (f" and {more} more" if more > 0 else "")


def _quote_name(name: str) -> str:
    return repr(shorten(name, _SHOWN_CHARACTERS))
