"""The wire's two blocking ends: one frame out, one frame in. The event loop's end is :mod:`serving.servable.link`."""

from __future__ import annotations

import socket
from collections.abc import Sequence

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
    """Read one frame from a blocking socket; None at a clean end of the stream.

    Raises ProtocolError for bytes that are no frame and for a stream that ends inside one.
    """
    raw = bytearray(PREFIX.size)
    first = sock.recv_into(raw)
    if first == 0:
        return None
    _receive_exactly(sock, memoryview(raw)[first:])
    prefix = unpack_prefix(raw)
    header = bytearray(prefix.header_bytes)
    _receive_exactly(sock, memoryview(header))
    if prefix.in_arena:
        if arena is None or prefix.payload_bytes > len(arena):
            raise ProtocolError("a payload points into an arena that is not there")
        return Frame(prefix.kind, prefix.request_id, header, arena[: prefix.payload_bytes])
    payload = memoryview(bytearray(prefix.payload_bytes))
    _receive_exactly(sock, payload)
    return Frame(prefix.kind, prefix.request_id, header, payload)


def _receive_exactly(sock: socket.socket, view: memoryview) -> None:
    while view:
        count = sock.recv_into(view)
        if count == 0:
            raise ProtocolError("the stream ended inside a frame")
        view = view[count:]
