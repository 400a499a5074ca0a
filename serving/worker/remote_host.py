"""A host that belongs to the supervisor, as the plane of a worker sees it: its channels, and that it is let go."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from serving.wire.frames import ARENA_BYTES


class RemoteHost:
    """Implements `serving.plane.host_group.Process`. `on_left` is called once, when this worker uses the host no more.

    The supervisor ends the process when all workers have let it go; so nobody here waits for that.
    """

    def __init__(self, descriptors: Sequence[int], on_left: Callable[[], None]) -> None:
        pairs = zip(descriptors[::2], descriptors[1::2], strict=True)
        self.channels = tuple(_open_channel(sock, arena) for sock, arena in pairs)
        self.exited: Future[int | None] = Future()
        self.exited.set_result(None)
        self._on_left: Callable[[], None] | None = on_left

    def kill(self) -> None:
        """Do nothing: the supervisor kills hosts."""

    def close(self) -> None:
        """Close the channels. Any thread; more than once is harmless."""
        for sock, arena in self.channels:
            sock.close()
            with contextlib.suppress(BufferError):  # an answer still refers to it; the garbage collector closes it
                arena.close()
        on_left, self._on_left = self._on_left, None
        if on_left is not None:
            on_left()


def _open_channel(sock: int, arena: int) -> tuple[socket.socket, mmap.mmap]:
    try:
        return socket.socket(fileno=sock), mmap.mmap(arena, ARENA_BYTES)
    finally:
        os.close(arena)
