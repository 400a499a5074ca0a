"""Large native bodies, read piece by piece in a worker thread.

A parser holds the interpreter lock from its first byte to its last: 16 MiB in one go stall the event loop for 300 ms,
whichever thread they are in. So the rows of `instances` are found first: by searching for ``],`` where there are no
strings, which is quick and may be wrong about a body that is wrong itself; else by their structure
(`serving.api.structure`). Then each run of rows is parsed, converted and dropped before the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import orjson

from serving.api.numbers import NumberReader, count_arrays
from serving.api.predict_body import parse, rows_of, strings_in
from serving.api.strict_json import MAX_DEPTH, count_strings, loads, parsed, refuse_repeats, with_repeats
from serving.api.structure import MOST_VALUES, WINDOW_BYTES, Array, count_values, find_arrays, refuse_many_values
from serving.domain.errors import InvalidInput, NotJson
from serving.plane.prediction import PredictRequest
from serving.rows.conversion import Piece
from serving.rows.tables import Table

LARGE_BYTES = 128 << 10
PIECE_BYTES = 64 << 10
# A row of which no cell costs more than this, and has no more cells than there are features and a few, is parsed.
FEW_VALUES, LONG_ROW_COST = 1000, 6

_USUAL = b'{"instances":'
_HEAD_BYTES, _TAIL_BYTES = 64, 64
_ADVICE = 'send rows as {"instances": [row, ...]}'


class RowPieces:
    """The rows of one body, still as text: `cuts` holds start, end and number of rows of each piece.

    `is_guess` says that the cuts were searched for and hold for rows of plain numbers only.
    """

    def __init__(
        self,
        raw: bytes,
        cuts: list[tuple[int, int, int]],
        *,
        max_depth: int = MAX_DEPTH,
        is_guess: bool = False,
        width: int | None = None,
    ) -> None:
        self._raw = raw
        self._width = width
        self._max_depth = max_depth
        self._cuts = cuts
        self._is_guess = is_guess
        self._count = sum(rows for _, _, rows in cuts)

    def __len__(self) -> int:
        return self._count

    def of_width(self, width: int) -> RowPieces:
        """Return the same rows, of which none is parsed that is long and has far more values than `width`."""
        return RowPieces(self._raw, self._cuts, max_depth=self._max_depth, is_guess=self._is_guess, width=width)

    def __iter__(self) -> Iterator[Piece]:
        """Parse piece after piece; raises NotJson or InvalidInput (a repeated key, a row far too long)."""
        numbers = NumberReader()
        if self._is_guess:
            yield from self._guessed(numbers)
            return
        first_row = 0
        for start, end, count in self._cuts:
            fragment = b"[" + self._raw[start:end] + b"]"
            if self._width is not None and count == 1 and len(fragment) > PIECE_BYTES:
                _refuse_long_row(fragment, first_row, self._width, self._max_depth)
            matrix = numbers.matrix(fragment)
            if matrix is not None and len(matrix) == count:
                yield Piece(partial(parsed, fragment), matrix)
                first_row += count
                continue
            rows = loads(fragment, start, self._max_depth)
            if len(rows) != count:
                raise NotJson(f"the body is not JSON: a row is missing between two commas near byte {start}")
            if fragment.count(b'"') and count_strings(fragment) != strings_in(rows):
                refuse_repeats(with_repeats(fragment, self._max_depth), first_row)
            yield Piece(rows)
            first_row += count

    def _guessed(self, numbers: NumberReader) -> Iterator[Piece]:
        """Parse where the cuts were searched for; what does not come out as rows is found out about the other way."""
        done = 0
        for start, end, count in self._cuts:
            fragment = b"[" + self._raw[start:end] + b"]"
            matrix = numbers.matrix(fragment)
            if matrix is not None:
                yield Piece(partial(parsed, fragment), matrix)
                done += count
                continue
            try:
                rows = parsed(fragment)
            except orjson.JSONDecodeError:
                break
            if not rows or len(rows) != count:  # none: a comma after the last row
                break
            yield Piece(rows)
            done += count
        else:
            return
        found = _precise(self._raw, self._max_depth).rows  # raises where the body is wrong, or has what no model takes
        if isinstance(found, RowPieces) and self._width is not None:
            found = found.of_width(self._width)
        assert not isinstance(found, Table)  # that is for other formats
        for piece in [Piece(found)] if isinstance(found, list) else found:
            rows = piece.rows[max(0, done) :]
            done -= len(piece.rows)
            if rows:
                yield Piece(rows)


def parse_large(raw: bytes, max_depth: int = MAX_DEPTH) -> PredictRequest:
    """Read a whole body without holding the interpreter lock for long; raises NotJson or InvalidInput. Any thread.

    Bodies that are not one long array of rows are read in one go like any other.
    """
    cuts = _search(raw)
    if cuts is not None:
        return PredictRequest(RowPieces(raw, cuts, max_depth=max_depth, is_guess=True), None)
    return _precise(raw, max_depth)


def pieces_of(raw: bytes, array: Array, max_depth: int = MAX_DEPTH) -> RowPieces:
    """Return the elements of an array in a text as rows."""
    return RowPieces(raw, _cuts(raw, array), max_depth=max_depth)


def _search(raw: bytes) -> list[tuple[int, int, int]] | None:
    """Cut ``{"instances":[[...],[...]]}`` after every so many bytes; None for anything that looks otherwise."""
    start = raw.find(b"[", 0, _HEAD_BYTES) + 1
    if not start or raw[: start - 1].replace(b" ", b"") != _USUAL:
        return None
    if raw.find(b'"', start) >= 0 or raw.find(b"{", start) >= 0:
        return None
    end = raw.rfind(b"]", len(raw) - _TAIL_BYTES)
    if end < start or raw[end:].split() not in ([b"]}"], [b"]", b"}"]):
        return None
    found = []
    while end - start > PIECE_BYTES:
        comma = raw.find(b"],", start + PIECE_BYTES, end) + 1
        if not comma or comma - start > 2 * PIECE_BYTES:
            break
        found.append((start, comma, count_arrays(raw, start, comma)))
        start = comma + 1
    if end - start > 2 * PIECE_BYTES:
        return None
    return [*found, (start, end, count_arrays(raw, start, end))]


def _precise(raw: bytes, max_depth: int) -> PredictRequest:
    arrays = find_arrays(raw, 2, PIECE_BYTES, max_depth, WINDOW_BYTES)
    if len(arrays) != 1:
        return _parse_bounded(raw, max_depth)
    (array,) = arrays
    envelope = raw[: array.start] + raw[array.end :]
    refuse_many_values(envelope, max_depth, _ADVICE)
    try:
        document = loads(envelope, max_depth=max_depth)
    except NotJson:
        return _parse_bounded(raw, max_depth)
    try:
        rows, is_single = rows_of(document)
    except InvalidInput:
        if count_values(raw, max_depth).cost > MOST_VALUES:
            raise
        return parse(raw, max_depth)  # it may be no JSON either, which is said first
    if is_single or rows or not _holds_elements(raw, array):
        return _parse_bounded(raw, max_depth)
    if count_strings(envelope) != len(document) + (document.get("method") is not None):
        refuse_repeats(with_repeats(envelope, max_depth))
    return PredictRequest(pieces_of(raw, array, max_depth), document.get("method"))


def _parse_bounded(raw: bytes, max_depth: int) -> PredictRequest:
    refuse_many_values(raw, max_depth, _ADVICE)
    return parse(raw, max_depth)


def _holds_elements(raw: bytes, array: Array) -> bool:
    return bool(array.commas.size) or bool(raw[array.start : array.end].strip())


def _refuse_long_row(fragment: bytes, row: int, width: int, max_depth: int) -> None:
    """Raise InvalidInput for a row, in brackets, that has far more values than the model takes."""
    found = count_values(fragment, max_depth + 1)
    if found.cost > LONG_ROW_COST * (width + FEW_VALUES):
        raise InvalidInput(f"row {row} has {found.commas + 1} values, the model takes {width}")


def _cuts(raw: bytes, array: Array) -> list[tuple[int, int, int]]:
    if not _holds_elements(raw, array):
        return []
    commas = array.commas
    if not commas.size or array.end - array.start <= PIECE_BYTES:
        return [(array.start, array.end, len(commas) + 1)]
    wanted = np.arange(array.start + PIECE_BYTES, array.end, PIECE_BYTES, dtype=np.int32)
    holding = np.unique(np.searchsorted(commas, wanted))  # the elements these places are in: among them all long ones
    begins = np.where(holding > 0, commas[holding - 1], array.start)
    ends = np.where(holding < len(commas), commas[np.minimum(holding, len(commas) - 1)], array.end)
    long = holding[ends - begins > PIECE_BYTES]  # each in a piece of its own
    chosen = np.unique(np.concatenate([holding, long - 1]))
    chosen = chosen[(chosen >= 0) & (chosen < len(commas))]
    found = []
    start, before = array.start, -1
    for index in chosen.tolist():
        comma = int(array.commas[index])
        found.append((start, comma, index - before))
        start, before = comma + 1, index
    found.append((start, array.end, len(array.commas) - before))
    return found
