"""What a host leaves at the end of the shared memory of a channel: last words, and the request that it computes.

Last words are a text that says why the process ended: a host that must not run another line of Python cannot send a
frame, and one whose own code failed may be in the middle of one. The server does not trust this text: it only shows it
to people.

A process that serves several channels notes in each of them which request it computes now, and computes alone. When it
dies, only that request may be at fault. Requests that waited in other channels are not, and of several that were
computed together it is not known which one is.
"""

from __future__ import annotations

import struct
from typing import Protocol

from serving.domain.text import one_line

# the exit status of a host that ended itself because of what its model tried, and of one whose own code failed;
# with any other status there are no last words
ENDED_ITSELF, FAILED = 86, 1
# requests do not use these bytes; the note has the last ones of them
RESERVED_BYTES = 1024
NOTE_BYTES = 8
MOST_CHARACTERS = 200

_HEAD = struct.Struct("<4sH")
_NOTE = struct.Struct("<Q")
_MAGIC = {ENDED_ITSELF: b"SVLW", FAILED: b"SVFE"}
_SENTENCES = {
    ENDED_ITSELF: "the model tried to {} after it was loaded, which ended its process",
    FAILED: "the process failed ({})",
}
_MAX_BYTES = RESERVED_BYTES - _HEAD.size - NOTE_BYTES


class Memory(Protocol):
    """The shared memory: a mapping that is written to and read from."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: slice, /) -> bytes: ...

    def __setitem__(self, place: slice, content: bytes, /) -> None: ...


def write_last_words(memory: Memory, text: str, status: int = ENDED_ITSELF) -> None:
    """Leave `text` at the end of `memory`, for a process that is about to exit with `status`."""
    raw = text.encode("utf-8", "backslashreplace")[:_MAX_BYTES]
    start = len(memory) - RESERVED_BYTES
    memory[start : start + _HEAD.size + len(raw)] = _HEAD.pack(_MAGIC[status], len(raw)) + raw


def read_last_words(memory: Memory, status: int = ENDED_ITSELF) -> str | None:
    """Say in one printable line why a process ended with `status`; None where the end of `memory` does not tell."""
    reserved = memory[len(memory) - RESERVED_BYTES :]
    magic, size = _HEAD.unpack_from(reserved)
    if magic != _MAGIC.get(status) or size > _MAX_BYTES:
        return None
    words = one_line(reserved[_HEAD.size : _HEAD.size + size].decode("utf-8", "replace"), MOST_CHARACTERS)
    return _SENTENCES[status].format(words)


def note_request(memory: Memory, request_id: int) -> None:
    """Note that this request of the channel with this `memory` is now computed, alone; 0 for none."""
    memory[len(memory) - NOTE_BYTES :] = _NOTE.pack(request_id)


def read_noted_request(memory: Memory) -> int:
    """Return the number of the request that was computed alone, or was computed last; 0 for none.

    Numbers of requests grow on a channel, so this is the number of an unanswered request only while it is computed. A
    host may lie here: it can blame only requests to its own model, or none.
    """
    (request_id,) = _NOTE.unpack(memory[len(memory) - NOTE_BYTES :])
    return int(request_id)
