"""A connection of a port that several workers share: it is counted, and can go on in another worker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

from serving.http1.connection import HttpConnection
from serving.http1.connection_state import OPENED, READY
from serving.ports.handover import give
from serving.ports.shared_port import PortShare


class OpenTally:
    """The connections of one port that a worker has open; other workers see how many. Event loop thread only.

    `relieve` is called with each connection that has answered, as soon as that is sent, while this worker has more than
    its part; None else.
    """

    def __init__(self, share: PortShare) -> None:
        self._share = share
        self._open: set[asyncio.BaseProtocol] = set()
        self._is_published = False
        self.relieve: Callable[[CountedConnection], None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[asyncio.BaseProtocol]:
        """Return those that are open now."""
        return iter(tuple(self._open))

    def begin(self, connection: asyncio.BaseProtocol) -> None:
        """Count a connection."""
        self._open.add(connection)
        self._publish()

    def end(self, connection: asyncio.BaseProtocol) -> None:
        """Count a connection no more; nothing happens if it is not counted."""
        self._open.discard(connection)
        self._publish()

    def invite(self) -> None:
        """Let other workers pass connections to this one."""
        self._is_published = True
        self._publish()

    def decline(self) -> None:
        """Have other workers pass no connections to this one. A second call does nothing."""
        if self._is_published:
            self._is_published = False
            self._share.counts.decline(self._share.worker)

    def _publish(self) -> None:
        if self._is_published:
            self._share.counts.publish(self._share.worker, len(self._open))


class CountedConnection(HttpConnection):
    """A connection of a port that several workers share.

    `has_answered`: another worker has answered on it before, so that it may be idle for long.
    """

    def __init__(self, *args: Any, tally: OpenTally, has_answered: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tally = tally
        self._has_answered = has_answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the transport (called by the loop)."""
        super().connection_made(transport)
        if self._has_answered:
            self.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection (called by the loop)."""
        self._tally.end(self)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Go on (called by uvicorn); a worker that has too many connections is asked what to do with this one."""
        super().on_response_complete()
        if self._tally.relieve is not None:
            self.loop.call_soon(self._send_and_relieve)

    def _send_and_relieve(self) -> None:
        """Send what waits, then ask: uvloop before 0.23 sends at the end of a turn, and nothing is passed before."""
        self._limits.write_queue.flush()
        if self._tally.relieve is not None:
            self.loop.call_soon(self._tally.relieve, self)

    def pass_on(self, giving: socket.socket) -> bool:
        """Let another worker go on with this connection, if no request is under way and every answer is sent."""
        self._limits.write_queue.flush()
        transport: asyncio.Transport | None = self.transport
        is_free = (self._state is READY or self._state is OPENED) and not self._ahead
        if transport is None or not is_free or transport.is_closing() or transport.get_write_buffer_size():
            return False
        descriptor = transport.get_extra_info("socket").fileno()
        if not give(giving, descriptor, has_answered=self._state is READY):
            return False
        self._tally.end(self)
        self._abort()  # closes the descriptor of this process, and says nothing to the client
        return True
