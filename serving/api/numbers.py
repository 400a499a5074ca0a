"""Numbers in JSON text as an array, with no Python object for each: by simdjson, where it is installed.

Nothing else is read here. Whoever asks has another way for what is anything but plain numbers, and for the words of
what is wrong with it. simdjson (https://simdjson.org) reads every number as Python and orjson do, to the last bit, and
refuses what float64 cannot hold. Numbers so large that it may have rounded an integer are for the other way.
"""

from __future__ import annotations

import time
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.api.strict_json import has_minus_zero
from serving.rows.conversion import YIELD_SECONDS
from serving.rows.integers import EXACT

PIECE_BYTES = 128 << 10
MOST_BLANKS = 64  # in front of the first value; who sends more is read more slowly

_OPENING = ord("[")


class NumberReader:
    """Reads the pieces of one body, one after another. Holds the interpreter lock for 2 ms per MB. One thread."""

    def __init__(self) -> None:
        make = _parser_type()
        self._parser = None if make is None else make()

    def matrix(self, text: bytes) -> NDArray[np.float64] | None:
        """Return an array of arrays of equally many numbers, shape (rows, columns); None for anything else."""
        try:
            array, numbers = self._parsed(text)
            widths = {len(row) for row in array}
        except (AttributeError, TypeError, ValueError, RuntimeError):  # no JSON, too deep, or not only numbers
            return None
        # numbers of deeper arrays are among them, too, and may be as many as they should be
        if len(widths) != 1 or count_arrays(text) != 1 + len(array) or len(numbers) != len(array) * max(widths):
            return None
        return numbers.reshape(len(array), max(widths)) if _are_exact(numbers) else None

    def vector(self, text: bytes) -> NDArray[np.float64] | None:
        """Return an array of numbers, shape (values,); None for anything else."""
        try:
            _, numbers = self._parsed(text)
        except (AttributeError, TypeError, ValueError, RuntimeError):
            return None
        return numbers if count_arrays(text) == 1 and _are_exact(numbers) else None

    def _parsed(self, text: bytes) -> tuple[Any, NDArray[np.float64]]:
        """Return an array as simdjson has it, and all numbers in it and in arrays in it."""
        if self._parser is None or b'"' in text or has_minus_zero(text):  # seen at once, texts above all
            raise TypeError
        array = self._parser.parse(text)
        return array, np.frombuffer(array.as_buffer(of_type="d"))


def array_in(raw: bytes, start: int, end: int) -> NDArray[np.float64] | None:
    """Return the array between two places of a body, of numbers or of arrays of equally many; None for anything else.

    It is read piece by piece, so that other threads get their turn: see `serving.rows.conversion`. Blocks; any thread.
    """
    reader = NumberReader()
    read, mark = (reader.matrix, b"],") if is_nested(raw, start) else (reader.vector, b",")
    found = []
    begin, last = start + 1, end - 1
    while begin <= last:
        cut = raw.find(mark, begin + PIECE_BYTES, last) + len(mark) - 1
        stop = cut if cut > begin else last
        array = read(b"[" + raw[begin:stop] + b"]")
        if array is None or not len(array):  # nothing between two commas
            return None
        found.append(array)
        begin = stop + 1
        time.sleep(YIELD_SECONDS)
    if not found or len({array.shape[1:] for array in found}) != 1:
        return None
    return found[0] if len(found) == 1 else np.concatenate(found)


def is_nested(raw: bytes, start: int) -> bool:
    """Say whether the array that starts here begins with another one."""
    return raw[start + 1 : start + MOST_BLANKS].lstrip()[:1] == b"["


def _are_exact(numbers: NDArray[np.float64]) -> bool:
    return bool((np.abs(numbers) <= EXACT).all())


def count_arrays(text: bytes, start: int = 0, end: int | None = None) -> int:
    """Count the opening brackets between two places: the arrays, where there is no string."""
    codes = np.frombuffer(text, np.uint8, -1 if end is None else end - start, start)
    return int(np.count_nonzero(codes == _OPENING))


@cache
def _parser_type() -> Any:
    """Import it with the first large body, for 20 ms; None where it is not installed."""
    return import_module("simdjson").Parser if find_spec("simdjson") is not None else None
