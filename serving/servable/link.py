"""One connection to one host process: a frame out, its answer in."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from serving.domain.errors import ProtocolError
from serving.host.protocol import (
    ARENA_THRESHOLD_BYTES,
    PREFIX,
    Buffer,
    Frame,
    Kind,
    Prefix,
    pack_prefix,
    unpack_prefix,
)

READ_BYTES = 64 << 10


class HostLink(asyncio.BufferedProtocol):
    """The event loop's end of a host's socket. All methods on the loop's thread.

    `on_frame` gets every answer; `on_lost` is called once, when the host is gone or broke the protocol. One request may
    be under way at a time: its payload may lie in the arena until its answer is here.
    """

    def __init__(self, arena: mmap.mmap, on_frame: Callable[[Frame], None], on_lost: Callable[[], None]) -> None:
        self._arena = arena
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        # Frames are cut out of `_small`; one that is longer is filled into `_large`, which is made for it.
        self._small = memoryview(bytearray(READ_BYTES))
        self._large: memoryview | None = None
        self._prefix: Prefix | None = None
        self._filled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by the loop)."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Tell the owner (called by the loop)."""
        self._transport = None
        self._on_lost()

    @property
    def is_connected(self) -> bool:
        """True until the host is gone."""
        return self._transport is not None

    def send(self, request_id: int, header: bytes, buffers: Sequence[Buffer]) -> None:
        """Send one PREDICT frame; a large payload goes through the arena, if it fits. The one before is answered."""
        if self._transport is None:
            return  # lost a moment ago; the owner will be told and sends it again over another link
        size = sum(len(buffer) for buffer in buffers)
        in_arena = ARENA_THRESHOLD_BYTES <= size <= len(self._arena)
        head = pack_prefix(Kind.PREDICT, request_id, len(header), size, in_arena=in_arena) + header
        if in_arena:
            offset = 0
            for buffer in buffers:
                self._arena[offset : offset + len(buffer)] = buffer
                offset += len(buffer)
            self._transport.write(head)
        elif size < ARENA_THRESHOLD_BYTES:
            self._transport.write(b"".join((head, *buffers)))
        else:
            self._transport.writelines([head, *buffers])

    def close(self) -> None:
        """End the connection; the host exits when it sees that."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection without sending what has not been sent."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (asyncio's signature)
        """Return where the next bytes belong (called by the loop)."""
        target = self._small if self._large is None else self._large
        return target[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Cut the stream into frames (called by the loop)."""
        self._filled += nbytes
        try:
            if self._large is None:
                self._cut()
            elif self._filled == len(self._large):
                body, prefix = self._large, self._prefix
                self._large, self._filled = None, 0
                assert prefix is not None
                header = bytes(body[: prefix.header_bytes])
                self._on_frame(Frame(prefix.kind, prefix.request_id, header, body[prefix.header_bytes :]))
        except (ProtocolError, MemoryError):
            self.abort()

    def _cut(self) -> None:
        """Take every whole frame out of what was read; begin a large one, or keep the start of a small one."""
        start, end = 0, self._filled
        while end - start >= PREFIX.size:
            prefix = unpack_prefix(self._small[start : start + PREFIX.size])
            size = prefix.header_bytes + prefix.payload_bytes
            body = start + PREFIX.size
            if body + size <= end:
                payload = body + prefix.header_bytes
                start = body + size
                header = bytes(self._small[body:payload])
                self._on_frame(
                    Frame(prefix.kind, prefix.request_id, header, memoryview(bytes(self._small[payload:start])))
                )
            elif PREFIX.size + size > READ_BYTES:
                self._begin_large(prefix, size, self._small[body:end])
                return
            else:
                break
        self._filled = end - start
        self._small[: self._filled] = self._small[start:end]

    def _begin_large(self, prefix: Prefix, size: int, beginning: memoryview) -> None:
        before = -prefix.header_bytes % 8  # so that the payload's numbers are aligned
        self._large = np.empty(before + size, np.uint8).data[before:]
        self._large[: len(beginning)] = beginning
        self._prefix, self._filled = prefix, len(beginning)
