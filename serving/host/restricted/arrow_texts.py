"""Reads texts that pyarrow wrote into a pickle: a buffer of offsets, one of bytes, and one of bits for missing texts.

pyarrow uses the offsets unchecked and reads any memory they point at. This reader checks them first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# the dtype of the offsets, by the name of the type
_OFFSETS = {"string": "<i4", "utf8": "<i4", "large_string": "<i8", "large_utf8": "<i8"}


class ArrowType:
    """A pyarrow type for texts. Raises KeyError for the name of any other type."""

    __slots__ = ("offsets",)

    def __init__(self, name: str) -> None:
        self.offsets = np.dtype(_OFFSETS[name])


def read_texts(parts: tuple[Any, ...]) -> NDArray[Any]:
    """Return the texts of an array as pyarrow writes it, shape (length,), dtype object, NaN for a missing text.

    `parts` are (type, length, number of missing texts, offset, buffers, children, dictionary). Raises ValueError, or
    another ordinary exception, if sizes, offsets and bytes do not fit. Memory is bounded by the buffers.
    """
    kind, length, _, start, buffers, children, dictionary = parts
    is_usual = isinstance(kind, ArrowType) and not children and dictionary is None and len(buffers) == 3
    if not is_usual or type(length) is not int or type(start) is not int or length < 0 or start < 0:
        raise ValueError("another array")
    made = np.empty(0, dtype=object)
    if length == 0:
        return made
    bits, places, content = buffers
    if type(places) not in (bytes, bytearray) or type(content) not in (bytes, bytearray, type(None)):
        raise ValueError("other buffers")
    offsets = np.frombuffer(places, dtype=kind.offsets, count=len(places) // kind.offsets.itemsize)
    offsets = offsets[start : start + length + 1]
    raw = bytes(content or b"")
    if len(offsets) != length + 1 or offsets[0] < 0 or np.any(offsets[1:] < offsets[:-1]) or offsets[-1] > len(raw):
        raise ValueError("offsets beyond the bytes")
    is_present = _read_bits(bits, start, length)
    ends = offsets.tolist()
    made = np.empty(length, dtype=object)
    for place in range(length):
        made[place] = raw[ends[place] : ends[place + 1]].decode() if is_present[place] else np.nan
    return made


def _read_bits(bits: Any, start: int, length: int) -> list[bool]:
    if bits is None:
        return [True] * length
    if type(bits) not in (bytes, bytearray):
        raise ValueError("other bits")
    some = np.frombuffer(bits, dtype=np.uint8)[start // 8 : (start + length + 7) // 8]
    found = np.unpackbits(some, bitorder="little")[start % 8 : start % 8 + length]
    if len(found) != length:
        raise ValueError("fewer bits than texts")
    return found.astype(bool).tolist()  # type: ignore[no-any-return]
