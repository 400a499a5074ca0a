"""Send and receive frames over a socket. The event loop does the same in :mod:`serving.plane.host_link`.

`send_frame` and `receive_frame` block. A process that has several sockets uses a `FrameReader` and a `FrameWriter` for
each of them, which never block if their socket does not.
"""

from __future__ import annotations

import socket
import time
from collections import deque
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
    for part in _pack_frame(kind, request_id, header, buffers):
        sock.sendall(part)


def receive_frame(sock: socket.socket, arena: memoryview | None = None) -> Frame | None:
    """Read one frame from a blocking socket and no byte beyond it; None at a clean end of the stream.

    Raises ProtocolError for bytes that are no frame, StreamCut for a stream that ends inside one, and what the socket
    raises: TimeoutError when it has a timeout and nothing came in that time.
    """
    return FrameReader(sock, arena, PREFIX.size).receive()


def _pack_frame(kind: FrameKind, request_id: int, header: bytes, buffers: Sequence[Buffer]) -> list[Buffer]:
    """Return what to write for one frame: one piece, or more where it is large."""
    payload_bytes = sum(len(buffer) for buffer in buffers)
    head = pack_prefix(kind, request_id, len(header), payload_bytes) + header
    if payload_bytes < ARENA_THRESHOLD_BYTES:
        return [b"".join([head, *buffers])]
    return [head, *buffers]


class FrameReader:
    """Takes frames out of a stream, piece by piece. It reads ahead, so a small frame costs one system call.

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
        # the frame under way; `_missing` is the part of its header or payload that has not arrived
        self._prefix: Prefix | None = None
        self._header: memoryview | None = None
        self._payload: memoryview | None = None
        self._missing = memoryview(b"")

    def receive(self) -> Frame | None:
        """Return the next frame, or None at a clean end of the stream; raises what `receive_frame` raises. Blocks."""
        while (frame := self.take()) is None:
            if not self.read():
                return None
        return frame

    def take(self) -> Frame | None:
        """Return the next frame if all of it has been read; raises ProtocolError. Never blocks."""
        prefix = self._prefix
        if prefix is None:
            if self._end - self._start < PREFIX.size:
                return None
            prefix = unpack_prefix(self._ahead[self._start : self._start + PREFIX.size])
            self._check(prefix)
            self._start += PREFIX.size
            self._prefix, self._header = prefix, self._begin(prefix.header_bytes)
        if self._missing:
            return None
        if self._payload is None:
            self._payload = self._find_in_arena(prefix) if prefix.in_arena else self._begin(prefix.payload_bytes)
            if self._missing:
                return None
        assert self._header is not None
        frame = Frame(prefix.kind, prefix.request_id, self._header, self._payload, prefix.most_rows)
        self._prefix = self._header = self._payload = None
        return frame

    def read(self) -> bool:
        """Read once from the source; False at a clean end of the stream. Call it when `take` has returned None.

        Blocks if the source does; raises StreamCut, and what the source raises, which is BlockingIOError where it does
        not block and has nothing.
        """
        if self._missing:
            count = self._source.recv_into(self._missing)
            self._missing = self._missing[count:]
        else:
            left = self._end - self._start
            self._ahead[:left] = self._ahead[self._start : self._end]
            self._start, self._end = 0, left
            count = self._source.recv_into(self._ahead[left:])
            self._end += count
        if count == 0 and (self._end > self._start or self._prefix is not None):
            raise StreamCut("the stream ended inside a frame")
        return count > 0

    def _find_in_arena(self, prefix: Prefix) -> memoryview:
        if self._arena is None or prefix.payload_bytes > len(self._arena):
            raise ProtocolError("a payload points into an arena that is not there")
        return self._arena[: prefix.payload_bytes]

    def _begin(self, size: int) -> memoryview:
        """Return new memory for the next bytes, in which numbers are aligned, with those that have been read."""
        wanted = np.empty(size, np.uint8).data  # not filled with zeros first, as a bytearray would be
        ahead = min(size, self._end - self._start)
        wanted[:ahead] = self._ahead[self._start : self._start + ahead]
        self._start += ahead
        self._missing = wanted[ahead:]
        return wanted


class FrameWriter:
    """Writes frames to a socket that does not block. `unsent` is what the socket has not taken yet. One thread only."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._is_copied = True
        self.unsent: deque[Buffer] = deque()

    def send(self, kind: FrameKind, request_id: int, header: bytes, buffers: Sequence[Buffer] = ()) -> None:
        """Send one frame, or as much of it as the socket takes now; raises OSError when the other side is gone."""
        self.unsent.extend(_pack_frame(kind, request_id, header, buffers))
        self._is_copied = False
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes now; raises OSError when the other side is gone."""
        unsent = self.unsent
        while unsent:
            first = unsent[0]
            try:
                count = self._socket.send(first)
            except BlockingIOError:
                return
            if count < len(first):
                unsent[0] = memoryview(first)[count:]
            else:
                unsent.popleft()

    def copy_unsent(self) -> None:
        """Copy what has not been sent: from now on the memory that `send` was given may change."""
        if not self._is_copied:
            self._is_copied = True
            self.unsent = deque([bytes(part) for part in self.unsent])
