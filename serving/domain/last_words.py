"""The last words of a host: why it ended itself, at the end of the memory that it shares with the server.

A process that must not run another line of Python has no time for a frame, and may be in the middle of one. What lies
there is believed to be no more than text for people.
"""

from __future__ import annotations

import struct
from typing import Protocol

from serving.domain.text import one_line

# what a host exits with then; any other status says nothing of that kind
ENDED_ITSELF = 86
# no request's bytes lie there
RESERVED_BYTES = 1024
MOST_CHARACTERS = 200

_HEAD = struct.Struct("<4sH")
_MAGIC = b"SVLW"
_MAX_BYTES = RESERVED_BYTES - _HEAD.size


class Memory(Protocol):
    """What is written to and read from: a mapping."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: slice, /) -> bytes: ...

    def __setitem__(self, place: slice, content: bytes, /) -> None: ...


def write_last_words(memory: Memory, text: str) -> None:
    """Leave `text` at the end of `memory`."""
    raw = text.encode("utf-8", "backslashreplace")[:_MAX_BYTES]
    start = len(memory) - RESERVED_BYTES
    memory[start : start + _HEAD.size + len(raw)] = _HEAD.pack(_MAGIC, len(raw)) + raw


def read_last_words(memory: Memory) -> str | None:
    """Return what was left at the end of `memory`, in one printable line; None where there is nothing."""
    reserved = memory[len(memory) - RESERVED_BYTES :]
    magic, size = _HEAD.unpack_from(reserved)
    if magic != _MAGIC or size > _MAX_BYTES:
        return None
    words = one_line(reserved[_HEAD.size : _HEAD.size + size].decode("utf-8", "replace"), MOST_CHARACTERS)
    return f"the model tried to {words} after it was loaded, which ended its process"
