"""The answer to `GET /events`: server-sent events until the client goes, reads too slowly, or the server stops.

The format is that of https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.api.events.event_feed import EventFeed
from serving.api.events.stream_client import StreamClient

HEARTBEAT_SECONDS = 10.0
MOST_SECONDS = 3600.0  # then the client comes again, and its token is checked again
COME_BACK_MS = 2000
FIRST_LINE = b"retry: %d\n\n" % COME_BACK_MS
HEARTBEAT = b":\n\n"
MEDIA_TYPE = "text/event-stream"
HEADERS = {"x-accel-buffering": "no"}  # nginx passes each event on as it comes


class EventStream(Response):
    """One stream. Starlette calls it; the client is the feed's for as long as that takes.

    A client that takes nothing for `write_seconds` is given up. The feed's refusals are raised before anything is sent.
    """

    media_type = MEDIA_TYPE

    def __init__(self, feed: EventFeed, event_id: str | None, write_seconds: float) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._feed = feed
        self._event_id = event_id
        self._write_seconds = write_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (ASGI's signature)
        """Send the stream. Raises ClientDisconnect for a client that takes nothing."""
        client = await self._feed.join(self._event_id)
        listening = asyncio.create_task(_end_when_gone(client, receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._write(send, FIRST_LINE)
            await self._write_events(client, send)
            await self._write(send, b"", is_last=True)
        finally:
            self._feed.leave(client)
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

    async def _write_events(self, client: StreamClient, send: Send) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + MOST_SECONDS
        while True:
            text = await client.take(HEARTBEAT_SECONDS)
            if client.has_ended or loop.time() > ends_at:
                return
            if text is None:
                text = HEARTBEAT
            elif not client.has_caught_up:
                text += await self._feed.catch_up(client)
            if text:
                await self._write(send, text)

    async def _write(self, send: Send, text: bytes, *, is_last: bool = False) -> None:
        try:
            async with asyncio.timeout(self._write_seconds):
                await send({"type": "http.response.body", "body": text, "more_body": not is_last})
        except TimeoutError:
            raise ClientDisconnect from None


async def _end_when_gone(client: StreamClient, receive: Receive) -> None:
    """End a client when its connection has."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            client.end()
            return
