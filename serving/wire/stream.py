"""Send and receive one frame over a blocking socket. The event loop does the same in :mod:`serving.plane.host_link`."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from serving.domain.errors import ProtocolError
from serving.wire.frames import (
    ARENA_THRESHOLD_BYTES,
    PREFIX,
    Buffer,
    Frame,
    FrameKind,
    Prefix,
    pack_prefix,
    unpack_prefix,
)

READ_AHEAD_BYTES = 64 << 10


class StreamCut(ProtocolError):
    """The stream ended inside a frame: the process that wrote it is gone."""


class ByteSource(Protocol):
    """What bytes are read from: a socket, or `TimedSocket`."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Fill the beginning of `buffer` and return how many bytes there were; 0 at the end of the stream."""
        ...


class TimedSocket:
    """A socket with one deadline for all reads: `ends_at` (monotonic).

    The socket's own timeout would start again with each byte.
    """

    def __init__(self, sock: socket.socket, ends_at: float) -> None:
        self._socket = sock
        self.ends_at = ends_at

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read as a socket does; raises TimeoutError after the deadline."""
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return self._socket.recv_into(buffer)


def send_frame(
    sock: socket.socket, kind: FrameKind, request_id: int, header: bytes, buffers: Sequence[Buffer] = ()
) -> None:
    """Write one frame to a blocking socket."""
    payload_bytes = sum(len(buffer) for buffer in buffers)
    head = pack_prefix(kind, request_id, len(header), payload_bytes) + header
    if payload_bytes < ARENA_THRESHOLD_BYTES:
        sock.sendall(b"".join([head, *buffers]))
        return
    sock.sendall(head)
    for buffer in buffers:
        sock.sendall(buffer)


def receive_frame(sock: socket.socket, arena: memoryview | None = None) -> Frame | None:
    """Read one frame from a blocking socket and no byte beyond it; None at a clean end of the stream.

    Raises ProtocolError for bytes that are no frame, StreamCut for a stream that ends inside one, and what the socket
    raises: TimeoutError when it has a timeout and nothing came in that time.
    """
    return FrameReader(sock, arena, PREFIX.size).receive()


class FrameReader:
    """Reads the frames of a blocking socket. It reads ahead, so a small frame costs one system call.

    A reader that reads more than a prefix ahead must be the last reader of its socket. `check` is called with each
    prefix before memory is allocated or more is read for its frame; it may raise any exception. One thread only.
    """

    def __init__(
        self,
        source: ByteSource,
        arena: memoryview | None = None,
        read_ahead_bytes: int = READ_AHEAD_BYTES,
        check: Callable[[Prefix], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._arena = arena
        self._check = check
        self._ahead = memoryview(bytearray(read_ahead_bytes))
        self._start = self._end = 0

    def receive(self) -> Frame | None:
        """Return the next frame, or None at a clean end of the stream; raises what `receive_frame` raises."""
        if not self._fill_prefix():
            return None
        prefix = unpack_prefix(self._ahead[self._start : self._start + PREFIX.size])
        self._check(prefix)
        self._start += PREFIX.size
        header = self._read(prefix.header_bytes)
        if not prefix.in_arena:
            return Frame(prefix.kind, prefix.request_id, header, self._read(prefix.payload_bytes))
        if self._arena is None or prefix.payload_bytes > len(self._arena):
            raise ProtocolError("a payload points into an arena that is not there")
        return Frame(prefix.kind, prefix.request_id, header, self._arena[: prefix.payload_bytes])

    def _fill_prefix(self) -> bool:
        left = self._end - self._start
        self._ahead[:left] = self._ahead[self._start : self._end]
        self._start, self._end = 0, left
        while self._end < PREFIX.size:
            count = self._source.recv_into(self._ahead[self._end :])
            if count == 0:
                if self._end:
                    raise StreamCut("the stream ended inside a frame")
                return False
            self._end += count
        return True

    def _read(self, size: int) -> memoryview:
        """Return the next bytes in new memory, in which numbers are aligned."""
        wanted = np.empty(size, np.uint8).data  # not filled with zeros first, as a bytearray would be
        ahead = min(size, self._end - self._start)
        wanted[:ahead] = self._ahead[self._start : self._start + ahead]
        self._start += ahead
        left = wanted[ahead:]
        while left:
            count = self._source.recv_into(left)
            if count == 0:
                raise StreamCut("the stream ended inside a frame")
            left = left[count:]
        return wanted
