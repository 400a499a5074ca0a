"""Reads numbers in JSON text as an array, without a Python object for each: with simdjson, if it is installed.

`strict_json` reads everything else, and has the texts of errors. simdjson (https://simdjson.org) reads every number as
Python and orjson do, to the last bit, and refuses numbers that float64 cannot hold. Numbers so large that it may have
rounded an integer are refused here.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.api.json_bodies.strict_json import has_minus_zero
from serving.rows.integers import EXACT


class NumberReader:
    """Reads the pieces of one body, one after another. Holds the interpreter lock for 2 ms per MB. For one thread."""

    def __init__(self) -> None:
        make = _parser_type()
        self._parser = None if make is None else make()

    def read_matrix(self, text: bytes) -> NDArray[np.float64] | None:
        """Return arrays of equal length of numbers as one array, shape (rows, columns); None for anything else."""
        try:
            array, numbers = self._parse(text)
            widths = {len(row) for row in array}
        except (AttributeError, TypeError, ValueError, RuntimeError):  # no JSON, too deep, or not only numbers
            return None
        # numbers of deeper arrays are among them, too, and may be as many as they should be
        if len(widths) != 1 or count_byte(text, b"[") != 1 + len(array) or len(numbers) != len(array) * max(widths):
            return None
        return numbers.reshape(len(array), max(widths)) if _are_exact(numbers) else None

    def read_vector(self, text: bytes) -> NDArray[np.float64] | None:
        """Return an array of numbers, shape (values,); None for anything else."""
        try:
            _, numbers = self._parse(text)
        except (AttributeError, TypeError, ValueError, RuntimeError):
            return None
        return numbers if count_byte(text, b"[") == 1 and _are_exact(numbers) else None

    def _parse(self, text: bytes) -> tuple[Any, NDArray[np.float64]]:
        """Return an array of simdjson, and all numbers in it and in the arrays in it."""
        is_plain = b'"' not in text and b"n" not in text and b"t" not in text and b"f" not in text  # seen at once
        if self._parser is None or not is_plain or has_minus_zero(text):
            raise TypeError
        array = self._parser.parse(text)
        return array, np.frombuffer(array.as_buffer(of_type="d"))


def _are_exact(numbers: NDArray[np.float64]) -> bool:
    return bool((np.abs(numbers) <= EXACT).all())


def count_byte(text: bytes, byte: bytes, start: int = 0, end: int | None = None) -> int:
    """Count a byte between two positions, without the interpreter lock."""
    codes = np.frombuffer(text, np.uint8, -1 if end is None else end - start, start)
    return int(np.count_nonzero(codes == ord(byte)))


@cache
def _parser_type() -> Any:
    """Import simdjson with the first large body, which takes 20 ms; None if it is not installed."""
    return import_module("simdjson").Parser if find_spec("simdjson") is not None else None
