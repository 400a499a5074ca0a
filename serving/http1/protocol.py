"""uvicorn's HTTP/1.1 protocol with less between a socket and a prediction.

Two things are quicker, and neither is visible to a client. A prediction that arrives in one piece and can be answered
without waiting is answered where its last byte is read: no task, no scope, one write. Everything else takes uvicorn's
way, with the head and the body of a response joined into one write (measured: 75 us of CPU a request became 52).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from serving.api.paths import PREDICTION_ENDS
from serving.http1.bounded import BoundedProtocol

MOST_SHORT_BYTES = HIGH_WATER_LIMIT
_ENDS = tuple(end.encode() for end in PREDICTION_ENDS)
_OK = b"HTTP/1.1 200 OK\r\n"


class PredictionProtocol(BoundedProtocol):
    """One connection. The application's shortcut is asked first: see `serving.api.shortcut`.

    A connection that takes the short way keeps one timer for its idle time, which looks at the clock when it fires;
    uvicorn would cancel one and make another for each request.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shortcut = self.config.app.state.shortcut  # type: ignore[union-attr]
        self._is_held = False
        self._held_body = b""
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0

    def data_received(self, data: bytes) -> None:
        """Read (called by the loop); a request that is not whole by now goes the long way."""
        if self._is_lingering:
            self._drop(len(data))
            return
        self._timer, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        self._must_measure = self._is_in_head or len(data) > self._bounds.header_bytes
        self._has_progress = False
        super().data_received(data)
        if self._is_held:
            self._let_go()
        if self._is_inside:
            self._unset_keepalive_if_required()
            self._bound(len(data))
        elif not self._is_idle():
            self._unset_keepalive_if_required()
        elif self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task, self._timer = self._timer, None
            if self.timeout_keep_alive_task is None and not (self._is_watched or self._is_lingering):
                self._keep_alive()
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
        self._is_inside = self._is_in_head = self._has_progress = True
        if self._is_watched:
            self._unwatch()
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """Hold a prediction back until its body is there (called by the parser)."""
        self._is_in_head = False
        if self._is_watched:
            self._unwatch()
        if self._must_measure:
            self._measure()
        if self._is_idle() and self.url.endswith(_ENDS) and self._may_be_short():
            self._is_held, self._held_body = True, b""
        else:
            self._begin()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body (called by the parser)."""
        self._has_progress = True
        if self._is_held and len(self._held_body) + len(body) <= MOST_SHORT_BYTES:
            self._held_body += body
            return
        if self._is_held:
            self._let_go()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer what was held back, or have it answered the long way (called by the parser)."""
        self._is_inside = False
        if self._is_dropping:
            self._is_dropping = False
            self._bounds.dropped.end(self)
        if self._is_held:
            if self._answered_now():
                self._is_held = False
                return
            self._let_go()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request (called by uvicorn)."""
        self._is_held = False
        super().send_400_response(msg)

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
            self._keep_alive()
        return True

    def _keep_alive(self) -> None:
        self._idle_since = self.loop.time()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

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
