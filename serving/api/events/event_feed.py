"""Looks for changes once for all clients of this process, and tells them; only while there are clients."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

import orjson
import structlog

from serving import __version__
from serving.api.counts import Counts
from serving.api.events.counted_state import READ_SECONDS, CountedState
from serving.api.events.server_stop import is_server_stopping
from serving.api.events.shown_state import ShownState
from serving.api.events.stream_client import MOST_WAITING_BYTES, StreamClient
from serving.api.events.stream_event import StreamEvent, write_document, write_text
from serving.api.services import AppState
from serving.domain.decision import Operator
from serving.domain.errors import Overloaded, ServingError, Unavailable
from serving.domain.event_page import EventPage, name_event
from serving.plane.active_reference import read
from serving.settings import ServerSettings

LOOK_SECONDS = 0.2
RETRY_SECONDS = 1.0  # until the history is read again that could not be
FIRST_SECONDS = 1.0  # how long a new client waits for counts that cannot be read
PAGE_ENTRIES = 500
POLLED_ENTRIES = 1000

log = structlog.get_logger("serving.events")


class EventFeed:
    """The clients of `GET /events` and what all of them are told. Event loop thread only.

    `state` is ``app.state``, `clients` are those that are told everything. A client's part is `join`, then `catch_up`
    until it has caught up, then `StreamClient.take`, and `leave` at the end.

    The history is read here once for all, from `_cursor` on. A client that has seen less reads by itself until it has
    seen as much: nothing lies between the two, and nothing is in both.
    """

    def __init__(
        self,
        state: AppState,
        settings: ServerSettings,
        operator: Operator,
        counts: Counts,
        is_stopping: Callable[[], bool] = is_server_stopping,
    ) -> None:
        self._state = state
        self._settings = settings
        self._operator = operator
        self._is_stopping = is_stopping
        self._shown = ShownState()
        self._counted = CountedState(counts)
        self.clients: set[StreamClient] = set()
        self._joining = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._cursor: str | None = None  # the newest entry that clients which have caught up were told
        self._newest: str | None = None  # of the status, when all up to it had been read
        self._retry_at = 0.0

    # --- clients ------------------------------------------------------------------------------------------------------

    async def join(self, event_id: str | None) -> StreamClient:
        """Add a client that has seen the history up to `event_id`; None: what it has seen does not matter.

        The whole state waits for it. Raises Overloaded when there are too many, Unavailable when the server stops.
        """
        if self._is_stopping():
            raise Unavailable("the server is stopping; come back to the next one")
        if len(self.clients) + self._joining >= self._settings.max_streams:
            raise Overloaded(f"{self._settings.max_streams} streams of events are open already; try again later")
        self._joining += 1
        try:
            await self._read_counts()
        finally:
            self._joining -= 1
        if not self._tasks:
            self._begin()
        self._look()
        cursor = self._cursor if event_id is None else event_id
        client = StreamClient(cursor, has_caught_up=cursor == self._cursor)
        client.put_first(write_text(self._describe_all(self._cursor if event_id is None else None)))
        self.clients.add(client)
        return client

    def leave(self, client: StreamClient) -> None:
        """Forget a client. When it was the last one, nothing is looked at any more."""
        client.end()
        self.clients.discard(client)
        if not self.clients:
            self._stop_watching()

    async def catch_up(self, client: StreamClient) -> bytes:
        """Return the next entries of the history for a client that has not caught up; empty when it has to wait."""
        try:
            page = await self._operator.events_after(client.cursor, PAGE_ENTRIES)
        except ServingError as error:
            log.debug("history_not_read", reason=str(error))
            asyncio.get_running_loop().call_later(RETRY_SECONDS, client.wake)
            return b""
        client.cursor = page.newest
        client.has_caught_up = client.cursor == self._cursor
        if not page.is_last:
            client.wake()
        return write_text(describe_page(page))

    async def poll(self, event_id: str | None) -> bytes:
        """Return the whole state, and the history after `event_id` (a page of it), as one JSON document."""
        return write_document(await self._list_all(event_id))

    async def poll_text(self, event_id: str | None) -> bytes:
        """Return what `poll` does, as a part of a stream."""
        return write_text(await self._list_all(event_id))

    async def _list_all(self, event_id: str | None) -> list[StreamEvent]:
        await self._read_counts()
        self._look()
        if event_id is None:
            return self._describe_all(self._state.status.newest_event)
        events = self._describe_all(None)
        with suppress(ServingError):  # the state is of use without it, and the client asks again with the same id
            events += describe_page(await self._operator.events_after(event_id, POLLED_ENTRIES))
        return events

    def _describe_all(self, event_id: str | None) -> list[StreamEvent]:
        start = {
            "server_version": __version__,
            "models": self._shown.names,
            "now": datetime.now(UTC),
            "ui": self._settings.ui,
        }
        first = StreamEvent("start", orjson.dumps(start), event_id)
        return [first, *self._shown.events, *self._counted.events]

    # --- what all are told --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._cursor = self._newest = self._state.status.newest_event
        self._tasks = [asyncio.create_task(self._run(watch)) for watch in (self._watch_state, self._watch_counts)]

    async def _run(self, watch: Callable[[], Awaitable[None]]) -> None:
        """Watch until the last client has left. After a failure all of them come again, as they would hear nothing."""
        try:
            await watch()
        except Exception:
            log.exception("events_failed", effect="all streams end, and their clients come again")
            self._end_all()
            self._stop_watching()

    def _stop_watching(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    async def _watch_state(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._is_stopping():
                self._end_all()
            self._look()
            if loop.time() >= self._retry_at and not await self._read_history():
                self._retry_at = loop.time() + RETRY_SECONDS

    async def _watch_counts(self) -> None:
        while True:
            await asyncio.sleep(READ_SECONDS)
            self._publish(await self._counted.read_if_due())

    def _look(self) -> None:
        """Tell what has changed in the state."""
        self._publish(self._shown.update(self._state.status, read(self._state).generation))

    async def _read_counts(self) -> None:
        """Read the counts, for a new client; it does not wait for long where they cannot be read."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SECONDS):
                self._publish(await self._counted.read_if_due())

    async def _read_history(self) -> bool:
        """Tell all that is new in the history to those who have caught up; return whether it could be read."""
        newest = self._state.status.newest_event
        is_read = newest is None or newest == self._newest
        while not is_read:
            try:
                page = await self._operator.events_after(self._cursor, PAGE_ENTRIES)
            except ServingError as error:
                log.debug("history_not_read", reason=str(error))
                return False
            self._cursor, is_read = page.newest, page.is_last
            self._publish(describe_page(page), are_history=True)
            for client in self.clients:
                if not client.has_caught_up:
                    client.wake()
        self._newest = newest
        return True

    def _publish(self, events: list[StreamEvent], *, are_history: bool = False) -> None:
        if not events:
            return
        text = write_text(events)
        for client in self.clients:
            if (client.has_caught_up or not are_history) and not client.put(text):
                log.info("stream_ended", reason="its client reads too slowly", waiting_bytes=MOST_WAITING_BYTES)

    def _end_all(self) -> None:
        for client in self.clients:
            client.end()


def describe_page(page: EventPage) -> list[StreamEvent]:
    """Return the events of a page of the history, after one for what is missing before it."""
    gap = [] if page.gap is None else [StreamEvent("gap", orjson.dumps({"reason": page.gap}), page.begin)]
    entries = ((name_event(page.log, entry.id), entry.model_dump_json().encode()) for entry in page.entries)
    return [*gap, *(StreamEvent("history", data, event_id) for event_id, data in entries)]
