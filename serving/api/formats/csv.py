"""Comma-separated values (RFC 4180), UTF-8: quotes where needed, doubled inside of quotes; lines end in CRLF or LF.

The first line is a header when it has the features' names, in any order, and a row when its cells are what the features
take. Anything else is a row when there is a number in it, so that the cell at fault is named, and a header else.
Cells are what their feature says: numbers in decimal notation; ``true`` and ``false`` in any case; strings as they are.
A feature that takes anything has a number, a bool or a string, whichever fits first. An empty cell is a missing value
where the feature may be missing, ``nan`` is too among numbers; for other strings an empty cell is the empty string.
Empty lines do not count. One cell has at most 131,072 characters.
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np

from serving.api.formats.columns import columns_of
from serving.conversion import PIECE_ROWS, YIELD_SECONDS
from serving.domain.batch import Tensor
from serving.domain.errors import InvalidInput, Malformed
from serving.domain.row_problems import shown
from serving.domain.signature import Dtype, Feature, Signature
from serving.domain.tables import Table
from serving.prediction import Answer

_NUMBER = re.compile(r"[ \t]*[-+]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|nan|NaN|NAN)[ \t]*")
_WHOLE = re.compile(r"[-+]?[0-9]{1,19}")
_BOOLS = {"true": True, "false": False}


def read(raw: bytes, signature: Signature) -> Table:
    """Return the rows of a CSV body; raises Malformed for what is not CSV in UTF-8, InvalidInput for ragged lines.

    Cells that are not what their feature takes are left as text, for the table's own check to name them.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    lines = _lines(text)
    try:
        first = next(lines, None)
        if first is None:
            raise InvalidInput("no rows: send at least one")
        names = _header(first, signature)
        return _table(lines if names is not None else chain([first], lines), names or first, names, text, signature)
    except csv.Error as error:
        raise Malformed(f"the body is not CSV: {error}") from None


def write(answer: Answer, signature: Signature) -> bytes:
    """Return a header and a line for each row, ending in CRLF. Numbers are written so that they read back the same."""
    columns = columns_of(answer, signature)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([name for name, _ in columns])
    for start in range(0, answer.rows, PIECE_ROWS):
        writer.writerows(zip(*(_cells(column[start : start + PIECE_ROWS]) for _, column in columns), strict=True))
        _let_others(answer.rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


# --- reading ----------------------------------------------------------------------------------------------------------


def _lines(text: str) -> Iterator[list[str]]:
    return filter(None, csv.reader(io.StringIO(text, newline=""), strict=True))


def _header(first: list[str], signature: Signature) -> tuple[str, ...] | None:
    """Return the names in the first line, None when it is a row already."""
    features = signature.features
    if {feature.name for feature in features} == set(first):
        return tuple(first)
    is_row = len(first) == len(features) and all(
        _fits(feature, cell) for feature, cell in zip(features, first, strict=True)
    )
    return None if is_row or any(_NUMBER.fullmatch(cell) for cell in first) else tuple(first)


def _fits(feature: Feature, cell: str) -> bool:
    if not cell:
        return feature.nullable
    if feature.dtype is Dtype.NUMBER:
        return _NUMBER.fullmatch(cell) is not None
    return feature.dtype is not Dtype.BOOL or cell.lower() in _BOOLS


def _table(
    lines: Iterator[list[str]] | chain[list[str]],
    first: Iterable[str],
    names: tuple[str, ...] | None,
    text: str,
    signature: Signature,
) -> Table:
    """Turn lines into columns piece by piece: as text, all of them would take ten times the room."""
    width = len(tuple(first))
    converts = _converters(signature, names, width, is_plain="_" not in text and text.isascii())
    parts: list[list[Tensor]] = [[] for _ in range(width)]
    rows = 0
    while piece := list(islice(lines, PIECE_ROWS)):
        if set(map(len, piece)) != {width}:
            _refuse_ragged(piece, rows, width, "the header" if names else "row 0")
        for part, convert, cells in zip(parts, converts, zip(*piece, strict=True), strict=True):
            part.append(convert(cells))
        rows += len(piece)
        _let_others(rows)
    return Table(rows, columns=tuple(map(_joined, parts)), names=names)


def _converters(
    signature: Signature, names: tuple[str, ...] | None, width: int, *, is_plain: bool
) -> list[Callable[[tuple[str, ...]], Tensor]]:
    """Return what to do with each column; those nobody knows stay text, and the table's own check refuses them."""
    by_name = {feature.name: feature for feature in signature.features}
    features: list[Feature | None]
    if names is not None:
        features = [by_name.get(name) for name in names]
    else:
        features = [*signature.features[:width], *[None] * (width - len(signature.features))]
    return [_converter(feature, is_plain=is_plain) for feature in features]


def _converter(feature: Feature | None, *, is_plain: bool) -> Callable[[tuple[str, ...]], Tensor]:
    if feature is None:
        return list
    if feature.dtype is Dtype.NUMBER:
        return _numbers if is_plain else _checked_numbers
    one = {Dtype.BOOL: _bool, Dtype.ANY: _any}.get(feature.dtype, str)
    has_empty = feature.dtype is Dtype.STRING and not feature.nullable
    return lambda cells: [one(cell) if cell or has_empty else None for cell in cells]


def _numbers(cells: tuple[str, ...]) -> Tensor:
    """Return float64, or a list when some cell is empty or no number. For plain text: Python also reads ``1_0``."""
    try:
        return np.array(list(map(float, cells)))
    except ValueError:
        return _checked_numbers(cells)


def _checked_numbers(cells: tuple[str, ...]) -> Tensor:
    return [None if not cell else float(cell) if _NUMBER.fullmatch(cell) else cell for cell in cells]


def _bool(cell: str) -> bool | str:
    return _BOOLS.get(cell.lower(), cell)


def _any(cell: str) -> Any:
    if _WHOLE.fullmatch(cell):
        return int(cell)
    return float(cell) if _NUMBER.fullmatch(cell) else _bool(cell)


def _joined(parts: list[Tensor]) -> Tensor:
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if arrays and len(arrays) == len(parts):
        return np.concatenate(arrays)
    return [value for part in parts for value in (part.tolist() if isinstance(part, np.ndarray) else part)]


def _refuse_ragged(piece: list[list[str]], before: int, width: int, what: str) -> None:
    row, line = next((row, line) for row, line in enumerate(piece, before) if len(line) != width)
    raise InvalidInput(f"row {row}, which begins with {shown(line[0])}, has {len(line)} cells, {what} has {width}")


# --- writing ----------------------------------------------------------------------------------------------------------


def _cells(column: Tensor) -> list[Any]:
    values = column.tolist() if isinstance(column, np.ndarray) else column
    if any(isinstance(value, bool) for value in values):
        return [("true" if value else "false") if isinstance(value, bool) else value for value in values]
    return values


def _let_others(rows: int) -> None:
    """Let other threads in between two pieces of many: see `serving.conversion`."""
    if rows > PIECE_ROWS:
        time.sleep(YIELD_SECONDS)
