"""One connection that is closed when it takes too long or too much: uvicorn's protocol with bounds."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http1.bounds import bounds_of, head_bytes
from serving.http1.places import BETWEEN, BODY, BROKEN, DROPPED, HEAD, HELD, LINGERING, OVER
from serving.http1.reading import Reading
from serving.http1.write_queue import JoinedWrites


class BoundedProtocol(HttpToolsProtocol):
    """Bounds how long the head of a request takes, how large it is, how many connections there are, and what is read of
    a request that has been answered already. Event loop thread only.

    What reads (a subclass) keeps `_place`, and says whether a piece of bytes held anything to show for it. None of this
    costs a request that arrives whole more than a few attributes.
    """

    _reading: Reading

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._bounds = bounds_of(self.loop, self.config.app.state.services.settings.server)  # type: ignore[union-attr]
        self._joined: JoinedWrites | None = None
        self._place = BETWEEN
        self._is_crowded = False
        self._is_watched = True
        self._must_measure = False
        self._has_progress = False
        self._fruitless_bytes = 0
        self._dropped_bytes = 0
        self._refusal = self._bounds.invalid

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the transport (called by the loop); one connection too many may only ask how the server is."""
        super().connection_made(transport)
        self.flow = self._reading = Reading(transport, self._bounds.stalled)
        self._joined = JoinedWrites(transport, self._bounds.write_queue, self._end)
        self._bounds.heads.begin(self)
        if self._bounds.connections is not None and len(self.connections) > self._bounds.connections:
            self._is_crowded = True
            self._bounds.crowd.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection (called by the loop)."""
        for deadlines in (self._bounds.heads, self._bounds.dropped, self._bounds.lingering):
            deadlines.end(self)
        self._bounds.crowd.leave(self)
        if exc is not None:
            self._unset_keepalive_if_required()  # uvicorn leaves it to run out
        super().connection_lost(exc)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header (called by the parser). Those that follow a body in chunks are of no use to anybody here.

        These are uvicorn's lines: a call to them costs each header of each request as much again.
        """
        if self._place is HEAD:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_response_complete(self) -> None:
        """Go on to the next request (called by uvicorn), or read what the client still sends of this one."""
        super().on_response_complete()
        if self._place is LINGERING:
            self._unset_keepalive_if_required()
        elif self._place is BODY and self._is_idle():
            self._unset_keepalive_if_required()
            self._begin_dropping()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for so long (called by the loop): at once where its client has not read
        the last answer by now, which would be kept for it for ever.
        """
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def on_overdue(self) -> None:
        """End what takes too long (called by `Deadlines`)."""
        if self._place in (LINGERING, DROPPED):
            self.transport.abort()
        elif not self._is_idle():  # a head behind a request that is being answered: its client waits for that as well
            self._bounds.heads.begin(self)
        else:
            if self._place is HEAD:
                self._write_refusal(self._bounds.too_slow)
            self.transport.close()

    def send_away(self) -> None:
        """Close a connection of the crowd, to make room for another one (called by `Crowd`)."""
        if self._place in OVER or not self._is_idle():
            self.transport.abort()
        else:
            self._write_refusal(self._bounds.too_many)
            self.transport.close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's signature)
        """Refuse what is no request, unless an earlier one is still being answered."""
        is_answering = not self._is_idle()
        if self._place is DROPPED:
            self.transport.close()
        elif is_answering and (self.cycle.response_started or not self.cycle.more_body):
            self._place = BROKEN
            self.cycle.keep_alive = False
            self._reading.hold()
        else:
            if is_answering:  # it will never have its whole body
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self._refuse(self._refusal)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # None at first

    def _fail(self, refusal: tuple[bytes, bytes]) -> NoReturn:
        """Have the parser stop, and what is read be refused with this; for callbacks of the parser."""
        self._refusal = refusal
        raise httptools.HttpParserError("refused")

    def _measure(self) -> None:
        """Raise HttpParserError when the head is too large. Only for one that may be: see `_must_measure`."""
        if head_bytes(self.url, self.headers) > self._bounds.header_bytes:
            self._fail(self._bounds.too_large)

    def _unwatch(self) -> None:
        self._is_watched = False
        self._bounds.heads.end(self)

    def _bound(self, size: int) -> None:
        """Look after a request of which so many bytes have come and more must follow."""
        if self._place is HEAD and not self._is_watched:
            self._is_watched = True
            self._bounds.heads.begin(self)
        if self._place is DROPPED:
            self._drop(size)
        if self._has_progress:
            self._fruitless_bytes = 0
            return
        self._fruitless_bytes += size  # more of a head; or what comes with chunks and is no body
        if self._fruitless_bytes > self._bounds.header_bytes:
            self._refusal = self._bounds.too_large
            self.send_400_response("")

    def _begin_dropping(self) -> None:
        """Read and forget the rest of a body whose request has been answered, for a while."""
        self._place = DROPPED
        self._dropped_bytes = 0
        self._bounds.dropped.begin(self)

    def _drop(self, size: int) -> None:
        self._dropped_bytes += size
        if self._dropped_bytes > self._bounds.dropped_bytes:
            self.transport.abort()
        elif size > HIGH_WATER_LIMIT:
            self._reading.rest()

    def _end(self) -> None:
        """Close after the last answer. While its client still sends, a close would be a reset, and the answer lost."""
        if self._place in (HELD, BODY, DROPPED, BROKEN) and not self.transport.is_closing():
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Send an end, and read for a while what its client sends until it has seen that."""
        self._place = LINGERING
        self._dropped_bytes = 0
        self._unwatch()
        self._bounds.dropped.end(self)
        self._unset_keepalive_if_required()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._reading.release()
        self._bounds.lingering.begin(self)

    def _refuse(self, answer: tuple[bytes, bytes]) -> None:
        if not self.transport.is_closing():
            self._write_refusal(answer)
            self._linger()

    def _write_refusal(self, answer: tuple[bytes, bytes]) -> None:
        if self._joined is not None:
            self._joined.flush()
        first, rest = answer
        added = [part for name, value in self.server_state.default_headers for part in (name, b": ", value, b"\r\n")]
        self.transport.write(b"".join([first, *added, rest]))
