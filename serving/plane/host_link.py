"""One connection to one host process: it sends a frame and receives its answer.

The host is an enemy: it may send anything at any time. The link accepts only the answer to the request under way, and
checks the size of the answer before it allocates memory for it. Anything else ends the link.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from serving.domain.errors import ProtocolError
from serving.domain.last_words import RESERVED_BYTES, read_last_words, read_noted_request
from serving.domain.text import one_line
from serving.wire.frames import (
    ANSWERS,
    ARENA_THRESHOLD_BYTES,
    PREFIX,
    Buffer,
    Frame,
    FrameKind,
    Prefix,
    pack_prefix,
    unpack_prefix,
)

READ_BYTES = 64 << 10


class HostLink(asyncio.BufferedProtocol):
    """The event loop's end of a host's socket. All methods on the loop's thread.

    `on_frame` gets every answer; `on_lost` is called once, when the host is gone: `violation` says how it broke the
    protocol, or why it ended itself, if it did. One request may be under way at a time: its payload may lie in the
    arena until its answer is here.
    """

    def __init__(self, arena: mmap.mmap, on_frame: Callable[[Frame], None], on_lost: Callable[[], None]) -> None:
        self._arena = arena
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self.violation: str | None = None
        self.was_computing = False  # once it is lost: whether it ended while it computed this link's request alone
        # What is under way: its number, 0 for nothing, and the most bytes that its answer may have.
        self._last_id = self._request_id = 0
        self._most_bytes = 0
        # A frame is cut out of `_small`; one that is longer is filled into `_large`, which is made for it.
        self._small = memoryview(bytearray(READ_BYTES))
        self._large: memoryview | None = None
        self._prefix: Prefix | None = None
        self._filled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by the loop)."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Tell the owner (called by the loop)."""
        if self._transport is not None:  # this side has not ended it
            words = read_last_words(self._arena)
            self.violation = None if words is None else f"ended itself ({words})"
            self.was_computing = bool(self._request_id) and read_noted_request(self._arena) == self._request_id
        self._transport = None
        self._on_lost()

    @property
    def is_connected(self) -> bool:
        """True until the host is gone."""
        return self._transport is not None

    def send(self, header: bytes, buffers: Sequence[Buffer], most_bytes: int, most_rows: int = 0) -> None:
        """Send one PREDICT frame; its answer has at most `most_bytes` of payload. The frame before must be answered.

        A large payload goes through the arena, if it fits. `most_rows` is how many rows the host may compute together,
        if it computes these with those of other processes of the server; 0 forbids that.
        """
        if self._transport is None:
            return  # lost a moment ago; the owner will be told and sends it again over another link
        self._last_id = request_id = self._last_id + 1
        self._request_id, self._most_bytes = request_id, most_bytes
        size = sum(len(buffer) for buffer in buffers)
        in_arena = ARENA_THRESHOLD_BYTES <= size <= len(self._arena) - RESERVED_BYTES
        head = (
            pack_prefix(FrameKind.PREDICT, request_id, len(header), size, in_arena=in_arena, most_rows=most_rows)
            + header
        )
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
        """End the connection and discard what has not been sent."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (asyncio's signature)
        """Return where the next bytes belong (called by the loop)."""
        target = self._small if self._large is None else self._large
        return target[self._filled :]

    def break_off(self, violation: str) -> None:
        """End the connection because the host broke the protocol; `on_lost` tells the owner."""
        self.violation = f"broke the protocol ({violation})"
        self.was_computing = True  # it answered this link's request with that
        self.abort()

    def buffer_updated(self, nbytes: int) -> None:
        """Cut an answer out of the stream (called by the loop)."""
        self._filled += nbytes
        try:
            if self._large is None:
                self._cut()
            elif self._filled == len(self._large):
                body, prefix = self._large, self._prefix
                self._large, self._filled = None, 0
                assert prefix is not None
                self._take(prefix, bytes(body[: prefix.header_bytes]), body[prefix.header_bytes :])
        except ProtocolError as error:
            self.break_off(one_line(str(error)))
        except MemoryError:
            self.break_off("more than there is memory for")

    def _cut(self) -> None:
        """Take a whole answer, begin a large one, or keep the start of a small one."""
        if not self._request_id:
            raise ProtocolError("bytes without a request")
        end = self._filled
        if end < PREFIX.size:
            return
        prefix = unpack_prefix(self._small[: PREFIX.size])
        self._check(prefix)
        size = prefix.header_bytes + prefix.payload_bytes
        body = PREFIX.size
        if body + size > READ_BYTES:
            self._begin_large_frame(prefix, size, self._small[body:end])
        elif body + size <= end:
            if body + size < end:
                raise ProtocolError("bytes after an answer")
            payload = body + prefix.header_bytes
            self._filled = 0
            self._take(prefix, bytes(self._small[body:payload]), memoryview(bytes(self._small[payload:end])))

    def _check(self, prefix: Prefix) -> None:
        """Raise ProtocolError unless this may be the answer to the request under way."""
        if prefix.kind not in ANSWERS or prefix.request_id != self._request_id:
            raise ProtocolError(
                f"{prefix.kind.name} of request {prefix.request_id}, where an answer to {self._request_id} was expected"
            )
        if prefix.payload_bytes > self._most_bytes:
            raise ProtocolError(f"an answer of {prefix.payload_bytes} bytes, at most {self._most_bytes} are taken")

    def _begin_large_frame(self, prefix: Prefix, size: int, beginning: memoryview) -> None:
        before = -prefix.header_bytes % 8  # so that the payload's numbers are aligned
        if len(beginning) > size:
            raise ProtocolError("bytes after an answer")
        self._large = np.empty(before + size, np.uint8).data[before:]
        self._large[: len(beginning)] = beginning
        self._prefix, self._filled = prefix, len(beginning)

    def _take(self, prefix: Prefix, header: bytes, payload: memoryview) -> None:
        self._request_id = 0
        self._on_frame(Frame(prefix.kind, prefix.request_id, header, payload))
