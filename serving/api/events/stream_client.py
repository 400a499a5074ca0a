"""One client of the stream: what waits to be sent to it, and whether it has seen all of the history."""

from __future__ import annotations

import asyncio

MOST_WAITING_BYTES = 8 << 20  # all clients share the same bytes


class StreamClient:
    """What one client is sent. Event loop thread only.

    `cursor` is the id of the last entry of the history that it has, until it `has_caught_up`: from then on it gets what
    all get. `has_ended`: nothing more is sent, because it reads too slowly, has gone, or the server stops.
    """

    def __init__(self, cursor: str | None, *, has_caught_up: bool) -> None:
        self.cursor = cursor
        self.has_caught_up = has_caught_up
        self.has_ended = False
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._has_news = asyncio.Event()

    def put_first(self, text: bytes) -> None:
        """Add the whole state, however much that is."""
        self._waiting.append(text)
        self._has_news.set()

    def put(self, text: bytes) -> bool:
        """Add events to what waits; return False when that is too much now, and the client has ended."""
        if self.has_ended:
            return True
        self._waiting_bytes += len(text)
        if self._waiting_bytes > MOST_WAITING_BYTES:
            self.end()
            return False
        self._waiting.append(text)
        self._has_news.set()
        return True

    def wake(self) -> None:
        """Let `take` return."""
        self._has_news.set()

    def end(self) -> None:
        """Send nothing more."""
        self.has_ended = True
        self._waiting.clear()
        self._has_news.set()

    async def take(self, seconds: float) -> bytes | None:
        """Return what waits, as soon as there is anything or this was woken; None when nothing has come in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._has_news.wait()
        except TimeoutError:
            return None
        self._has_news.clear()
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return b"".join(waiting)
