"""A client of `GET /events` that comes back whenever its stream ends, as browsers do, and keeps what it was told."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any, NamedTuple

import httpx

from tests.e2e.harness import NO_TLS, Server, until

SILENCE_SECONDS = 25.0  # a comment comes every 10 seconds
PAUSE_SECONDS = 0.05


class Told(NamedTuple):
    """One event."""

    kind: str
    id: str | None
    data: Any


class EventFollower:
    """Follows the stream from a thread of its own for the length of a ``with`` block.

    `told` has every event of every stream in order; `streams` counts those that began. `ends` says how each ended: None
    as it should, else the error. `headers` are those of the last answer.
    """

    def __init__(self, server: Server, path: str = "/events", since: str | None = None) -> None:
        self._server = server
        self._path = path
        self._is_over = threading.Event()
        self.last_id = since
        self.told: list[Told] = []
        self.streams = 0
        self.ends: list[str | None] = []
        self.headers: httpx.Headers | None = None
        self._thread = threading.Thread(target=self._follow, name="event-follower", daemon=True)

    def __enter__(self) -> EventFollower:
        self._thread.start()
        until(lambda: self.streams, "the first stream")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join(SILENCE_SECONDS)

    def data_of(self, kind: str) -> list[Any]:
        """Return the data of all events of one kind."""
        return [one.data for one in list(self.told) if one.kind == kind]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the entries of the history that were told."""
        return [entry["id"] for entry in self.data_of("history")]

    def _follow(self) -> None:
        while not self._is_over.is_set():
            try:
                self._read()
            except (httpx.HTTPError, OSError) as error:
                if self.streams > len(self.ends):
                    self.ends.append(type(error).__name__)
            else:
                self.ends.append(None)
            self._is_over.wait(PAUSE_SECONDS)

    def _read(self) -> None:
        headers = {} if self.last_id is None else {"Last-Event-ID": self.last_id}
        with (
            httpx.Client(timeout=httpx.Timeout(5.0, read=SILENCE_SECONDS), verify=NO_TLS) as client,
            client.stream("GET", self._server.url + self._path, headers=headers) as answer,
        ):
            answer.raise_for_status()
            self.headers = answer.headers
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                if self._is_over.is_set():
                    return
                name, _, value = line.partition(": ")
                if line:
                    fields[name] = value
                    continue
                if "event" in fields:
                    self._take(Told(fields["event"], fields.get("id"), json.loads(fields["data"])))
                fields = {}

    def _take(self, event: Told) -> None:
        if event.id is not None:
            self.last_id = event.id
        self.told.append(event)
        if event.kind == "start":
            self.streams += 1


def wait_same(server: Server, followers: Iterable[EventFollower], first: int) -> list[int]:
    """Wait until each of them was told every entry after `first` once, in order, and no other; return the numbers."""

    def numbers() -> list[int] | None:
        expected = list_numbers(server, first)
        told = [[number for number in one.numbers if number > first] for one in followers]
        return expected if all(one == expected for one in told) else None

    return until(numbers, "the same entries everywhere")


def list_numbers(server: Server, after: int) -> list[int]:
    """Return the numbers of all entries of the history after one, oldest first."""
    with contextlib.closing(httpx.Client(verify=NO_TLS, timeout=20.0)) as client:
        entries = client.get(f"{server.url}/history?limit=10000").json()["history"]
    return sorted(entry["id"] for entry in entries if entry["id"] > after)
