"""What is sent: the parts of an answer together, and the answers of a turn of the event loop after each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class WriteQueue:
    """What is to be sent at the end of this turn of the event loop. Event loop thread only.

    Writes of a turn follow each other directly: the first wakes a client that waits in another process, which takes
    longer than the write itself, and by the next one that client is awake.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[JoinedWrites] = []

    def add(self, writes: JoinedWrites) -> None:
        """Have `writes` flushed before the loop looks for new events."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(writes)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for writes in waiting:
            writes.flush()


class JoinedWrites:
    """A transport that sends what is written in one turn of the event loop together. Event loop thread only.

    `end` is called for a close, after everything written before has been sent.
    """

    def __init__(self, transport: asyncio.Transport, write_queue: WriteQueue, end: Callable[[], None]) -> None:
        self._transport = transport
        self._write_queue = write_queue
        self._end = end
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Keep `data` until the end of this turn."""
        if not self._parts:
            self._write_queue.add(self)
        self._parts.append(data)

    def flush(self) -> None:
        """Send what has been kept."""
        parts, self._parts = self._parts, []
        if len(parts) == 1:
            self._transport.write(parts[0])
        elif parts:
            self._transport.writelines(parts)

    def close(self) -> None:
        """Close after everything written before."""
        self.flush()
        self._end()

    def is_closing(self) -> bool:
        """Say whether the transport is closing."""
        return self._transport.is_closing()
