"""Large bodies of JSON: the numbers of an input are taken out of the text, and the rest is read without them.

In their place stands a name that nobody can guess. Where it does not come out as the ``data`` of an input, the text
that looked like one was something else (part of a string, say), and the body is read in one go like any other.
"""

from __future__ import annotations

import math
import re
import secrets
from dataclasses import dataclass
from typing import Any

from serving.api.numbers import array_in, is_nested
from serving.api.oip.tensors import DTYPES, Tensor, from_numbers, from_values
from serving.api.strict_json import loads
from serving.domain.errors import NotJson

LEAST_BYTES = 4 << 10

_DATA = re.compile(rb'"data"\s*:\s*(?=\[[\s\[]*[-0-9])')
_END_OF_NESTED = re.compile(rb"\]\s*\]")


@dataclass(frozen=True, slots=True)
class Numbers:
    """The ``data`` of an input as text: what begins with ``[`` and ends with ``]`` in `raw`."""

    raw: bytes
    start: int
    end: int
    max_depth: int

    def tensor(self, name: str, datatype: str, shape: tuple[int, ...]) -> Tensor:
        """Make a tensor of it; raises InvalidInput or NotJson. Blocks for as long as there is text."""
        if datatype in DTYPES and DTYPES[datatype].kind == "f":
            array = array_in(self.raw, self.start, self.end)
            if array is not None and (array.shape == shape or array.shape == (math.prod(shape),)):
                return from_numbers(name, datatype, shape, array.reshape(-1))
        values = loads(self.raw[self.start : self.end], self.start, self.max_depth)
        return from_values(name, datatype, shape, values)


def lift(raw: bytes, max_depth: int) -> Any | None:
    """Parse a body with Numbers in place of the data of its inputs; None where there is none, or none was found.

    Raises nothing: a body that is not JSON has None as well. Blocks for a short time; any thread.
    """
    mark = secrets.token_hex(16)
    parts: list[bytes] = []
    found: list[Numbers] = []
    done = 0
    for match in _DATA.finditer(raw):
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
    try:
        document = loads(b"".join([*parts, raw[done:]]), max_depth=max_depth)
    except NotJson:
        return None
    inputs = document.get("inputs") if isinstance(document, dict) else None
    waiting = {f"{mark}{place}": numbers for place, numbers in enumerate(found)}
    for entry in inputs if isinstance(inputs, list) else ():
        data = entry.get("data") if isinstance(entry, dict) else None
        if isinstance(data, str) and data in waiting:
            entry["data"] = waiting.pop(data)
    return None if waiting else document


def _end_of(raw: bytes, start: int) -> int:
    """Return the end of an array of numbers, or of arrays of numbers, 0 where there is none."""
    if not is_nested(raw, start):
        return raw.find(b"]", start) + 1
    match = _END_OF_NESTED.search(raw, start)
    return match.end() if match else 0
