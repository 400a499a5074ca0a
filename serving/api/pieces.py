"""Large native bodies, read piece by piece in a worker thread.

A parser holds the interpreter lock from its first byte to its last: 16 MiB in one go stall the event loop for 300 ms,
whichever thread they are in. So the rows of `instances` are found first: by searching for ``],`` where there are no
strings, which is quick and may be wrong about a body that is wrong itself; by numpy, which lets go of the lock, where
there are. Then each run of rows is parsed, converted and dropped before the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from serving.api.numbers import NumberReader, count_arrays
from serving.api.predict_body import parse, rows_of, strings_in
from serving.api.strict_json import MAX_DEPTH, count_strings, loads, refuse_repeats, with_repeats
from serving.conversion import Piece
from serving.domain.errors import InvalidInput, NotJson
from serving.domain.tables import Table
from serving.prediction import PredictRequest

LARGE_BYTES = 128 << 10
PIECE_BYTES = 64 << 10
WINDOW_BYTES = 1 << 20

_USUAL = b'{"instances":'
_HEAD_BYTES, _TAIL_BYTES = 64, 64

_QUOTE, _COMMA = ord('"'), ord(",")
_STEPS = np.zeros(256, np.int8)
_STEPS[[ord("["), ord("{")]] = 1
_STEPS[[ord("]"), ord("}")]] = -1


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
    ) -> None:
        self._raw = raw
        self._max_depth = max_depth
        self._cuts = cuts
        self._is_guess = is_guess
        self._count = sum(rows for _, _, rows in cuts)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Piece]:
        """Parse piece after piece; raises NotJson or InvalidInput (a repeated key)."""
        numbers = NumberReader()
        if self._is_guess:
            yield from self._guessed(numbers)
            return
        first_row = 0
        for start, end, count in self._cuts:
            fragment = b"[" + self._raw[start:end] + b"]"
            matrix = numbers.matrix(fragment)
            if matrix is not None and len(matrix) == count:
                yield Piece(partial(orjson.loads, fragment), False, matrix)
                first_row += count
                continue
            rows = loads(fragment, start, self._max_depth)
            if len(rows) != count:
                raise NotJson(f"the body is not JSON: a row is missing between two commas near byte {start}")
            if fragment.count(b'"') and count_strings(fragment) != strings_in(rows):
                refuse_repeats(with_repeats(fragment, self._max_depth), first_row)
            yield Piece(rows, b"true" in fragment or b"false" in fragment)
            first_row += count

    def _guessed(self, numbers: NumberReader) -> Iterator[Piece]:
        """Parse where the cuts were searched for; what does not come out as rows is found out about the other way."""
        done = 0
        for start, end, count in self._cuts:
            fragment = b"[" + self._raw[start:end] + b"]"
            matrix = numbers.matrix(fragment)
            if matrix is not None:
                yield Piece(partial(orjson.loads, fragment), False, matrix)
                done += count
                continue
            try:
                rows = orjson.loads(fragment)
            except orjson.JSONDecodeError:
                break
            if not rows or len(rows) != count:  # none: a comma after the last row
                break
            yield Piece(rows, b"e" in fragment)
            done += count
        else:
            return
        found = _precise(self._raw, self._max_depth).rows  # raises where the body is wrong, or has what no model takes
        assert not isinstance(found, Table)  # that is for other formats
        for piece in [Piece(found)] if isinstance(found, list) else found:
            rows = piece.rows[max(0, done) :]
            done -= len(piece.rows)
            if rows:
                yield Piece(rows, piece.may_contain_bools)


def parse_large(raw: bytes, max_depth: int = MAX_DEPTH) -> PredictRequest:
    """Read a whole body without holding the interpreter lock for long; raises NotJson or InvalidInput. Any thread.

    Bodies that are not one long array of rows are read in one go like any other.
    """
    cuts = _search(raw)
    if cuts is not None:
        return PredictRequest(RowPieces(raw, cuts, max_depth=max_depth, is_guess=True), None)
    return _precise(raw, max_depth)


def split(raw: bytes, max_depth: int = MAX_DEPTH) -> tuple[bytes, RowPieces] | None:
    """Take the elements of the only container at depth 2 out of a large body: what is left, and they as pieces.

    None where there is no such container, or a small one. Whether it is an array is for the caller to see. Raises
    NotJson for a body that nests too deep.
    """
    layout = _find_rows(raw, max_depth)
    if layout is None or layout.end - layout.start < PIECE_BYTES:
        return None
    return raw[: layout.start] + raw[layout.end :], RowPieces(raw, _cuts(layout), max_depth=max_depth)


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
    layout = _find_rows(raw, max_depth)
    if layout is None or layout.end - layout.start < PIECE_BYTES:
        return parse(raw, max_depth)
    envelope = raw[: layout.start] + raw[layout.end :]
    try:
        document = loads(envelope, max_depth=max_depth)
        rows, is_single = rows_of(document)
    except (NotJson, InvalidInput):
        return parse(raw, max_depth)
    if is_single or rows or (not layout.commas.size and not raw[layout.start : layout.end].strip()):
        return parse(raw, max_depth)
    if count_strings(envelope) != len(document) + (document.get("method") is not None):
        refuse_repeats(with_repeats(envelope, max_depth))
    return PredictRequest(RowPieces(raw, _cuts(layout), max_depth=max_depth), document.get("method"))


class _Layout(NamedTuple):
    """Where the only container at depth 2 has its content, and the commas between its elements."""

    start: int
    end: int
    commas: NDArray[np.int64]


def _find_rows(raw: bytes, max_depth: int) -> _Layout | None:
    text = raw
    if b"\\" in raw:  # same length, so that positions hold; what is left of quotes begins or ends a string
        text = raw.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    is_inside, depth = np.bool_(False), np.int32(0)
    opened, closed, commas = [], [], []
    for start in range(0, len(text), WINDOW_BYTES):
        codes = np.frombuffer(text, np.uint8, min(WINDOW_BYTES, len(text) - start), start)
        inside = np.logical_xor.accumulate(codes == _QUOTE) ^ is_inside
        steps = _STEPS[codes]
        steps[inside] = 0
        depths = np.cumsum(steps, dtype=np.int32) + depth
        if depths.max() > max_depth:
            raise NotJson(f"the body is nested deeper than {max_depth} levels")
        is_two = depths == 2
        opened.append(np.flatnonzero(is_two & (steps == 1)) + start)
        closed.append(np.flatnonzero((depths == 1) & (steps == -1)) + start)
        commas.append(np.flatnonzero(is_two & (codes == _COMMA) & ~inside) + start)
        is_inside, depth = inside[-1], depths[-1]
    begins, ends = np.concatenate(opened), np.concatenate(closed)
    if len(begins) != 1 or len(ends) != 1:
        return None
    return _Layout(int(begins[0]) + 1, int(ends[0]), np.concatenate(commas))


def _cuts(layout: _Layout) -> list[tuple[int, int, int]]:
    wanted = np.arange(layout.start + PIECE_BYTES, layout.end, PIECE_BYTES)
    chosen: Any = np.unique(np.searchsorted(layout.commas, wanted))
    chosen = chosen[chosen < len(layout.commas)]
    found = []
    start, before = layout.start, -1
    for index in chosen.tolist():
        comma = int(layout.commas[index])
        found.append((start, comma, index - before))
        start, before = comma + 1, index
    found.append((start, layout.end, len(layout.commas) - before))
    return found
