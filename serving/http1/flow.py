"""When a connection is read, and how long its client may take to read an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl

from serving.api.deadlines import Deadlines


class ConnectionFlow(FlowControl):
    """uvicorn's flow control, which asks `may_read` before it reads on, and gives up a client that reads nothing.

    Event loop thread only. `stalled` are the connections whose client does not read what is waiting to be sent.
    """

    def __init__(self, transport: asyncio.Transport, stalled: Deadlines, may_read: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._stalled = stalled
        self._may_read = may_read
        self._loop = asyncio.get_running_loop()

    def pause_for_a_turn(self) -> None:
        """Read on in the next turn of the loop, after every other connection. libuv would read 8 MB of one connection
        before it looks at another, for 12 ms.
        """
        if not self._transport.is_closing():
            self.pause_reading()
            self._loop.call_soon(self.resume_reading)

    def resume_reading(self) -> None:
        """Read again (called by uvicorn), unless something has to be answered first."""
        if self._may_read() and not self._transport.is_closing():
            super().resume_reading()

    def pause_writing(self) -> None:
        """Let writers wait (called by the loop), for a limited time."""
        super().pause_writing()
        self._stalled.begin(self)

    def resume_writing(self) -> None:
        """Let writers go on (called by the loop)."""
        self._stalled.end(self)
        super().resume_writing()

    def on_overdue(self) -> None:
        """Give up the client (called by `Deadlines`)."""
        self._transport.abort()
