"""uvicorn's HTTP/1.1 protocol with less between a socket and a prediction.

Two things are different, and neither is visible to a client. A prediction that arrives in one piece and can be answered
without waiting is answered where its last byte is read: no task, no scope, one write. Everything else takes uvicorn's
way, with the head and the body of a response joined into one write (measured: 75 us of CPU a request became 52).
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_SHORT_BYTES = HIGH_WATER_LIMIT
_SUFFIX = b"/predict"
_OK = b"HTTP/1.1 200 OK\r\n"


class Outbox:
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
    """A transport that sends what is written in one turn of the event loop together. Event loop thread only."""

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        self._transport = transport
        self._outbox = outbox
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Keep `data` until the end of this turn."""
        if not self._parts:
            self._outbox.add(self)
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
        self._transport.close()

    def is_closing(self) -> bool:
        """Say whether the transport is closing."""
        return self._transport.is_closing()


_outboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, Outbox] = WeakKeyDictionary()


class PredictionProtocol(HttpToolsProtocol):
    """One connection. The application's shortcut is asked first: see `serving.api.shortcut`.

    A connection that takes the short way keeps one timer for its idle time, which looks at the clock when it fires;
    uvicorn would cancel one and make another for each request.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shortcut = self.config.app.state.shortcut  # type: ignore[union-attr]
        outbox = _outboxes.get(self.loop)
        self._outbox = outbox if outbox is not None else _outboxes.setdefault(self.loop, Outbox(self.loop))
        self._joined: JoinedWrites | None = None
        self._is_inside = False
        self._is_held = False
        self._held_body = b""
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the transport (called by the loop)."""
        super().connection_made(transport)
        self._joined = JoinedWrites(transport, self._outbox)

    def data_received(self, data: bytes) -> None:
        """Read (called by the loop); a request that is not whole by now goes the long way."""
        self._timer, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        super().data_received(data)
        if self._is_held:
            self._let_go()
        if self._is_inside or not self._is_idle():
            self._unset_keepalive_if_required()
        elif self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task, self._timer = self._timer, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for so long (called by the loop)."""
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def on_message_begin(self) -> None:
        """Begin a request (called by the parser); its scope is made when it is known to need one."""
        self._is_inside = True
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """Hold a prediction back until its body is there (called by the parser)."""
        if self._is_idle() and self.url.endswith(_SUFFIX) and self._may_be_short():
            self._is_held, self._held_body = True, b""
        else:
            self._begin()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body (called by the parser)."""
        if self._is_held and len(self._held_body) + len(body) <= MOST_SHORT_BYTES:
            self._held_body += body
            return
        if self._is_held:
            self._let_go()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer what was held back, or have it answered the long way (called by the parser)."""
        self._is_inside = False
        if self._is_held:
            if self._answered_now():
                self._is_held = False
                return
            self._let_go()
        super().on_message_complete()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # None at first

    def _may_be_short(self) -> bool:
        return (
            self.parser.get_method() == b"POST"
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and not self.flow.write_paused
            and not self.root_path
            and self.limit_concurrency is None
        )

    def _answered_now(self) -> bool:
        found = self._shortcut.respond(self.url.decode("ascii"), dict(self.headers), self._held_body)
        if found is None or self.transport.is_closing():
            return False
        assert self._joined is not None
        lines, body = found
        head = [_OK]
        for name, value in self.server_state.default_headers:
            head += [name, b": ", value, b"\r\n"]
        is_kept = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        if not is_kept:
            head.append(b"connection: close\r\n")
        self._joined.write(b"".join([*head, lines, b"\r\n", body]))
        self.server_state.total_requests += 1
        self._idle_since = self.loop.time()
        if not is_kept:
            self._joined.close()
        elif self._timer is None and self.timeout_keep_alive_task is None:
            later = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
            self.timeout_keep_alive_task = later
        return True

    def _let_go(self) -> None:
        """Take up a request that was held back where uvicorn would be with it."""
        self._is_held = False
        self._begin()
        if self._held_body:
            super().on_body(self._held_body)

    def _begin(self) -> None:
        """Do what uvicorn would have done by now."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()
        if self.cycle is None:  # an upgrade that uvicorn leaves to somebody else
            return  # type: ignore[unreachable]
        self.cycle.transport = self._joined  # type: ignore[assignment]  # all of a transport that a cycle uses
