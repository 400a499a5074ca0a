"""Large native bodies, read piece by piece in a worker thread.

A parser holds the interpreter lock from its first byte to its last: 16 MiB in one go stall the event loop for 300 ms,
whichever thread they are in. So numpy, which lets go of the lock, finds where the rows of `instances` begin and end;
then each run of rows is parsed, converted and dropped before the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.api.predict_body import parse, rows_of, strings_in
from serving.api.strict_json import MAX_DEPTH, count_strings, loads, refuse_repeats, with_repeats
from serving.domain.errors import InvalidInput, NotJson
from serving.prediction import Piece, PredictRequest

LARGE_BYTES = 128 << 10
PIECE_BYTES = 32 << 10
WINDOW_BYTES = 1 << 20

_QUOTE, _COMMA = ord('"'), ord(",")
_STEPS = np.zeros(256, np.int8)
_STEPS[[ord("["), ord("{")]] = 1
_STEPS[[ord("]"), ord("}")]] = -1


class RowPieces:
    """The rows of one body, still as text: `cuts` holds start, end and number of rows of each piece."""

    def __init__(self, raw: bytes, cuts: list[tuple[int, int, int]]) -> None:
        self._raw = raw
        self._cuts = cuts
        self._count = sum(rows for _, _, rows in cuts)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Piece]:
        """Parse piece after piece; raises NotJson or InvalidInput (a repeated key)."""
        first_row = 0
        for start, end, count in self._cuts:
            fragment = b"[" + self._raw[start:end] + b"]"
            rows = loads(fragment, offset=start)
            if len(rows) != count:
                raise NotJson(f"the body is not JSON: a row is missing between two commas near byte {start}")
            if fragment.count(b'"') and count_strings(fragment) != strings_in(rows):
                refuse_repeats(with_repeats(fragment), first_row)
            yield Piece(rows, b"true" in fragment or b"false" in fragment)
            first_row += count


def parse_large(raw: bytes) -> PredictRequest:
    """Read a whole body without holding the interpreter lock for long; raises NotJson or InvalidInput. Any thread.

    Bodies that are not one long array of rows are read in one go like any other.
    """
    layout = _find_rows(raw)
    if layout is None or layout.end - layout.start < PIECE_BYTES:
        return parse(raw)
    envelope = raw[: layout.start] + raw[layout.end :]
    try:
        document = loads(envelope)
        rows, is_single = rows_of(document)
    except (NotJson, InvalidInput):
        return parse(raw)
    if is_single or rows or (not layout.commas.size and not raw[layout.start : layout.end].strip()):
        return parse(raw)
    if count_strings(envelope) != len(document) + (document.get("method") is not None):
        refuse_repeats(with_repeats(envelope))
    return PredictRequest(RowPieces(raw, _cuts(layout)), document.get("method"))


class _Layout(NamedTuple):
    """Where the only container at depth 2 has its content, and the commas between its elements."""

    start: int
    end: int
    commas: NDArray[np.int64]


def _find_rows(raw: bytes) -> _Layout | None:
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
        if depths.max() > MAX_DEPTH:
            raise NotJson(f"the body is nested deeper than {MAX_DEPTH} levels")
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
