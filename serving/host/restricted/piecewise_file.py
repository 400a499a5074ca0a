"""Reads a file in large pieces for a reader of single bytes; of long texts only both ends are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_PIECE_BYTES = 1 << 16
# of a longer content, the beginning and the end are kept: names are shorter, and boosters have their version there
LONGEST_KEPT_BYTES = 1000
_KEPT_END_BYTES = 200


class PiecewiseFile:
    """The bytes of a file that has `read1`. `data[at:]` are the next ones: as many as `require` has asked for.

    Raises EOFError at the end of the file, and what the file raises beyond its budget.
    """

    __slots__ = ("_file", "at", "data")

    def __init__(self, file: Any) -> None:
        self._file = file
        self.data = b""
        self.at = 0

    def require(self, count: int) -> None:
        """Have at least `count` more bytes in `data`; at the end of the file raise EOFError."""
        missing = self.at + count - len(self.data)
        if missing <= 0:
            return
        pieces = [self.data[self.at :]]
        while missing > 0:
            piece = self._file.read1(max(missing, _PIECE_BYTES))
            if not piece:
                raise EOFError("it is shorter than it says")
            pieces.append(piece)
            missing -= len(piece)
        self.data, self.at = b"".join(pieces), 0

    def take_byte(self) -> int:
        """Return the next byte as a number."""
        if self.at >= len(self.data):
            self.require(1)
        self.at += 1
        return self.data[self.at - 1]

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes, a few hundred at most."""
        self.require(count)
        self.at += count
        return self.data[self.at - count : self.at]

    def take_number(self, count: int) -> int:
        """Return the next bytes as a number without a sign, the lowest byte first."""
        if count == 1:
            return self.take_byte()
        return int.from_bytes(self.take(count), "little")

    def take_ends(self, count: int) -> bytes:
        """Return the next `count` bytes; if these are many, only the beginning and the end of them."""
        if count <= LONGEST_KEPT_BYTES:
            return self.take(count)
        begin = self.take(LONGEST_KEPT_BYTES - _KEPT_END_BYTES)
        self.skip(count - LONGEST_KEPT_BYTES)
        return begin + self.take(_KEPT_END_BYTES)

    def skip(self, count: int) -> None:
        """Pass over `count` bytes."""
        for _ in self.iterate_pieces(count):
            pass

    def iterate_pieces(self, count: int) -> Iterator[bytes]:
        """Yield the next `count` bytes, piece by piece."""
        while count:
            if self.at == len(self.data):
                self.require(1)
            piece = self.data[self.at : self.at + count]
            self.at += len(piece)
            count -= len(piece)
            yield piece

    def take_line(self) -> bytes:
        """Return a line without its end; if it is long, only its beginning and its end."""
        line = b""
        while (end := self.data.find(b"\n", self.at)) < 0:
            line = _keep_ends(line + self.data[self.at :])
            self.data, self.at = self._file.read1(_PIECE_BYTES), 0
            if not self.data:
                raise EOFError("it ends within a line")
        line += self.data[self.at : end]
        self.at = end + 1
        return _keep_ends(line)


def _keep_ends(content: bytes) -> bytes:
    if len(content) <= LONGEST_KEPT_BYTES:
        return content
    return content[: LONGEST_KEPT_BYTES - _KEPT_END_BYTES] + content[-_KEPT_END_BYTES:]
