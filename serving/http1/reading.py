"""When a connection is read, and until when its client has to take what it is sent."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl

from serving.http1.deadlines import Deadlines


class Reading(FlowControl):
    """uvicorn's flow control, which does not read on while it is held, nor wait for ever for a client that never reads.

    Event loop thread only. `stalled` are those whose client takes nothing of what is waiting to be sent.
    """

    def __init__(self, transport: asyncio.Transport, stalled: Deadlines) -> None:
        super().__init__(transport)
        self._stalled = stalled
        self._is_held = False
        self._loop = asyncio.get_running_loop()

    def hold(self) -> None:
        """Read nothing until `release`, whoever wants to."""
        self._is_held = True
        self.pause_reading()

    def release(self) -> None:
        """Read again."""
        if self._is_held:
            self._is_held = False
            self.resume_reading()

    def rest(self) -> None:
        """Read on in the next turn of the loop, after every other connection. libuv would read 8 MB of one connection
        before it looks at another, for 12 ms.
        """
        if not self._transport.is_closing():
            self.pause_reading()
            self._loop.call_soon(self.resume_reading)

    def resume_reading(self) -> None:
        """Read again (called by uvicorn), unless that is held."""
        if not self._is_held and not self._transport.is_closing():
            super().resume_reading()

    def pause_writing(self) -> None:
        """Have writers wait (called by the loop), for a while."""
        super().pause_writing()
        self._stalled.begin(self)

    def resume_writing(self) -> None:
        """Have writers go on (called by the loop)."""
        self._stalled.end(self)
        super().resume_writing()

    def on_overdue(self) -> None:
        """Give the client up (called by `Deadlines`)."""
        self._transport.abort()
