"""Reads UBJSON as XGBoost writes it, before XGBoost does: its own reader believes every length.

After ``src/common/json.cc`` of XGBoost, whose subset of https://ubjson.org this is: keys and texts have lengths of 64
bits, arrays of numbers are typed. Values become dicts, lists, texts, numbers, bools and None. Arrays of numbers stay
where they are (`Numbers`): most of a model is numbers that no index depends on.
"""

from __future__ import annotations

import struct
from typing import Any

from serving.host.restricted.sound.requirements import Unsound, need

# marker of the type, place of the first byte, count
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


def _key(name: str) -> bytes:
    return b"L" + _LONG.pack(len(name)) + name.encode()


def _typed(names: str, types: str) -> list[tuple[str, bytes, int, int]]:
    return [
        (name, _key(name) + b"[$" + marker.encode() + b"#L", ord(marker), _WIDTHS[ord(marker)])
        for name, marker in zip(names.split(), types, strict=True)
    ]


# a tree as XGBoost writes it today, in the order of the keys; nearly all bytes of a model are in these
_TREE_BEGINS = _key("base_weights")
_TREE_FIRST = _typed(
    "base_weights categories categories_nodes categories_segments categories_sizes default_left", "dllLLU"
)
_TREE_THEN = _typed(
    "left_children loss_changes parents right_children split_conditions split_indices split_type sum_hessian",
    "ldlldlUd",
)
_ID, _PARAM = _key("id"), _key("tree_param") + b"{"


class UbjsonReader:
    """Reads one document from `content`; raises Unsound for what is none. One use."""

    def __init__(self, content: bytes | bytearray) -> None:
        self._content = content
        self._size = len(content)
        self._parameters: dict[bytes, Any] = {}

    def read(self) -> Any:
        """Return what the document holds, which must be all there is."""
        try:
            found, end = self._value(0, 0)
        except (IndexError, struct.error):
            raise Unsound(_ENDS_EARLY) from None
        need(end == self._size, "something follows after its bytes")
        return found

    def _value(self, at: int, level: int) -> tuple[Any, int]:
        content = self._content
        marker = content[at]
        scalar = _SCALARS.get(marker)
        if scalar is not None:
            return scalar.unpack_from(content, at + 1)[0], at + 1 + scalar.size
        if marker == _TEXT:
            return self._text(at + 1)
        if marker in _CONSTANTS:
            return _CONSTANTS[marker], at + 1
        need(level < MOST_LEVELS, f"its parts are nested more than {MOST_LEVELS} times")
        if marker == _OBJECT:
            return self._object(at + 1, level)
        need(marker == _ARRAY, f"its bytes have the marker {marker}, which XGBoost does not write")
        return self._array(at + 1, level)

    def _length(self, at: int) -> tuple[int, int]:
        need(self._content[at] == _LENGTH, "one of its lengths is not of 64 bits")
        (length,) = _LONG.unpack_from(self._content, at + 1)
        need(0 <= length <= self._size, _ENDS_EARLY)
        return length, at + 9

    def _text(self, at: int) -> tuple[str, int]:
        length, start = self._length(at)
        need(start + length <= self._size, _ENDS_EARLY)
        return str(self._content[start : start + length], "utf-8", "surrogateescape"), start + length

    def _object(self, at: int, level: int) -> tuple[dict[str, Any], int]:
        if self._content.startswith(_TREE_BEGINS, at):
            tree = self._tree(at)
            if tree is not None:
                return tree
        found: dict[str, Any] = {}
        while self._content[at] != _END_OBJECT:
            key, at = self._text(at)
            need(key not in found, f"it has the part {key[:40]} twice")
            found[key], at = self._value(at, level + 1)
        return found, at + 1

    def _array(self, at: int, level: int) -> tuple[Any, int]:
        content = self._content
        if content.startswith(b"$", at):
            return self._numbers(content[at + 1], at + 2)
        found: list[Any] = []
        if content.startswith(b"#", at):
            count, at = self._length(at + 1)
            for _ in range(count):
                value, at = self._value(at, level + 1)
                found.append(value)
            return found, at
        while content[at] != _END_ARRAY:
            value, at = self._value(at, level + 1)
            found.append(value)
        return found, at + 1

    def _numbers(self, marker: int, at: int) -> tuple[Numbers, int]:
        need(marker in _WIDTHS and self._content.startswith(b"#", at), "one of its arrays is of no known type")
        count, start = self._length(at + 1)
        end = start + count * _WIDTHS[marker]
        need(end <= self._size, _ENDS_EARLY)
        return (marker, start, count), end

    # --- the quick way through trees ----------------------------------------------------------------------------------

    def _tree(self, at: int) -> tuple[dict[str, Any], int] | None:
        """Return a tree that is laid out as XGBoost does today, None for any other."""
        found: dict[str, Any] = {}
        between = self._run(_TREE_FIRST, at, found)
        if between is None or not self._content.startswith(_ID, between):
            return None
        found["id"], at = self._value(between + len(_ID), MOST_LEVELS)
        end = self._run(_TREE_THEN, at, found)
        if end is None or not self._content.startswith(_PARAM, end):
            return None
        start = end + len(_PARAM)
        # most trees have the same few parameters
        stop = self._content.find(b"}}", start) + 1
        raw = bytes(self._content[start:stop]) if start < stop < start + 400 else b""
        parameters = self._parameters.get(raw)
        if parameters is None:
            parameters, stop_read = self._object(start, 1)
            if stop_read != stop or not raw:
                return None
            self._parameters[raw] = parameters
        found["tree_param"] = parameters
        return (found, stop + 1) if self._content[stop] == _END_OBJECT else None

    def _run(self, arrays: list[tuple[str, bytes, int, int]], at: int, found: dict[str, Any]) -> int | None:
        """Put arrays that follow each other into `found`, and return where they end; None where others follow."""
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
