"""One connection to one host: frames out, answers in, many at a time."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable, Sequence
from typing import cast

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


class HostLink(asyncio.Protocol):
    """The event loop's end of a host's socket. All methods on the loop's thread.

    `on_frame` gets every answer; `on_lost` is called once, when the host is gone or broke the protocol.
    """

    def __init__(
        self, arena: mmap.mmap, on_frame: Callable[[Frame], None], on_lost: Callable[[HostLink], None]
    ) -> None:
        self._arena = arena
        self._arena_holder: int | None = None
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by the loop)."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Tell the owner (called by the loop)."""
        self._transport = None
        self._on_lost(self)

    @property
    def unsent_bytes(self) -> int:
        """What the host has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, request_id: int, header: bytes, buffers: Sequence[Buffer]) -> None:
        """Send one PREDICT frame; a large payload goes through the arena when no other request is using it."""
        if self._transport is None:
            return  # lost a moment ago; the owner sends everything again over the next link
        size = sum(len(buffer) for buffer in buffers)
        if ARENA_THRESHOLD_BYTES <= size <= len(self._arena) and self._arena_holder is None:
            self._arena_holder = request_id
            offset = 0
            for buffer in buffers:
                self._arena[offset : offset + len(buffer)] = buffer
                offset += len(buffer)
            self._transport.write(pack_prefix(Kind.PREDICT, request_id, len(header), size, in_arena=True) + header)
            return
        head = pack_prefix(Kind.PREDICT, request_id, len(header), size) + header
        self._transport.writelines([head, *buffers])

    def close(self) -> None:
        """End the connection; the host exits when it sees that."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Cut the stream into frames (called by the loop)."""
        self._received += data
        try:
            while self._take_frame():
                pass
        except ProtocolError:
            if self._transport is not None:
                self._transport.abort()

    def _take_frame(self) -> bool:
        received = self._received
        if len(received) < PREFIX.size:
            return False
        prefix = unpack_prefix(received[: PREFIX.size])
        end_of_header = PREFIX.size + prefix.header_bytes
        end = end_of_header + prefix.payload_bytes
        if len(received) < end:
            return False
        header = bytes(received[PREFIX.size : end_of_header])
        payload = memoryview(bytes(received[end_of_header:end]))
        del received[:end]
        if self._arena_holder == prefix.request_id:
            self._arena_holder = None
        self._on_frame(Frame(prefix.kind, prefix.request_id, header, payload))
        return True
