"""The structure of a large JSON text, found before any of it is parsed.

A parser holds the interpreter lock from its first byte to its last, and makes an object of every value: sixteen
megabytes of ``[],`` are five million lists, 400 MB and two seconds in which nothing else happens. So numpy, which
releases the lock, looks for brackets and commas first. They show where long arrays are, which are parsed piece by
piece, and how many values the rest has, so that too many are refused before they are parsed.

This also finds some structure in a text that is not JSON; such a text is refused later, when it is parsed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.domain.errors import InvalidInput, NotJson
from serving.rows.conversion import YIELD_SECONDS

WINDOW_BYTES = 128 << 10  # looked at in one go: 1 ms
SEARCH_BYTES = 512 << 10  # searched in one go: 0.3 ms
MOST_VALUES = 100_000  # values that are parsed in one go: at most 10 ms
CONTAINER_COST = 4  # an array or an object takes as long as so many numbers, and more memory

_QUOTE, _COMMA, _OPEN_ARRAY, _CLOSE_ARRAY = map(ord, '",[]')
_STEPS = np.zeros(256, np.int8)
_STEPS[[ord("["), ord("{")]] = 1
_STEPS[[ord("]"), ord("}")]] = -1


class Array(NamedTuple):
    """An array in a text: the content begins at `start` and ends before `end`; `commas` are those between its elements.

    `commas` are positions in the text, shape (elements - 1,).
    """

    start: int
    end: int
    commas: NDArray[np.int32]


class _Window(NamedTuple):
    """A stretch of a text: for each byte its kind, how it changes the depth, and the depth after it.

    Bytes inside strings change nothing; `is_outside` is false for them.
    """

    start: int
    codes: NDArray[np.uint8]
    steps: NDArray[np.int8]
    depths: NDArray[np.int32]
    is_outside: NDArray[np.bool_]


def find_arrays(raw: bytes, level: int, least_bytes: int, max_depth: int, depth_before: int = 0) -> list[Array]:
    """Return the arrays at depth `level` (1: the outermost) with `least_bytes` or more; raises NotJson for a deep text.

    `depth_before` counts the arrays and objects of the body that the text is in. Computes for 10 ms per MB, and lets
    other threads have their turn after each window. Any thread but the loop's.
    """
    opened: list[NDArray[np.int32]] = []
    closed: list[NDArray[np.int32]] = []
    commas: list[NDArray[np.int32]] = []
    for window in _windows(raw, max_depth, depth_before):
        is_level = window.depths == level
        opened.append(_places(window, is_level & (window.steps == 1)))
        closed.append(_places(window, (window.depths == level - 1) & (window.steps == -1)))
        commas.append(_places(window, is_level & window.is_outside & (window.codes == _COMMA)))
    begins, ends, between = map(np.concatenate, (opened, closed, commas))
    codes = np.frombuffer(raw, np.uint8)
    if len(begins) != len(ends) or not np.array_equal(codes[begins] == _OPEN_ARRAY, codes[ends] == _CLOSE_ARRAY):
        raise NotJson("the body is not JSON: its brackets do not match; it may have been cut off")
    is_long = (ends - begins > least_bytes) & (codes[begins] == _OPEN_ARRAY)
    begins, ends = begins[is_long], ends[is_long]
    firsts, lasts = (np.searchsorted(between, places).tolist() for places in (begins, ends))  # all of int32: no copies
    spans = zip(begins.tolist(), ends.tolist(), firsts, lasts, strict=True)
    return [Array(begin + 1, end, between[first:last]) for begin, end, first, last in spans]


class Count(NamedTuple):
    """How many commas and how many arrays and objects a text has, outside of strings."""

    commas: int
    containers: int

    @property
    def cost(self) -> int:
        """The number of numbers that would take as long to parse."""
        return self.commas + CONTAINER_COST * self.containers


def refuse_many_values(raw: bytes, max_depth: int, advice: str) -> None:
    """Raise InvalidInput for a text with too many values to parse in one go; NotJson for one nested too deeply."""
    if len(raw) > MOST_VALUES and count_values(raw, max_depth).cost > MOST_VALUES:
        raise InvalidInput(f"the body has more than {MOST_VALUES} values that are no rows; {advice}")


def count_values(raw: bytes, max_depth: int) -> Count:
    """Count the values in a text; raises NotJson for one that is nested too deeply. As slow as `find_arrays`."""
    commas = containers = 0
    for window in _windows(raw, max_depth):
        commas += int(np.count_nonzero((window.codes == _COMMA) & window.is_outside))
        containers += int(np.count_nonzero(window.steps == 1))
    return Count(commas, containers)


def find_word(raw: bytes, word: bytes, start: int = 0) -> int:
    """Return the next position of a word, -1 if there is none; in a long search other threads have their turn."""
    while True:
        end = start + SEARCH_BYTES
        found = raw.find(word, start, end + len(word) - 1)
        if found >= 0 or end >= len(raw):
            return found
        start = end
        time.sleep(YIELD_SECONDS)


def _places(window: _Window, which: NDArray[np.bool_]) -> NDArray[np.int32]:
    return (np.flatnonzero(which) + window.start).astype(np.int32)


def _windows(raw: bytes, max_depth: int, depth_before: int = 0) -> Iterator[_Window]:
    is_inside, depth = np.bool_(False), np.int32(depth_before)
    is_escaped = False
    for start in range(0, len(raw), WINDOW_BYTES):
        text = raw[start : start + WINDOW_BYTES]
        if is_escaped:
            text = b"_" + text[1:]
        is_escaped = False
        if b"\\" in text:  # as long as before, so that positions hold; the quotes that are left begin or end a string
            text = text.replace(b"\\\\", b"__").replace(b'\\"', b"__")
            is_escaped = text.endswith(b"\\")
        codes = np.frombuffer(text, np.uint8)
        inside = np.logical_xor.accumulate(codes == _QUOTE) ^ is_inside
        steps = _STEPS[codes]
        steps[inside] = 0
        depths = np.cumsum(steps, dtype=np.int32) + depth
        if depths.max() > max_depth:
            raise NotJson(f"the body is nested deeper than {max_depth} levels")
        yield _Window(start, codes, steps, depths, ~inside)
        is_inside, depth = inside[-1], depths[-1]
        time.sleep(YIELD_SECONDS)  # on one core a thread that computes on would keep the event loop's off for 4 ms
