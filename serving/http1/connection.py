"""One connection: uvicorn's HTTP/1.1 protocol with less between a socket and a prediction, within limits, in order.

Its state is `serving.http1.connection_state`. Four things differ from uvicorn:

- A prediction that arrives whole, and can be answered without waiting, is answered as soon as its last byte is read: no
  task, no scope, one write, and no parser if its head is known. Everything else takes uvicorn's way. Clients cannot
  see a difference.
- Requests are read one after the other. uvicorn parses everything that arrives, and queues a request for each head in
  it: 5 kB of memory for 30 bytes, before it asks any of them for a token. This connection does not parse the bytes
  behind a request that is being answered: the system's buffers fill up, and the client waits. So a connection holds
  only the bytes of one read, and the requests in one slice of them.
- No other protocol is spoken. llhttp stops behind a head that offers one (``Upgrade``), as if the offer was accepted.
  Then the body of that request would be read as the next request. So such a head is read again without the offer; the
  parser begins and ends its request twice.
- A connection that takes too long or too much is closed, and its client is told why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.api.edge import MISDIRECTED
from serving.api.paths import PREDICTION_ENDS, is_probe
from serving.api.services import Services
from serving.domain.errors import Misdirected
from serving.domain.server_names import ServerNames
from serving.http1.connection_state import (
    ANSWERING,
    BODY,
    BODY_AHEAD,
    BROKEN,
    CLOSED,
    DROPPING,
    HEAD,
    HEAD_AHEAD,
    HELD,
    LINGERING,
    OPENED,
    OVER,
    READY,
    SLOW_HEAD,
    WAITING,
    HttpState,
)
from serving.http1.flow import ConnectionFlow
from serving.http1.heads import END_OF_HEAD, KnownHeads, find_fault, split_target, with_host, without_upgrade
from serving.http1.limits import MOST_AHEAD_BYTES, Refusal, count_head_bytes, limits_of, refuse_head
from serving.http1.write_queue import AnswerTransport

SLICE_BYTES = 1024  # at most 40 requests
MOST_SHORT_BYTES = HIGH_WATER_LIMIT

_ENDS = tuple(end.encode() for end in PREDICTION_ENDS)
_SLASH = ord("/")
_OK = b"HTTP/1.1 200 OK\r\n"


class HeadRefused(httptools.HttpParserError):
    """The request is answered with this refusal, and not by the application."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__("refused")
        self.refusal = refusal


class HttpConnection(HttpToolsProtocol):
    """One connection. The application's shortcut is asked first: see `serving.api.shortcut`. Event loop thread only.

    It keeps one timer for its idle time, which looks at the clock when it fires: a timer for each request costs more.
    """

    flow: ConnectionFlow

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        front: Any = self.config.app
        services: Services = front.state.services
        self._shortcut = services.shortcut
        self._names: ServerNames = front.names
        self._limits = limits_of(self.loop, services.settings.server)
        self._known_heads: KnownHeads | None = self._limits.known_heads_of(self._names)
        self._known_hosts: AbstractSet[bytes | None] = self._names.seen
        self._state: HttpState = OPENED
        self._whole = b""  # the bytes being read, if they may be one whole request
        self._read_bytes = 0
        self._fruitless_bytes = 0
        self._dropped_bytes = 0
        self._ahead = b""
        self._fields: dict[bytes, bytes] = {}
        self._version = "1.1"
        self._misdirected: Misdirected | None = None
        self._held_body = b""
        self._without_offer = b""
        self._earlier = self.cycle
        self._idle_since = 0.0
        self._default_headers: list[tuple[bytes, bytes]] = []
        self._first_lines = _OK

    # --- what the loop calls ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the transport (called by the loop). A connection beyond the limit may only ask for probes."""
        super().connection_made(transport)
        limits = self._limits
        self.flow = ConnectionFlow(transport, limits.stalled, self._may_read)
        self._answers = AnswerTransport(transport, limits.write_queue, self._end)
        limits.heads.begin(self)
        if limits.connections is not None and len(self.connections) > limits.connections:
            self._known_heads, self._known_hosts = None, frozenset()  # each head is looked at in full
            limits.crowd.admit(self)

    def data_received(self, data: bytes) -> None:
        """Read (called by the loop), unless an earlier request has to be answered first."""
        state = self._state
        if (state is READY or state is OPENED) and not self._ahead:
            known_heads = self._known_heads
            if known_heads is None or not self._answer_known(known_heads, data):
                self._whole = data
                self._read(data)
                self._whole = b""
        elif state in OVER:
            self._drop(len(data))
        elif self._ahead or state in WAITING:
            self._put_off(self._ahead + data)
        else:
            self._read(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection (called by the loop)."""
        self._state = CLOSED
        self._forget_ahead()
        self._limits.forget(self)
        self._unset_keepalive_if_required()  # after an error uvicorn leaves it to run out
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Send queued answers (called by the loop): the transport closes itself when this has returned."""
        self._limits.write_queue.flush()

    def resume(self) -> None:
        """Begin between two requests: another process has answered on this connection. After `connection_made`."""
        self._limits.heads.end(self)
        self._state = self._state.after_resume
        self._become_idle()

    def shutdown(self) -> None:
        """Send queued answers, then close, at once or after the answer under way (called by the server)."""
        self._limits.write_queue.flush()
        super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for too long (called by the loop).

        If the client has not read the last answer by now, close at once: the answer would be kept for ever.
        """
        self.timeout_keep_alive_task = None
        if self._state is not READY:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._watch_idle(left)
        elif self.transport.get_write_buffer_size():
            self._abort()
        else:
            self._close()

    def on_overdue(self) -> None:
        """End what takes too long (called by `Deadlines`)."""
        if self._state in (DROPPING, LINGERING):
            self._abort()
        else:
            if self._state is SLOW_HEAD:
                self._write_refusal(self._limits.too_slow)
            self._close()

    def send_away(self) -> None:
        """Close this connection to make room for another one beyond the limit (called by `Crowd`)."""
        if self._state in OVER or self._state in WAITING or self._state is BODY:
            self._abort()
        else:
            self._write_refusal(self._limits.too_many)
            self._close()

    # --- what the parser calls ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request; its scope is made when it is known to need one."""
        state = self._state
        if state is OPENED:
            self._limits.heads.end(self)
        self._state = state.after_begin
        self._fruitless_bytes = 0
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. Those that follow a body in chunks are ignored."""
        state = self._state
        if state is HEAD or state is SLOW_HEAD or state is HEAD_AHEAD:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Hold a prediction back until its body is there, or give a request to the application."""
        parser, state, headers = self.parser, self._state, self.headers
        if parser.should_upgrade():
            self._decline_offer()
            return
        if state is SLOW_HEAD or self._read_bytes > self._limits.header_bytes:
            self._limits.heads.end(self)
            if count_head_bytes(self.url, headers) > self._limits.header_bytes:
                raise HeadRefused(self._limits.too_large)
        self._version = version = parser.get_http_version()
        self._fields = fields = dict(headers)
        self._misdirected = None
        is_usual = version == "1.1" and len(fields) == len(headers) and b"transfer-encoding" not in fields
        if not is_usual or self.url[0] != _SLASH or fields.get(b"host") not in self._known_hosts:
            self._check_head()
        self.expect_100_continue = b"expect" in fields and (b"expect", b"100-continue") in (
            (name, value.lower()) for name, value in self.headers
        )
        if self.url.endswith(_ENDS) and state is not HEAD_AHEAD and self._may_be_short():
            self._state, self._held_body = state.after_hold, b""
        else:
            self._start()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._fruitless_bytes = 0
        if self._state is HELD:
            if len(self._held_body) + len(body) <= MOST_SHORT_BYTES:
                self._held_body += body
                return
            self._start_held()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer a request that was held back, or give it to the application."""
        state = self._state
        if state is HELD:
            if self._answer_held():
                return
            self._start_held()
        elif state is DROPPING:
            self._limits.dropped.end(self)
            self._state = state.after_end
            self._become_idle()
            return
        self._state = state = self._state.after_end
        if state is ANSWERING:
            super().on_message_complete()

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        """Read bytes whose turn it is."""
        self._read_bytes = size = len(data)
        self._fruitless_bytes += size
        if size <= SLICE_BYTES or data.count(END_OF_HEAD) <= 1:
            self._parse(data)
        else:
            self._read_in_slices(data)
        if self._state is not READY:
            self._look_after_rest(size)

    def _look_after_rest(self, size: int) -> None:
        """Watch a request that is not complete yet, after `size` more bytes of it have been read."""
        if self._state is HELD:
            self._start_held()
        elif self._state is HEAD:
            self._state = HEAD.after_pause
            self._limits.heads.begin(self)
        elif self._state is DROPPING:
            self._drop(size)
        is_within = self._state is not OPENED and self._state is not ANSWERING
        if is_within and self._fruitless_bytes > self._limits.header_bytes:  # a head; or what comes with chunks
            self._reject(self._limits.too_large)

    def _read_in_slices(self, data: bytes) -> None:
        """Read bytes that may hold many requests, for as long as each of them is answered at once."""
        for start in range(0, len(data), SLICE_BYTES):
            if self._state in OVER or self.transport.is_closing():
                return
            if self._state in WAITING:
                self._put_off(data[start:])
                return
            self._parse(data[start : start + SLICE_BYTES])

    def _parse(self, data: bytes) -> None:
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                except httptools.HttpParserUpgrade as offer:
                    data, self._without_offer = self._without_offer + data[offer.args[0] :], b""
                    self.parser = httptools.HttpRequestParser(self)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it
                else:
                    return
        except httptools.HttpParserError as error:
            reason = error.__context__
            self._reject(reason.refusal if isinstance(reason, HeadRefused) else self._limits.not_http)

    def _decline_offer(self) -> None:
        """Read the last head again, without its offer of another protocol."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise HeadRefused(refuse_head("CONNECT is for proxies, and this is none"))
        self._without_offer = without_upgrade(method, self.url, self.parser.get_http_version(), self.headers)

    def _check_head(self) -> None:
        """Refuse a faulty head. Note a head for another server: it is refused later, in the shape of its protocol.

        A target in absolute form becomes a path, and its authority the host.
        """
        fault = find_fault(self._version, self.headers)
        if fault is not None:
            raise HeadRefused(refuse_head(fault))
        if not self.url.startswith(b"/") and self.url != b"*":
            target = split_target(self.url)
            if target is None:
                raise HeadRefused(refuse_head("the request target is neither a path nor the address of an HTTP server"))
            self.url = target.path
            self.headers = with_host(self.headers, target.authority)
            self._fields = dict(self.headers)
        try:
            self._names.require_own_name(self._fields.get(b"host"))
        except Misdirected as error:
            self._misdirected = error
        if self in self._limits.crowd and not is_probe(self.parser.get_method(), self.url):
            raise HeadRefused(self._limits.too_many)

    # --- reading later ------------------------------------------------------------------------------------------------

    def _may_read(self) -> bool:
        """Say whether the transport may be read: it may not while bytes wait for an earlier answer."""
        return not (self._ahead or self.pipeline or self._state is BROKEN)

    def _put_off(self, data: bytes) -> None:
        """Keep bytes for later. If all connections together keep too many, this one ends after the present request."""
        self._limits.ahead_bytes += len(data) - len(self._ahead)
        self._ahead = data
        self.flow.pause_reading()
        if self._limits.ahead_bytes > MOST_AHEAD_BYTES:
            self._take_ahead()
            self._reject(self._limits.not_http)

    def _take_ahead(self) -> bytes:
        data, self._ahead = self._ahead, b""
        self._limits.ahead_bytes -= len(data)
        return data

    def _forget_ahead(self) -> None:
        self._take_ahead()
        self.pipeline.clear()

    def _read_ahead(self) -> None:
        """Read the bytes that were kept for later."""
        data = self._take_ahead()
        if self._state in OVER or self.transport.is_closing():
            return
        self._read(data)
        if self._state not in WAITING:
            self.flow.resume_reading()

    # --- answering ----------------------------------------------------------------------------------------------------

    def _answer_known(self, known_heads: KnownHeads, data: bytes) -> bool:
        """Answer a whole prediction whose head has been parsed before, if that needs no waiting."""
        end = data.find(END_OF_HEAD) + 4
        known = known_heads.find(data[:end])
        if known is None or len(data) != end + known.body_bytes or self.flow.write_paused:
            return False
        found = self._shortcut.respond(known.path, known.fields, data[end:])
        if found is None:
            return False
        if self._state is OPENED:
            self._limits.heads.end(self)
        self._state = self._state.after_recognise
        self._write_short(found, b"")
        return True

    def _may_be_short(self) -> bool:
        return (
            self.parser.get_method() == b"POST"
            and self._misdirected is None
            and not self.expect_100_continue
            and not self.flow.write_paused
        )

    def _answer_held(self) -> bool:
        path, fields, body = self.url.decode("ascii"), self._fields, self._held_body
        found = self._shortcut.respond(path, fields, body)
        if found is None:
            return False
        self._state = HELD.after_end
        if self._version != "1.0" and self.parser.should_keep_alive():
            self._write_short(found, b"")
            known_heads = self._known_heads
            if self._whole and known_heads is not None:
                is_worth_it = known_heads.remember(self._whole, path, fields, len(body))
                self._known_heads = known_heads if is_worth_it else None
        else:
            self._write_short(found, b"connection: close\r\n")
            self._close()
        return True

    def _write_short(self, found: tuple[bytes, bytes], more: bytes) -> None:
        """Write one whole answer. A connection that is ready for the next request is idle from now on."""
        if self.server_state.default_headers is not self._default_headers:  # a new list for each second: the date
            self._default_headers = self.server_state.default_headers
            self._first_lines = _OK + self._write_default_headers()
        lines, body = found
        self._answers.write(b"".join((self._first_lines, more, lines, b"\r\n", body)))
        self.server_state.total_requests += 1
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch_idle(self.timeout_keep_alive)

    def _start_held(self) -> None:
        """Give a request that was held back to the application."""
        self._start()
        if self._held_body:
            super().on_body(self._held_body)

    def _start(self) -> None:
        """Give the request that is being read to the application, as uvicorn does when its head ends."""
        state, url, headers, expects = self._state, self.url, self.headers, self.expect_100_continue
        earlier = self.cycle
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        if self._misdirected is not None:
            self.scope[MISDIRECTED] = self._misdirected  # type: ignore[literal-required]
        super().on_headers_complete()
        self.cycle.transport = self._answers  # type: ignore[assignment]  # all of a transport that a cycle uses
        if state is HEAD_AHEAD:
            self._state, self._earlier = state.after_queue, earlier
        else:
            self._state = state.after_start

    def on_response_complete(self) -> None:
        """Go on (called by uvicorn): with the next request, or with the rest of this one's body."""
        super().on_response_complete()
        if self._state in OVER or self.transport.is_closing():
            return
        if self.cycle.response_complete:
            self._state = state = self._state.after_answer
            if state is READY:
                self._idle_since = self.loop.time()
            elif state is SLOW_HEAD:
                self._limits.heads.begin(self)
            else:
                self._dropped_bytes = 0
                self._limits.dropped.begin(self)
        elif self._state is BODY_AHEAD and not self.pipeline:
            self._state = BODY_AHEAD.after_advance
        if self._state in WAITING:
            return
        if self._ahead:
            self.loop.call_soon(self._read_ahead)
        else:
            self.flow.resume_reading()

    def _become_idle(self) -> None:
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch_idle(self.timeout_keep_alive)

    def _watch_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    # --- refusing and ending ------------------------------------------------------------------------------------------

    def _reject(self, refusal: Refusal) -> None:
        """Refuse bytes that cannot be read; while an answer is under way, only stop reading."""
        state = self._state
        if state is DROPPING:
            self._close()
        elif state in WAITING or (state is BODY and self.cycle.response_started):
            self._break()
        elif state not in OVER:
            if state is BODY:  # it will never have its whole body
                self.cycle.disconnected = True
                self.cycle.waiting_for_100_continue = False  # it would be written behind the refusal
                self.cycle.message_event.set()
            if not self.transport.is_closing():
                self._write_refusal(refusal)
                self._linger()

    def _break(self) -> None:
        """Read no more, and close after the answers to earlier requests."""
        if self._state is BODY_AHEAD:  # half of a request; the application has not been told of it
            self.pipeline.popleft()
            self.cycle = self._earlier
        self._state = self._state.after_break
        self.cycle.keep_alive = False
        self.flow.pause_reading()

    def _write_refusal(self, refusal: Refusal) -> None:
        first, rest = refusal
        self._answers.write(b"".join((first, self._write_default_headers(), rest)))

    def _write_default_headers(self) -> bytes:
        return b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)

    def _end(self) -> None:
        """Close after the last answer. While its client still sends, a close would be a reset, and the answer lost."""
        if self._state in (BODY, BODY_AHEAD, DROPPING, BROKEN) and not self.transport.is_closing():
            self._linger()
        else:
            self._close()

    def _linger(self) -> None:
        """Send the end of the stream, then read and drop bytes for a while, until the client has seen it."""
        self._state = self._state.after_linger
        self._forget_ahead()
        self._dropped_bytes = 0
        self._limits.heads.end(self)
        self._limits.dropped.end(self)
        self._limits.write_queue.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._limits.lingering.begin(self)

    def _drop(self, size: int) -> None:
        """Count bytes that are read and dropped."""
        self._dropped_bytes += size
        if self._dropped_bytes > self._limits.dropped_bytes:
            self._abort()
        elif size > HIGH_WATER_LIMIT:
            self.flow.pause_for_a_turn()

    def _close(self) -> None:
        self._state = self._state.after_close
        self._limits.write_queue.flush()
        self.transport.close()

    def _abort(self) -> None:
        self._state = self._state.after_close
        self.transport.abort()
