"""uvicorn's HTTP/1.1 protocol with less between a socket and a prediction.

Two things are quicker, and neither is visible to a client. A prediction that arrives in one piece and can be answered
without waiting is answered where its last byte is read: no task, no scope, one write. Everything else takes uvicorn's
way, with the head and the body of a response joined into one write (measured: 75 us of CPU a request became 52).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from serving.api.edge import MISDIRECTED
from serving.api.paths import PREDICTION_ENDS, is_probe
from serving.domain.errors import Misdirected
from serving.http1.bounds import refuse_head
from serving.http1.heads import find_fault, split_target, with_host
from serving.http1.places import BETWEEN, BODY, DROPPED, HEAD, HELD, OFFER
from serving.http1.sequence import SequentialProtocol

MOST_SHORT_BYTES = HIGH_WATER_LIMIT
_ENDS = tuple(end.encode() for end in PREDICTION_ENDS)
_SLASH = ord("/")
_OK = b"HTTP/1.1 200 OK\r\n"


class PredictionProtocol(SequentialProtocol):
    """One connection. The application's shortcut is asked first: see `serving.api.shortcut`.

    A connection that takes the short way keeps one timer for its idle time, which looks at the clock when it fires;
    uvicorn would cancel one and make another for each request.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shortcut = self.config.app.state.services.shortcut  # type: ignore[union-attr]
        self._names = self.config.app.names  # type: ignore[union-attr]
        self._fields: dict[bytes, bytes] = {}
        self._version = "1.1"
        self._misdirected: Misdirected | None = None
        self._held_body = b""
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0

    def _receive(self, data: bytes) -> None:
        """Read bytes whose turn it is; a request that is not whole by now goes the long way."""
        self._timer, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        super()._receive(data)
        if self._place is HELD:
            self._let_go()
        if self._place is not BETWEEN:
            self._unset_keepalive_if_required()
            if self._place in (HEAD, BODY, DROPPED):
                self._bound(len(data))
        elif not self._is_idle():
            self._unset_keepalive_if_required()
        elif self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task, self._timer = self._timer, None
            if self.timeout_keep_alive_task is None and not self._is_watched:
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
        self._place = HEAD
        self._has_progress = True
        if self._is_watched:
            self._unwatch()
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """Hold a prediction back until its body is there (called by the parser)."""
        if self.parser.should_upgrade():
            self._decline_upgrade()
            return
        if self._is_watched:
            self._unwatch()
        if self._must_measure:
            self._measure()
        headers = self.headers
        self._version = version = self.parser.get_http_version()
        self._fields = fields = dict(headers)
        is_usual = version == "1.1" and len(fields) == len(headers) and b"transfer-encoding" not in fields
        self._misdirected = None
        if not is_usual or self.url[0] != _SLASH or fields.get(b"host") not in self._names.seen:
            self._check_head()
        if self._is_crowded and not is_probe(self.parser.get_method(), self.url):
            self._fail(self._bounds.too_many)
        if self._is_idle() and self.url.endswith(_ENDS) and self._may_be_short():
            self._place, self._held_body = HELD, b""
        else:
            self._place = BODY
            self._begin()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body (called by the parser)."""
        self._has_progress = True
        if self._place is HELD:
            if len(self._held_body) + len(body) <= MOST_SHORT_BYTES:
                self._held_body += body
                return
            self._let_go()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer what was held back, or have it answered the long way (called by the parser)."""
        place = self._place
        if place is OFFER:  # not this time
            return
        self._place = BETWEEN
        if place is DROPPED:
            self._bounds.dropped.end(self)
        elif place is HELD:
            if self._answered_now():
                return
            self._let_go()
            self._place = BETWEEN
        super().on_message_complete()

    def _check_head(self) -> None:
        """Refuse what is no proper head, and note one for another server, which is answered as its protocol has it.

        A target in absolute form becomes a path, and its authority the host.
        """
        fault = find_fault(self._version, self.headers)
        if fault is not None:
            self._fail(refuse_head(fault))
        if not self.url.startswith(b"/") and self.url != b"*":
            target = split_target(self.url)
            if target is None:
                self._fail(refuse_head("the request target is neither a path nor the address of an HTTP server"))
            self.url = target.path
            self.headers = with_host(self.headers, target.authority)
            self._fields = dict(self.headers)
        try:
            self._names.check(self._fields.get(b"host"))
        except Misdirected as error:
            self._misdirected = error

    def _may_be_short(self) -> bool:
        return (
            self.parser.get_method() == b"POST"
            and self._misdirected is None
            and not self.expect_100_continue
            and not self.flow.write_paused
            and not self.root_path
            and self.limit_concurrency is None
        )

    def _answered_now(self) -> bool:
        found = self._shortcut.respond(self.url.decode("ascii"), self._fields, self._held_body)
        if found is None or self.transport.is_closing():
            return False
        assert self._joined is not None
        lines, body = found
        head = [_OK]
        for name, value in self.server_state.default_headers:
            head += [name, b": ", value, b"\r\n"]
        is_kept = self._version != "1.0" and self.parser.should_keep_alive()
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
        self._place = BODY
        self._begin()
        if self._held_body:
            super().on_body(self._held_body)

    def _begin(self) -> None:
        """Do what uvicorn would have done by now."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        if self._misdirected is not None:
            self.scope[MISDIRECTED] = self._misdirected  # type: ignore[literal-required]
        super().on_headers_complete()
        self.cycle.transport = self._joined  # type: ignore[assignment]  # all of a transport that a cycle uses
