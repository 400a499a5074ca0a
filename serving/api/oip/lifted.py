"""Large bodies of JSON: the values of an input are taken out of the text, and the rest is read without them.

In their place stands a name that nobody can guess. Numbers are looked for first, which is quick: where that does not
come out as the ``data`` of an input, the text that looked like one was something else (part of a string, say). Then the
arrays are found by the body's structure (`serving.api.structure`).
"""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from serving.api.numbers import MOST_BLANKS, array_in, is_nested
from serving.api.oip.tensors import (
    DTYPES,
    InputTensor,
    check_shape,
    from_numbers,
    from_values,
    joined,
    wrong_count,
    wrong_nesting,
)
from serving.api.pieces import pieces_of
from serving.api.strict_json import loads
from serving.api.structure import WINDOW_BYTES, Array, find_arrays, find_word, refuse_many_values, without
from serving.domain.errors import InvalidInput, NotJson
from serving.rows.conversion import YIELD_SECONDS
from serving.rows.row_problems import shown

LEAST_BYTES = 4 << 10
MOST_PLACES = 4096  # where the word is tried; inputs behind the last of these are found by the structure
DATA_LEVEL = 4  # {"inputs": [{"data": [
ADVICE = 'send {"inputs": [{"name", "shape", "datatype", "data"}]}'

_WORD = b'"data"'
_DATA = re.compile(rb'"data"\s*:\s*(?=\[[\s\[]*[-0-9])')
_KEY = re.compile(rb'"data"\s*:\s*\Z')
_END_OF_NESTED = re.compile(rb"\]\s*\]")


@dataclass(frozen=True, slots=True)
class Numbers:
    """The ``data`` of an input as text: what begins with ``[`` and ends with ``]`` in `raw`."""

    raw: bytes
    start: int
    end: int
    max_depth: int

    def tensor(self, name: str, datatype: str, shape: tuple[int, ...]) -> InputTensor:
        """Make a tensor of it; raises InvalidInput or NotJson. Blocks for as long as there is text."""
        if datatype in DTYPES and DTYPES[datatype].kind == "f":
            array = array_in(self.raw, self.start, self.end)
            if array is not None:
                check_shape(name, datatype, shape, array.shape)
                return from_numbers(name, datatype, shape, array.reshape(-1))
        text = self.raw[self.start : self.end]
        arrays = find_arrays(text, 1, 0, self.max_depth)
        if len(arrays) != 1:
            raise NotJson(f"the body is not JSON: the data of input {shown(name)} are no array")
        return Elements(text, arrays[0], self.max_depth).tensor(name, datatype, shape)


@dataclass(frozen=True, slots=True)
class Elements:
    """The ``data`` of an input as text whose structure is known."""

    raw: bytes
    array: Array
    max_depth: int

    def tensor(self, name: str, datatype: str, shape: tuple[int, ...]) -> InputTensor:
        """Make a tensor of it, piece by piece; raises InvalidInput or NotJson. Blocks for as long as there is text."""
        rows = pieces_of(self.raw, self.array, self.max_depth)
        if not len(rows):
            return from_values(name, datatype, shape, [])
        columns = shape[1] if len(shape) > 1 else 1
        nested = len(shape) > 1 and is_nested(self.raw, self.array.start - 1)
        if len(rows) != (shape[0] if nested else math.prod(shape)):
            raise wrong_nesting(name, shape) if nested else wrong_count(name, shape, len(rows))
        parts = []
        done = 0
        for piece in rows.of_width(columns if nested else 1):
            values = piece.rows
            some = (len(values), columns) if len(shape) > 1 and type(values[0]) is list else (len(values),)
            parts.append(from_values(name, datatype, some, values, before=done))
            done += len(values)
            time.sleep(YIELD_SECONDS)
        return InputTensor(name, datatype, shape, joined([part.values for part in parts]))


def load_large(raw: bytes, max_depth: int) -> Any:
    """Parse a large body with Numbers or Elements in place of the data of its inputs.

    Raises NotJson, and InvalidInput for one that has many values elsewhere. Blocks; any thread.
    """
    document = lift(raw, max_depth)
    if document is not None:
        return document
    found = find_arrays(raw, DATA_LEVEL, LEAST_BYTES, max_depth)
    arrays = [array for array in found if _KEY.search(raw, max(0, array.start - MOST_BLANKS), array.start - 1)]
    mark = secrets.token_hex(16)
    waiting = {f"{mark}{place}": Elements(raw, array, max_depth) for place, array in enumerate(arrays)}
    envelope = without(raw, arrays, waiting)
    refuse_many_values(envelope, max_depth, ADVICE)
    document = loads(envelope, max_depth=max_depth)
    _put_back(document, waiting)
    return document


def lift(raw: bytes, max_depth: int) -> Any | None:
    """Parse a body with Numbers in place of the data of its inputs; None where there is none, or none was found.

    Raises nothing: a body that is not JSON has None as well. Blocks for a short time; any thread.
    """
    mark = secrets.token_hex(16)
    parts: list[bytes] = []
    found: list[Numbers] = []
    done = 0
    for match in _matches(raw):
        start = match.end()
        end = _end_of(raw, start)
        if start < done or not end:  # no JSON; looking for the end of each of many would take for ever
            return None
        if end - start >= LEAST_BYTES:
            parts += [raw[done:start], b'"%b%d"' % (mark.encode(), len(found))]
            found.append(Numbers(raw, start, end, max_depth))
            done = end
    if not found:
        return None
    envelope = b"".join([*parts, raw[done:]])
    try:
        refuse_many_values(envelope, max_depth, ADVICE)
        document = loads(envelope, max_depth=max_depth)
    except (NotJson, InvalidInput):
        return None
    waiting: dict[str, Any] = {f"{mark}{place}": numbers for place, numbers in enumerate(found)}
    _put_back(document, waiting)
    return None if waiting else document


def _matches(raw: bytes) -> Iterator[re.Match[bytes]]:
    """Yield what looks like the beginning of data, among the first of a body.

    Looking for a word is quick: to look for the expression would hold the interpreter lock for 7 ms in 16 MB.
    """
    place = -1
    for _ in range(MOST_PLACES):
        place = find_word(raw, _WORD, place + 1)
        if place < 0:
            return
        match = _DATA.match(raw, place)
        if match:
            yield match


def _put_back(document: Any, waiting: dict[str, Any]) -> None:
    inputs = document.get("inputs") if isinstance(document, dict) else None
    for entry in inputs if isinstance(inputs, list) else ():
        data = entry.get("data") if isinstance(entry, dict) else None
        if isinstance(data, str) and data in waiting:
            entry["data"] = waiting.pop(data)


def _end_of(raw: bytes, start: int) -> int:
    """Return the end of an array of numbers, or of arrays of numbers, 0 where there is none."""
    if not is_nested(raw, start):
        return raw.find(b"]", start) + 1
    for at in range(start, len(raw), WINDOW_BYTES):  # in steps, so that other threads get their turn
        match = _END_OF_NESTED.search(raw, at, at + WINDOW_BYTES + MOST_BLANKS)
        if match:
            return match.end()
        time.sleep(YIELD_SECONDS)
    return 0
