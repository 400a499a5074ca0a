"""Comma-separated values (RFC 4180), UTF-8: quotes where needed, doubled inside of quotes; lines end in CRLF or LF.

The first line is a header if it has the features' names, in any order, and a row if its cells are what the features
take. Any other first line is a row if it has a number in it, so that the error names the wrong cell; else it is a
header. The feature decides what a cell is: a number in decimal notation; ``true`` or ``false`` in any case; a string as
it is. For a feature that takes any value, a cell is a number, else a bool, else a string. An empty cell is a missing
value if the feature may be missing, and so is ``nan`` among numbers; for other strings an empty cell is the empty
string. Empty lines are ignored. One cell has at most 131,072 characters, one row at most a megabyte.

No cells are made from a body that has the wrong size for the model: a line that is longer than a stretch is checked
before it is cut into cells, and a row that does not end is given up.
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np

from serving.api.formats.answer_columns import columns_of
from serving.domain.errors import BodyTooLarge, InvalidInput, Malformed
from serving.domain.signature import Container, Dtype, Feature, Signature
from serving.plane.prediction import Answer
from serving.rows.batch import Tensor
from serving.rows.conversion import PIECE_ROWS, YIELD_SECONDS
from serving.rows.integers import EXACT
from serving.rows.row_problems import describe_value, describe_wrong_width
from serving.rows.tables import Table

UTF8_BOM = b"\xef\xbb\xbf"
STRETCH_BYTES = 64 << 10
MOST_ROW_BYTES = 1 << 20
MOST_EMPTY_LINES = 100_000
FEW_CELLS = 1000  # beyond the right number: so few are looked at, to say what is wrong with them

_NUMBER = re.compile(r"[ \t]*[-+]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|nan|NaN|NAN)[ \t]*")
_WHOLE = re.compile(r"[-+]?[0-9]{1,20}")
_BOOLS = {"true": True, "false": False}


def read(raw: bytes, signature: Signature, most_rows: int | None = None, extra_columns: int = 0) -> Table:
    """Return the rows of a CSV body; raises Malformed for what is not CSV in UTF-8, InvalidInput for ragged lines, and
    BodyTooLarge for more rows than `most_rows`.

    There may be `extra_columns` more than the model takes. Cells that are not what their feature takes stay text, so
    that the check of the table names them.
    """
    lines = _Lines(raw, signature, extra_columns)
    try:
        first = next(lines, None)
        if first is None:
            raise InvalidInput("no rows: send at least one")
        lines.check_width(first)
        names = _header(first, signature)
        if names is None and len(first) != len(signature.features):
            raise InvalidInput(describe_wrong_width(signature, 0, len(first)))
        is_plain = b"_" not in raw and raw.isascii()
        rows = lines if names is not None else chain([first], lines)
        return _table(rows, names or first, names, is_plain, signature, most_rows)
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


class _Lines:
    """The rows of a body as lists of cells, without empty lines; with a limit on columns beyond those of the model.

    The body is decoded in stretches of a few lines: to decode all of it would hold the interpreter lock for long.
    """

    def __init__(self, raw: bytes, signature: Signature, extra_columns: int) -> None:
        self._raw = raw
        self._signature = signature
        self._most = len(signature.features) + extra_columns + FEW_CELLS
        self._count = 0
        self._empty = 0
        self._rows = csv.reader(self._physical_lines(), strict=True)

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        while True:
            row = next(self._rows)
            self._unended_bytes = 0
            if row:
                self._count += 1
                return row
            self._empty += 1
            if self._empty > MOST_EMPTY_LINES:
                raise InvalidInput(f"more than {MOST_EMPTY_LINES} empty lines; leave them out")

    def check_width(self, row: list[str]) -> None:
        """Raise InvalidInput for a row with too many cells."""
        if len(row) > self._most:
            raise InvalidInput(describe_wrong_width(self._signature, self._count - 1, len(row)))

    def _physical_lines(self) -> Iterator[str]:
        """Yield lines with their ends; a row has several where an end is in quotes."""
        raw = self._raw
        start = len(UTF8_BOM) if raw.startswith(UTF8_BOM) else 0
        self._unended_bytes = 0
        while start < len(raw):
            end = self._end_of_stretch(start)
            self._unended_bytes += end - start
            if self._unended_bytes > MOST_ROW_BYTES + STRETCH_BYTES:
                raise self._too_long()
            try:
                text = raw[start:end].decode()
            except UnicodeDecodeError as error:
                raise Malformed(f"the body is not UTF-8: {error.reason} at byte {start + error.start}") from None
            yield from io.StringIO(text, newline="")
            start = end

    def _end_of_stretch(self, start: int) -> int:
        """Return the end of a line, about a stretch further; raises InvalidInput for a line too long or too wide."""
        raw, usual = self._raw, start + STRETCH_BYTES
        if usual >= len(raw):
            return len(raw)
        end = max(raw.rfind(b"\n", start, usual), raw.rfind(b"\r", start, usual - 1)) + 1
        if end > 0:
            return end + 1 if raw[end - 1 : end + 1] == b"\r\n" else end
        end = raw.find(b"\n", usual, start + MOST_ROW_BYTES) + 1
        if end == 0 and len(raw) - start > MOST_ROW_BYTES:
            raise self._too_wide_or_long(start, start + MOST_ROW_BYTES)
        end = end or len(raw)
        if raw.find(b'"', start, end) < 0 and raw.count(b",", start, end) >= self._most:
            raise self._too_wide_or_long(start, end)
        return end

    def _too_wide_or_long(self, start: int, end: int) -> InvalidInput:
        cells = self._raw.count(b",", start, end) + 1
        if cells > self._most:
            return InvalidInput(describe_wrong_width(self._signature, self._count, cells))
        return self._too_long()

    def _too_long(self) -> InvalidInput:
        return InvalidInput(f"row {self._count} has more than {MOST_ROW_BYTES} bytes; is a quote open?")


def _header(first: list[str], signature: Signature) -> tuple[str, ...] | None:
    """Return the names in the first line, None if it is a row."""
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
    lines: Iterator[list[str]],
    first: Iterable[str],
    names: tuple[str, ...] | None,
    is_plain: bool,
    signature: Signature,
    most_rows: int | None,
) -> Table:
    """Turn lines into columns piece by piece: as text, all of them would take ten times the memory."""
    width = len(tuple(first))
    features = _features(signature, names, width)
    is_table = signature.container is Container.DATAFRAME
    converts = [_converter(feature, is_plain=is_plain, is_table=is_table) for feature in features]
    parts: list[list[Tensor]] = [[] for _ in range(width)]
    rows = 0
    while piece := list(islice(lines, PIECE_ROWS)):
        if set(map(len, piece)) != {width}:
            _refuse_ragged(piece, rows, width, "the header" if names else "row 0")
        for part, convert, cells in zip(parts, converts, zip(*piece, strict=True), strict=True):
            part.append(convert(cells))
        rows += len(piece)
        if most_rows is not None and rows > most_rows:
            raise BodyTooLarge(f"more than {most_rows} rows in one request: send them in several requests")
        _let_others(rows)
    columns = tuple(_column(part, feature) for part, feature in zip(parts, features, strict=True))
    return Table(rows, columns=columns, names=names)


def _features(signature: Signature, names: tuple[str, ...] | None, width: int) -> list[Feature | None]:
    """Return the feature of each column; None for unknown ones: they stay text, which the table's check refuses."""
    if names is None:
        return [*signature.features[:width], *[None] * (width - len(signature.features))]
    by_name = {feature.name: feature for feature in signature.features}
    return [by_name.get(name) for name in names]


def _converter(feature: Feature | None, *, is_plain: bool, is_table: bool) -> Callable[[tuple[str, ...]], Tensor]:
    if feature is None:
        return list
    if feature.dtype is Dtype.NUMBER:
        numbers = _numbers if is_plain else _checked_numbers
        return partial(_numbers_or_flags, numbers) if is_table else numbers
    if feature.dtype is Dtype.BOOL and is_table:
        return lambda cells: [(_any if _NUMBER.fullmatch(cell) else _bool)(cell) if cell else None for cell in cells]
    one = {Dtype.BOOL: _bool, Dtype.ANY: _any}.get(feature.dtype, str)
    has_empty = feature.dtype is Dtype.STRING and not feature.nullable
    return lambda cells: [one(cell) if cell or has_empty else None for cell in cells]


def _numbers(cells: tuple[str, ...]) -> Tensor:
    """Return float64, or a list when some cell is empty or no number. For plain text: Python also reads ``1_0``."""
    try:
        numbers = np.array(list(map(float, cells)))
    except ValueError:
        return _checked_numbers(cells)
    return _checked_numbers(cells) if (np.abs(numbers) > EXACT).any() else numbers


def _numbers_or_flags(numbers: Callable[[tuple[str, ...]], Tensor], cells: tuple[str, ...]) -> Tensor:
    """Return numbers; in a table ``true`` and ``false`` are numbers, too, for the check of the table."""
    found = numbers(cells)
    return found if isinstance(found, np.ndarray) else [_bool(one) if isinstance(one, str) else one for one in found]


def _checked_numbers(cells: tuple[str, ...]) -> Tensor:
    """Return a list: None for empty cells, text as it is, integers where float64 would round them."""
    return [None if not cell else _number(cell) if _NUMBER.fullmatch(cell) else cell for cell in cells]


def _number(cell: str) -> float | int:
    is_large = abs(number := float(cell)) > EXACT
    return int(cell) if is_large and _WHOLE.fullmatch(cell.strip()) else number


def _bool(cell: str) -> bool | str:
    return _BOOLS.get(cell.lower(), cell)


def _any(cell: str) -> Any:
    if _WHOLE.fullmatch(cell):
        return int(cell) or (-0.0 if cell[0] == "-" else 0)
    return float(cell) if _NUMBER.fullmatch(cell) else _bool(cell)


def _joined(parts: list[Tensor]) -> Tensor:
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if arrays and len(arrays) == len(parts):
        return np.concatenate(arrays)
    return [value for part in parts for value in (part.tolist() if isinstance(part, np.ndarray) else part)]


def _column(parts: list[Tensor], feature: Feature | None) -> Tensor:
    joined = _joined(parts)
    is_number = feature is not None and feature.dtype is Dtype.NUMBER
    return _as_integers(joined) if is_number and isinstance(joined, list) else joined


def _as_integers(values: list[Any]) -> list[Any]:
    """Return whole numbers as integers where one of them has to be: CSV does not tell ``5`` from ``5.0``."""
    if set(map(type, values)) != {int, float}:
        return values
    is_whole = all(value.is_integer() for value in values if type(value) is float)
    return list(map(int, values)) if is_whole else values


def _refuse_ragged(piece: list[list[str]], before: int, width: int, what: str) -> None:
    row, line = next((row, line) for row, line in enumerate(piece, before) if len(line) != width)
    raise InvalidInput(
        f"row {row}, which begins with {describe_value(line[0])}, has {len(line)} cells, {what} has {width}"
    )


# --- writing ----------------------------------------------------------------------------------------------------------


def _cells(column: Tensor) -> list[Any]:
    values = column.tolist() if isinstance(column, np.ndarray) else column
    if any(isinstance(value, bool) for value in values):
        return [("true" if value else "false") if isinstance(value, bool) else value for value in values]
    return values


def _let_others(rows: int) -> None:
    """Let other threads in between two pieces of many: see `serving.rows.conversion`."""
    if rows > PIECE_ROWS:
        time.sleep(YIELD_SECONDS)
