"""One request after the other: what a client sends ahead is not read before its turn, and no other protocol is spoken.

uvicorn parses whatever arrives and queues a request for each head in it, 5 kB of memory for 30 bytes, before any of
them is asked for a token. Here bytes behind a request that is being answered are left alone: the system's buffers fill
up, and the client waits. So a connection holds what was read in one go, and what a slice of that made.

llhttp stops behind a head that offers another protocol (``Upgrade``), as if it had been accepted: what follows would be
read as the next request, although it is the body of this one. So such a head is read again without the offer.
"""

from __future__ import annotations

from typing import Any

import httptools

from serving.http1.bounded import BoundedProtocol
from serving.http1.bounds import MOST_AHEAD_BYTES, refuse_head
from serving.http1.heads import without_upgrade
from serving.http1.places import BETWEEN, BODY, HEAD, OFFER, OVER

END_OF_HEAD = b"\r\n\r\n"
SLICE_BYTES = 1024  # at most 40 requests


class SequentialProtocol(BoundedProtocol):
    """One connection whose requests are read one after the other. A subclass answers them. Event loop thread only."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._ahead = b""
        self._head = b""

    def data_received(self, data: bytes) -> None:
        """Read (called by the loop), unless an earlier request has to be answered first."""
        if self._place is BETWEEN and self._is_idle() and not self._ahead:
            self._receive(data)
        elif self._place in OVER:
            self._drop(len(data))
        elif self._ahead or self._must_wait():
            self._put_off(self._ahead + data)
        else:
            self._receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection (called by the loop)."""
        self._take_ahead()
        self.pipeline.clear()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Go on to the next request (called by uvicorn)."""
        super().on_response_complete()
        if self._place in OVER or self._must_wait() or self.transport.is_closing():
            return
        if self._ahead:
            self._unset_keepalive_if_required()
            self.loop.call_soon(self._read_ahead)
        else:
            self._reading.release()

    def _receive(self, data: bytes) -> None:
        """Read bytes whose turn it is."""
        self._must_measure = self._place is HEAD or len(data) > self._bounds.header_bytes
        self._has_progress = False
        if len(data) <= SLICE_BYTES or data.count(END_OF_HEAD) <= 1:
            self._parse(data)
        else:
            self._read_in_slices(data)
        if self.pipeline:
            self._reading.hold()

    def _read_in_slices(self, data: bytes) -> None:
        """Read what may hold many requests, as far as they are answered at once."""
        for start in range(0, len(data), SLICE_BYTES):
            if self._place in OVER or self.transport.is_closing():
                return
            if self._must_wait():
                self._put_off(data[start:])
                return
            self._parse(data[start : start + SLICE_BYTES])

    def _read_ahead(self) -> None:
        """Read what was put off."""
        data = self._take_ahead()
        if self._place in OVER or self.transport.is_closing():
            return
        self._receive(data)
        if not (self._ahead or self._must_wait() or self._place in OVER):
            self._reading.release()

    def _put_off(self, data: bytes) -> None:
        """Keep bytes for later; where all connections together have too many, this one ends with what it has begun."""
        self._bounds.ahead_bytes += len(data) - len(self._ahead)
        self._ahead = data
        self._reading.hold()
        if self._bounds.ahead_bytes > MOST_AHEAD_BYTES:
            self._take_ahead()
            self.send_400_response("")

    def _take_ahead(self) -> bytes:
        data, self._ahead = self._ahead, b""
        self._bounds.ahead_bytes -= len(data)
        return data

    def _must_wait(self) -> bool:
        """Say whether a request that has been read to its end is still to be answered."""
        return bool(self.pipeline) or (self._place is not BODY and not self._is_idle())

    def _parse(self, data: bytes) -> None:
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                except httptools.HttpParserUpgrade as offer:
                    data = self._head + data[offer.args[0] :]
                    self._begin_anew()
                else:
                    return
        except httptools.HttpParserError:
            self.send_400_response("")

    def _begin_anew(self) -> None:
        self._head = b""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(
            lenient_data_after_close=True
        )  # as uvicorn has it: what follows is dropped

    def _decline_upgrade(self) -> None:
        """Have the head that has just been read be read again without its offer of another protocol."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._fail(refuse_head("CONNECT is for proxies, and this is none"))
        self._place = OFFER
        self._head = without_upgrade(method, self.url, self.parser.get_http_version(), self.headers)
