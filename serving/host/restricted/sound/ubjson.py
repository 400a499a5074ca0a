"""Reads the UBJSON that XGBoost writes, before XGBoost reads it: its own reader checks no length.

From ``src/common/json.cc`` of XGBoost, which uses a subset of https://ubjson.org: keys and texts have lengths of 64
bits, and arrays of numbers have a type. Values become dicts, lists, texts, numbers, bools and None. Arrays of numbers
are not copied (`Numbers`): most of a model is numbers that no check needs.
"""

from __future__ import annotations

import struct
from typing import Any

from serving.host.restricted.sound.requirements import Unsound, require

# an array of numbers in the document: the marker of its type, the place of its first byte, and its length
Numbers = tuple[int, int, int]

MOST_LEVELS = 24
DTYPES = {
    ord("d"): ">f4",
    ord("D"): ">f8",
    ord("i"): "i1",
    ord("U"): "u1",
    ord("I"): ">i2",
    ord("l"): ">i4",
    ord("L"): ">i8",
}

_WIDTHS = {marker: int(dtype[-1]) for marker, dtype in DTYPES.items()}
_CONSTANTS = {ord("Z"): None, ord("T"): True, ord("F"): False}
_SCALARS = {
    ord(marker): struct.Struct(">" + code)
    for marker, code in {"d": "f", "D": "d", "i": "b", "U": "B", "I": "h", "l": "i", "L": "q", "C": "b"}.items()
}
_LONG = struct.Struct(">q")
_LENGTH, _TEXT, _OBJECT, _END_OBJECT, _ARRAY, _END_ARRAY = b"LS{}[]"
_ENDS_EARLY = "its bytes end early"


def _encode_key(name: str) -> bytes:
    return b"L" + _LONG.pack(len(name)) + name.encode()


def _describe_arrays(names: str, types: str) -> list[tuple[str, bytes, int, int]]:
    return [
        (name, _encode_key(name) + b"[$" + marker.encode() + b"#L", ord(marker), _WIDTHS[ord(marker)])
        for name, marker in zip(names.split(), types, strict=True)
    ]


# the keys of a tree in the order in which XGBoost writes them today; nearly all bytes of a model are in trees
_TREE_BEGINS = _encode_key("base_weights")
_TREE_FIRST = _describe_arrays(
    "base_weights categories categories_nodes categories_segments categories_sizes default_left", "dllLLU"
)
_TREE_THEN = _describe_arrays(
    "left_children loss_changes parents right_children split_conditions split_indices split_type sum_hessian",
    "ldlldlUd",
)
_ID, _PARAM = _encode_key("id"), _encode_key("tree_param") + b"{"


class UbjsonReader:
    """Reads one document from `content`; raises Unsound if it is malformed. One use."""

    def __init__(self, content: bytes | bytearray) -> None:
        self._content = content
        self._size = len(content)
        self._parameters: dict[bytes, Any] = {}

    def read(self) -> Any:
        """Return the value of the document. Nothing may follow it."""
        try:
            found, end = self._read_value(0, 0)
        except (IndexError, struct.error):
            raise Unsound(_ENDS_EARLY) from None
        require(end == self._size, "something follows after its bytes")
        return found

    def _read_value(self, at: int, level: int) -> tuple[Any, int]:
        content = self._content
        marker = content[at]
        scalar = _SCALARS.get(marker)
        if scalar is not None:
            return scalar.unpack_from(content, at + 1)[0], at + 1 + scalar.size
        if marker == _TEXT:
            return self._read_text(at + 1)
        if marker in _CONSTANTS:
            return _CONSTANTS[marker], at + 1
        require(level < MOST_LEVELS, f"its parts are nested more than {MOST_LEVELS} times")
        if marker == _OBJECT:
            return self._read_object(at + 1, level)
        require(marker == _ARRAY, f"its bytes have the marker {marker}, which XGBoost does not write")
        return self._read_array(at + 1, level)

    def _read_length(self, at: int) -> tuple[int, int]:
        require(self._content[at] == _LENGTH, "one of its lengths is not of 64 bits")
        (length,) = _LONG.unpack_from(self._content, at + 1)
        require(0 <= length <= self._size, _ENDS_EARLY)
        return length, at + 9

    def _read_text(self, at: int) -> tuple[str, int]:
        length, start = self._read_length(at)
        require(start + length <= self._size, _ENDS_EARLY)
        return str(self._content[start : start + length], "utf-8", "surrogateescape"), start + length

    def _read_object(self, at: int, level: int) -> tuple[dict[str, Any], int]:
        if self._content.startswith(_TREE_BEGINS, at):
            tree = self._read_tree(at)
            if tree is not None:
                return tree
        found: dict[str, Any] = {}
        while self._content[at] != _END_OBJECT:
            key, at = self._read_text(at)
            require(key not in found, f"it has the part {key[:40]} twice")
            found[key], at = self._read_value(at, level + 1)
        return found, at + 1

    def _read_array(self, at: int, level: int) -> tuple[Any, int]:
        content = self._content
        if content.startswith(b"$", at):
            return self._read_numbers(content[at + 1], at + 2)
        found: list[Any] = []
        if content.startswith(b"#", at):
            count, at = self._read_length(at + 1)
            for _ in range(count):
                value, at = self._read_value(at, level + 1)
                found.append(value)
            return found, at
        while content[at] != _END_ARRAY:
            value, at = self._read_value(at, level + 1)
            found.append(value)
        return found, at + 1

    def _read_numbers(self, marker: int, at: int) -> tuple[Numbers, int]:
        require(marker in _WIDTHS and self._content.startswith(b"#", at), "one of its arrays is of no known type")
        count, start = self._read_length(at + 1)
        end = start + count * _WIDTHS[marker]
        require(end <= self._size, _ENDS_EARLY)
        return (marker, start, count), end

    # --- the fast path for trees --------------------------------------------------------------------------------------

    def _read_tree(self, at: int) -> tuple[dict[str, Any], int] | None:
        """Return a tree in the layout that XGBoost writes today, None for any other layout."""
        found: dict[str, Any] = {}
        between = self._read_arrays(_TREE_FIRST, at, found)
        if between is None or not self._content.startswith(_ID, between):
            return None
        found["id"], at = self._read_value(between + len(_ID), MOST_LEVELS)
        end = self._read_arrays(_TREE_THEN, at, found)
        if end is None or not self._content.startswith(_PARAM, end):
            return None
        start = end + len(_PARAM)
        # most trees have the same few parameters
        stop = self._content.find(b"}}", start) + 1
        raw = bytes(self._content[start:stop]) if start < stop < start + 400 else b""
        parameters = self._parameters.get(raw)
        if parameters is None:
            parameters, stop_read = self._read_object(start, 1)
            if stop_read != stop or not raw:
                return None
            self._parameters[raw] = parameters
        found["tree_param"] = parameters
        return (found, stop + 1) if self._content[stop] == _END_OBJECT else None

    def _read_arrays(self, arrays: list[tuple[str, bytes, int, int]], at: int, found: dict[str, Any]) -> int | None:
        """Put consecutive arrays into `found`, and return where they end; None if other parts follow."""
        content = self._content
        for name, begin, marker, width in arrays:
            if not content.startswith(begin, at):
                return None
            at += len(begin) + 8
            (count,) = _LONG.unpack_from(content, at - 8)
            if count < 0:
                return None
            found[name] = (marker, at, count)
            at += count * width
        return at if at <= self._size else None
