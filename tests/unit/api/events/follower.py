"""Clients of `GET /events` over ASGI, and a history that grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
from fastapi import FastAPI

from serving.api.services import services_of
from serving.domain.event_page import name_event
from serving.domain.status import ModelHistoryEntry
from tests.fakes import LOG, NOON, FakeOperator, Message, make_app


class Story:
    """A history that grows, and the application whose clients follow it; 250 entries are there."""

    def __init__(self, app: FastAPI | None = None, **settings: Any) -> None:
        self.app = make_app(**settings) if app is None else app
        self.state = self.app.state
        self.feed = services_of(self.app).events
        operator = services_of(self.app).operator
        assert isinstance(operator, FakeOperator)
        self.operator = operator

    def happen(self, *reasons: str) -> None:
        """Write entries, and publish that they are written."""
        self.write(*reasons)
        self.publish(newest_event=name_event(LOG, self.operator.entries[0].id))

    def write(self, *reasons: str) -> None:
        """Write entries, oldest first."""
        for reason in reasons:
            number = self.operator.entries[0].id + 1
            entry = ModelHistoryEntry(
                model="iris", id=number, at=NOON, version="3", actor="system", event="transition", reason=reason
            )
            self.operator.entries = (entry, *self.operator.entries)

    def publish(self, **changes: Any) -> None:
        """Replace the status."""
        self.state.status = replace(self.state.status, **changes)


class Client:
    """One client: the events that it was sent. While `may_read` is not set it takes nothing more."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.has_ended = False
        self.may_read = asyncio.Event()
        self.may_read.set()
        self._gone = asyncio.Event()
        self._body = b""

    async def receive(self) -> Message:
        """Wait for the end of the connection."""
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a message."""
        await self.may_read.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self._body += message.get("body", b"")
            self.has_ended = not message.get("more_body", False)

    def go(self) -> None:
        """Break the connection."""
        self._gone.set()

    @property
    def text(self) -> str:
        """Everything that has come."""
        return self._body.decode()

    @property
    def events(self) -> list[tuple[str, str | None, Any]]:
        """The events that have come whole: name, id and data."""
        found = []
        for block in self.text.split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "event" in fields:
                found.append((fields["event"], fields.get("id"), orjson.loads(fields["data"])))
        return found

    def data_of(self, kind: str) -> list[Any]:
        """The data of all events of one kind."""
        return [data for name, _, data in self.events if name == kind]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the entries that have come."""
        return [data["id"] for data in self.data_of("history")]


@asynccontextmanager
async def following(app: FastAPI, query: str = "", **headers: str) -> AsyncIterator[Client]:
    """Be a client for the length of a block."""
    client = Client()
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/events",
        "headers": raw,
        "query_string": query.encode(),
        "client": None,
    }
    task = asyncio.create_task(app(scope, client.receive, client.send))
    try:
        await until(lambda: client.data_of("start") or client.has_ended)
        yield client
    finally:
        client.go()
        client.may_read.set()
        await task


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition; the test's own deadline ends one that never becomes true."""
    while not condition():
        await asyncio.sleep(0.002)
