"""A long array of a body, still as text, whose elements are parsed piece by piece in a worker thread.

A parser holds the interpreter lock from its first byte to its last: 16 MiB in one go stall the event loop for 300 ms,
in any thread. So the text is cut into pieces, and each is parsed, converted and dropped before the next. Where to cut
is guessed first: after ``],``, which ends a row of numbers. A piece of a wrong guess cannot be parsed, or has another
number of rows than of brackets; from there on the text is cut by its structure (`brackets`), which takes longer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from serving.api.json_bodies.brackets import Array, count_values, find_arrays
from serving.api.json_bodies.number_reader import NumberReader, count_byte
from serving.api.json_bodies.strict_json import loads, parsed, refuse_repeated_keys
from serving.domain.errors import InvalidInput, NotJson
from serving.rows.conversion import YIELD_EVERY_SECONDS, YIELD_SECONDS, Piece

PIECE_BYTES = 64 << 10
COLUMN_BYTES = 256  # the least of an array in an object in the body that is not parsed with the rest
BLANKS = b" \t\n\r"  # of JSON; bytes.strip takes more for blanks
MOST_BLANKS = 64  # in front of the first value; an array with more is read more slowly
# A row is parsed when no cell costs more than this, and it has at most a few more cells than there are features.
FEW_VALUES, LONG_ROW_COST = 1000, 6

Cuts = list[tuple[int, int, int]]
"""Where each piece begins and ends, and how many elements it has."""


class LongArray:
    """The elements of an array, between two positions of a body.

    `depth` is the array's depth in the body, 2 for a value of the outermost object. `commas`: where its elements end,
    if that is known. Used by one thread at a time, not the event loop's.
    """

    def __init__(
        self, raw: bytes, max_depth: int, start: int, end: int, depth: int, commas: NDArray[np.int32] | None = None
    ) -> None:
        self._raw = raw
        self._start = start
        self._end = end
        self._depth = depth
        self._max_depth = max_depth
        self._width: int | None = None
        self._cuts = None if commas is None else _cut(raw, Array(start, end, commas))

    def __len__(self) -> int:
        """The number of elements; too high if they are arrays in arrays, which no model takes."""
        if self._cuts is not None:
            return sum(count for _, _, count in self._cuts)
        if self.is_nested:
            return count_byte(self._raw, b"[", self._start, self._end)
        return count_byte(self._raw, b",", self._start, self._end) + 1

    @property
    def is_nested(self) -> bool:
        """Whether the first element is an array."""
        return begins_with_array(self._raw, self._start)

    def of_width(self, width: int) -> LongArray:
        """Return the same elements, but refuse to parse a long one with far more values than `width`."""
        same = self._copy()
        same._width = width
        return same

    def cut_exactly(self) -> LongArray:
        """Return the same elements, counted and cut by the structure of the text. Raises NotJson."""
        same = self._copy()
        if same._cuts is None:
            same._cuts = self._cuts_from(self._start)
        return same

    def read_numbers(self) -> NDArray[np.float64] | None:
        """Return plain numbers, shape (elements,), or arrays of equal length of them, shape (elements, columns).

        None for anything else. Blocks; other threads get their turn: see `serving.rows.conversion`.
        """
        reader = NumberReader()
        read = reader.read_matrix if self.is_nested else reader.read_vector
        found = []
        began = time.perf_counter()
        for begin, end in self._guess():
            array = read(b"[" + self._raw[begin:end] + b"]")
            if array is None or not len(array):  # nothing between two commas
                return None
            found.append(array)
            if time.perf_counter() - began > YIELD_EVERY_SECONDS:
                time.sleep(YIELD_SECONDS)
                began = time.perf_counter()
        if len({array.shape[1:] for array in found}) != 1:
            return None
        return found[0] if len(found) == 1 else np.concatenate(found)

    def __iter__(self) -> Iterator[Piece]:
        """Parse piece after piece. Raises NotJson or InvalidInput (a repeated key, a row far too long)."""
        start, done = self._start, 0
        if self._cuts is None:
            reader = NumberReader() if self.is_nested else None
            for begin, end in self._guess():
                piece = self._parse_guess(reader, begin, end)
                if piece is None:
                    break
                yield piece[0]
                start, done = end + 1, done + piece[1]
            else:
                return
        cuts = self._cuts_from(start) if self._cuts is None else self._cuts
        for begin, end, count in cuts:
            yield Piece(self._parse_exactly(begin, end, count, done))
            done += count

    def _copy(self) -> LongArray:
        same = LongArray(self._raw, self._max_depth, self._start, self._end, self._depth)
        same._width, same._cuts = self._width, self._cuts
        return same

    def _guess(self) -> Iterator[tuple[int, int]]:
        mark = b"]," if self.is_nested else b","
        start = self._start
        while self._end - start > PIECE_BYTES:
            found = self._raw.find(mark, start + PIECE_BYTES, self._end)
            if found < 0:
                break
            comma = found + len(mark) - 1
            yield start, comma
            start = comma + 1
        yield start, self._end

    def _parse_guess(self, reader: NumberReader | None, begin: int, end: int) -> tuple[Piece, int] | None:
        """Return a piece and its number of elements; None if the guess was wrong."""
        if end - begin > 2 * PIECE_BYTES:
            return None
        fragment = b"[" + self._raw[begin:end] + b"]"
        matrix = None if reader is None else reader.read_matrix(fragment)
        if matrix is not None:
            return Piece(partial(parsed, fragment), matrix), len(matrix)
        try:
            rows = parsed(fragment)
        except orjson.JSONDecodeError:
            return None
        is_right = rows and count_byte(fragment, b"[") == 1 + (0 if reader is None else len(rows))
        return (Piece(rows), len(rows)) if is_right else None

    def _cuts_from(self, start: int) -> Cuts:
        """Cut the rest of the text from a position where an element begins. Raises NotJson."""
        text = b"[" + self._raw[start : self._end] + b"]"
        arrays = find_arrays(text, self._depth, 0, self._max_depth, self._depth - 1)
        if len(arrays) != 1 or arrays[0].end != len(text) - 1:
            raise NotJson(f"the body is not JSON: the brackets of an array do not match near byte {start}")
        array = Array(start, self._end, arrays[0].commas + np.int32(start - 1))
        cuts = _cut(self._raw, array)
        if start > self._start and not cuts:
            raise NotJson(f"the body is not JSON: a row is missing behind a comma near byte {start}")
        return cuts

    def _parse_exactly(self, begin: int, end: int, count: int, before: int) -> list[Any]:
        """Parse a piece of `count` elements, with `before` elements in front of it."""
        fragment = b"[" + self._raw[begin:end] + b"]"
        if self._width is not None and count == 1 and len(fragment) > PIECE_BYTES:
            self._refuse_long_row(fragment, before, self._width)
        rows: list[Any] = loads(fragment, self._max_depth, lambda place: begin + place - 1)
        if len(rows) != count:
            raise NotJson(f"the body is not JSON: a row is missing between two commas near byte {begin}")
        if b'"' in fragment:
            refuse_repeated_keys(fragment, rows, self._max_depth, before)
        return rows

    def _refuse_long_row(self, fragment: bytes, row: int, width: int) -> None:
        """Raise InvalidInput for a row, in brackets, that has far more values than the model takes."""
        found = count_values(fragment, self._max_depth)
        if found.cost > LONG_ROW_COST * (width + FEW_VALUES):
            raise InvalidInput(f"row {row} has {found.commas + 1} values, the model takes {width}")


def begins_with_array(raw: bytes, start: int) -> bool:
    """Say whether an array begins at a position of a text."""
    return raw[start : start + MOST_BLANKS].lstrip(BLANKS)[:1] == b"["


def _cut(raw: bytes, array: Array) -> Cuts:
    commas = array.commas
    if not commas.size and not raw[array.start : array.end].strip(BLANKS):
        return []
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
        comma = int(commas[index])
        found.append((start, comma, index - before))
        start, before = comma + 1, index
    found.append((start, array.end, len(commas) - before))
    return found
