"""The host's ends of what it shares with the server: its lifeline, and the channels over which requests come."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from serving.domain.last_words import ENDED_ITSELF, Memory, write_last_words
from serving.wire.frames import ARENA_BYTES


class Channel:
    """The host's end of one channel: its socket and its arena. Owns both."""

    def __init__(self, sock: socket.socket, arena: mmap.mmap) -> None:
        self.socket = sock
        self.arena = arena

    def close(self) -> None:
        """Close the socket and the arena in this process only. Nothing else may be done with it afterwards."""
        self.socket.close()
        with contextlib.suppress(BufferError):  # part of a request is still used: the last user frees it
            self.arena.close()
        del self.arena


class ChannelEnds(NamedTuple):
    """A channel of which nothing is mapped yet: the memory of other processes' channels is not taken from the model."""

    socket: socket.socket
    arena_fd: int

    def open(self) -> Channel:
        """Return the channel, which owns the socket from now on."""
        arena = mmap.mmap(self.arena_fd, ARENA_BYTES)
        os.close(self.arena_fd)
        return Channel(self.socket, arena)

    def close(self) -> None:
        """Close both in this process only."""
        self.socket.close()
        os.close(self.arena_fd)


class Lifeline:
    """The host's end of its lifeline: the socket of its evaluation, and the memory of its last words.

    Owns both. The memory stays when the socket is closed.
    """

    def __init__(self, socket_fd: int, arena_fd: int) -> None:
        self.socket = socket.socket(fileno=socket_fd)
        size = mmap.ALLOCATIONGRANULARITY
        self.end = mmap.mmap(arena_fd, size, offset=ARENA_BYTES - size)
        os.close(arena_fd)


class LastWords:
    """Where this process leaves its last words: in every memory that somebody may look into. Any thread writes."""

    def __init__(self, *memories: Memory) -> None:
        self.memories: tuple[Memory, ...] = memories

    def write(self, text: str, status: int = ENDED_ITSELF) -> None:
        """Leave `text`, because this process is about to exit with `status`."""
        for memory in self.memories:
            write_last_words(memory, text, status)


def open_ends(fds: Sequence[int]) -> list[ChannelEnds]:
    """Take descriptors that come in pairs: socket, arena, socket, arena ..."""
    # Sockets are made now, because a process that is watched for what its model does may make none.
    return [ChannelEnds(socket.socket(fileno=sock), arena) for sock, arena in zip(fds[::2], fds[1::2], strict=True)]
