"""The wire's two blocking ends: one frame out, one frame in. The event loop's end is :mod:`serving.servable.link`."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import numpy as np

from serving.domain.errors import ProtocolError
from serving.host.protocol import (
    ARENA_THRESHOLD_BYTES,
    PREFIX,
    Buffer,
    Frame,
    Kind,
    pack_prefix,
    unpack_prefix,
)

READ_AHEAD_BYTES = 64 << 10


def send_frame(sock: socket.socket, kind: Kind, request_id: int, header: bytes, buffers: Sequence[Buffer] = ()) -> None:
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
    """Read one frame from a blocking socket and not a byte beyond it; None at a clean end of the stream.

    Raises ProtocolError for bytes that are no frame and for a stream that ends inside one, and what the socket raises:
    TimeoutError when it has a timeout and nothing came for so long.
    """
    return FrameReader(sock, arena, PREFIX.size).receive()


class FrameReader:
    """Reads the frames of a blocking socket, ahead where it can: a small frame costs one call of the system.

    Nobody else may read from the socket afterwards. One thread only.
    """

    def __init__(
        self, sock: socket.socket, arena: memoryview | None = None, read_ahead_bytes: int = READ_AHEAD_BYTES
    ) -> None:
        self._socket = sock
        self._arena = arena
        self._ahead = memoryview(bytearray(read_ahead_bytes))
        self._start = self._end = 0

    def receive(self) -> Frame | None:
        """Return the next frame, or None at a clean end of the stream; raises what `receive_frame` raises."""
        if not self._fill_prefix():
            return None
        prefix = unpack_prefix(self._ahead[self._start : self._start + PREFIX.size])
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
            count = self._socket.recv_into(self._ahead[self._end :])
            if count == 0:
                if self._end:
                    raise ProtocolError("the stream ended inside a frame")
                return False
            self._end += count
        return True

    def _read(self, size: int) -> memoryview:
        """Return the next bytes in memory of their own, where numbers are aligned."""
        wanted = np.empty(size, np.uint8).data  # not filled with zeros first, as a bytearray would be
        ahead = min(size, self._end - self._start)
        wanted[:ahead] = self._ahead[self._start : self._start + ahead]
        self._start += ahead
        left = wanted[ahead:]
        while left:
            count = self._socket.recv_into(left)
            if count == 0:
                raise ProtocolError("the stream ended inside a frame")
            left = left[count:]
        return wanted
