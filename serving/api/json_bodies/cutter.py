"""Reads JSON bodies: small ones are parsed whole; from large ones, long arrays are cut out of the text first.

A name that cannot be guessed replaces each long array, the rest is parsed, and a `LongArray` replaces the name. The
first attempt is quick: it looks for numbers under the protocol's keys, up to the bracket after the last number. If that
was wrong (part of a string, for example), the rest is not JSON, or the name is not where an array may be. Then arrays
are found by the structure of the text (`brackets`).
"""

from __future__ import annotations

import re
import secrets
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from serving.api.json_bodies.brackets import Array, find_arrays, refuse_many_values
from serving.api.json_bodies.long_array import MOST_BLANKS, LongArray, begins_with_array
from serving.api.json_bodies.strict_json import MAX_DEPTH, loads
from serving.domain.errors import InvalidInput, NotJson

LARGE_BYTES = 128 << 10
MOST_ARRAYS = 4096  # that are looked for by keys; those behind them are found by the structure
GAP_BYTES = 256 << 10  # searched for a key, from the end of one array on: 0.1 ms
TAIL_BYTES = 256  # searched for the end of an array, in front of the next string

_END_OF_ARRAYS = re.compile(rb"\]\s*\]")


class Layout:
    """Where the bodies of a protocol may have long arrays: as values of objects, at some depths.

    `levels` are depths (2: a value of the outermost object) and the bytes that an array must have there; a depth is
    used only if there are no arrays at the depths before it. `keys` name the usual places of rows; with `only_keys`,
    the only places. `advice` says what to send instead of a body that has many values elsewhere.
    """

    def __init__(
        self, keys: tuple[str, ...], levels: tuple[tuple[int, int], ...], advice: str, *, only_keys: bool = False
    ) -> None:
        names = b"|".join(key.encode() for key in keys)
        self.levels = levels
        self.advice = advice
        self.opening = re.compile(rb'"(?:%b)"\s*+:\s*+\[(?=[\s\[]*+[-0-9ntfN])' % names)
        self.before = re.compile(rb'"(?:%b)"\s*+:\s*+\Z' % names if only_keys else rb":\s*+\Z")


class GuessedArray(NamedTuple):
    """An array in a text, like `Array`, whose elements have no known ends."""

    start: int
    end: int
    commas: None = None


def read_json(raw: bytes, layout: Layout, max_depth: int = MAX_DEPTH) -> tuple[Any, bytes]:
    """Parse a body; in a large one a `LongArray` stands for each long array. Raises NotJson or InvalidInput.

    Also returns the text that was parsed: the whole body, or the rest of it, with a string for each long array. Blocks
    for 20 ms per MB, much less if a large body has numbers. Any thread; not the event loop's for a large body.
    """
    if len(raw) <= LARGE_BYTES:
        return loads(raw, max_depth), raw
    return _read_guessing(raw, layout, max_depth) or _read_exactly(raw, layout, max_depth)


class _Envelope:
    """A body in which a string that cannot be guessed stands for each of some arrays, in their order."""

    def __init__(self, raw: bytes, arrays: Sequence[Array | GuessedArray]) -> None:
        mark = secrets.token_hex(16)
        self.waiting = {f"{mark}{number}": array for number, array in enumerate(arrays)}
        self._ends: list[int] = []
        self._shifts: list[int] = []
        parts = []
        done = size = 0
        for name, array in self.waiting.items():
            parts += [raw[done : array.start - 1], b'"%b"' % name.encode()]
            done = array.end + 1
            size += len(parts[-2]) + len(parts[-1])
            self._ends.append(size)
            self._shifts.append(done - size)
        self.text = b"".join([*parts, raw[done:]])

    def place_of(self, place: int) -> int:
        """Return the position in the body of a position in the text."""
        index = bisect_right(self._ends, place)
        return place + (self._shifts[index - 1] if index else 0)


def _read_guessing(raw: bytes, layout: Layout, max_depth: int) -> tuple[Any, bytes] | None:
    arrays = list(_guess_arrays(raw, layout))
    if not arrays:
        return None
    envelope = _Envelope(raw, arrays)
    try:
        refuse_many_values(envelope.text, max_depth, layout.advice)
        value = loads(envelope.text, max_depth)
    except (NotJson, InvalidInput):
        return None
    _put_back(value, envelope.waiting, layout, partial(LongArray, raw, max_depth))
    return None if envelope.waiting else (value, envelope.text)


def _read_exactly(raw: bytes, layout: Layout, max_depth: int) -> tuple[Any, bytes]:
    arrays: list[Array] = []
    for level, least_bytes in layout.levels:
        found = find_arrays(raw, level, least_bytes, max_depth)
        arrays = [each for each in found if layout.before.search(raw, max(0, each.start - MOST_BLANKS), each.start - 1)]
        if arrays:
            break
    envelope = _Envelope(raw, arrays)
    refuse_many_values(envelope.text, max_depth, layout.advice)
    value = loads(envelope.text, max_depth, envelope.place_of if arrays else None)
    _put_back(value, envelope.waiting, layout, partial(LongArray, raw, max_depth))
    return value, envelope.text


def _guess_arrays(raw: bytes, layout: Layout) -> Iterator[GuessedArray]:
    _, least_bytes = layout.levels[0]
    at = 0
    for _ in range(MOST_ARRAYS):
        match = layout.opening.search(raw, at, at + GAP_BYTES)
        if match is None:
            return
        start, at = match.end(), _end_of(raw, match.end())
        if at < 0:  # looking for the end of each of many would take for ever
            return
        if at - start >= least_bytes:
            yield GuessedArray(start, at)


def _end_of(raw: bytes, start: int) -> int:
    """Return the end of an array of numbers, or of arrays of numbers; -1 if it does not look like one."""
    quote = raw.find(b'"', start)
    stop = quote if quote >= 0 else len(raw)
    if not begins_with_array(raw, start):
        return raw.find(b"]", start, stop)
    match = _END_OF_ARRAYS.search(raw, max(start, stop - TAIL_BYTES), stop)
    return match.end() - 1 if match else -1


def _put_back(
    value: Any, waiting: dict[str, Any], layout: Layout, make: Callable[..., LongArray], level: int = 2
) -> None:
    """Put arrays in the places of their names in a document; arrays whose name was found are removed from `waiting`."""
    deepest = max(depth for depth, _ in layout.levels)
    if isinstance(value, list):
        for each in value if level < deepest else ():
            if isinstance(each, dict):
                _put_back(each, waiting, layout, make, level + 1)
    elif isinstance(value, dict):
        for key, each in value.items():
            if isinstance(each, str) and each in waiting:
                if any(level == depth for depth, _ in layout.levels):
                    array = waiting.pop(each)
                    value[key] = make(array.start, array.end, level, array.commas)
            elif level < deepest:
                _put_back(each, waiting, layout, make, level + 1)
