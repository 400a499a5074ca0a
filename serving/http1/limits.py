"""What connections may take, what all connections of one event loop share, and the answers to those that take more.

There is no request yet that a route could answer, so these answers are made here, whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from serving.api import problems
from serving.api.bodies import DROPPED_BYTES
from serving.api.deadlines import Deadlines, Overdue
from serving.api.problems import ErrorKind
from serving.http1.heads import NOT_HTTP, KnownHeads
from serving.http1.write_queue import WriteQueue
from serving.settings import ServerSettings

LINGER_SECONDS = 5.0
MOST_AHEAD_BYTES = 64 << 20  # of all connections: what their clients sent ahead and is not read yet
MOST_CROWDED = 32  # descriptors kept for them: see `serving.server`

# a whole answer, without the headers that a server adds to every one: they belong between the two parts
Refusal = tuple[bytes, bytes]


class Crowded(Overdue, Protocol):
    """A connection that can be sent away."""

    def send_away(self) -> None:
        """Close the connection, and say why where no answer is under way."""


class ConnectionLimits:
    """What all connections of one loop share. Event loop thread only.

    `heads` are connections that wait for the rest of a request's head, or for their first byte; `dropped` those whose
    request was answered before its body had arrived; `lingering` those that are closed, but whose client still sends;
    `stalled` those whose client does not read its answer; `crowd` those that came when there were too many.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: ServerSettings) -> None:
        self.write_queue = WriteQueue(loop)
        self.heads = Deadlines(loop, settings.header_seconds)
        self.dropped = Deadlines(loop, settings.body_seconds)
        self.lingering = Deadlines(loop, min(LINGER_SECONDS, settings.body_seconds))
        self.stalled = Deadlines(loop, settings.idle_seconds)
        self.crowd = Crowd()
        self.ahead_bytes = 0
        self.header_bytes = int(settings.max_header_kb * 1024)
        self.dropped_bytes = DROPPED_BYTES
        self.connections = settings.max_connections or None
        large = f"the request line and the headers are larger than {settings.max_header_kb:g} kB; send fewer or shorter"
        slow = f"the request line and the headers did not arrive within {settings.header_seconds:g} seconds"
        many = f"{settings.max_connections} connections are open already; try again later"
        self.too_large = _write_answer(problems.HEAD_TOO_LARGE, large)
        self.too_slow = _write_answer(problems.HEAD_TOO_SLOW, slow)
        self.too_many = _write_answer(problems.TOO_MANY_CONNECTIONS, many, {"Retry-After": "1"})
        self.not_http = refuse_head(NOT_HTTP)
        self._known_heads: dict[Hashable, KnownHeads] = {}

    def known_heads_of(self, listener: Hashable) -> KnownHeads:
        """Return the heads that connections of one listener know."""
        return self._known_heads.setdefault(listener, KnownHeads())

    def forget(self, connection: Crowded) -> None:
        """Remove a connection from all deadlines, and from the crowd."""
        for deadlines in (self.heads, self.dropped, self.lingering):
            deadlines.end(connection)
        self.crowd.leave(connection)


class Crowd:
    """The connections beyond the limit, at most MOST_CROWDED. They may only ask for probes.

    When one more comes, the oldest one is closed. So a probe that asks at once is answered, however many others came
    and ask nothing.
    """

    def __init__(self) -> None:
        self._members: dict[Crowded, None] = {}  # in the order they came

    def __contains__(self, connection: object) -> bool:
        return connection in self._members

    def admit(self, connection: Crowded) -> None:
        """Add a connection; the oldest one is sent away if there are too many."""
        if len(self._members) >= MOST_CROWDED:
            first = next(iter(self._members))
            del self._members[first]
            first.send_away()
        self._members[connection] = None

    def leave(self, connection: Crowded) -> None:
        """Forget a connection; nothing happens if it is not in the crowd."""
        self._members.pop(connection, None)


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, ConnectionLimits] = WeakKeyDictionary()


def limits_of(loop: asyncio.AbstractEventLoop, settings: ServerSettings) -> ConnectionLimits:
    """Return what the connections of a loop share; the settings of the first connection hold for all."""
    found = _shared.get(loop)
    return found if found is not None else _shared.setdefault(loop, ConnectionLimits(loop, settings))


def refuse_head(detail: str) -> Refusal:
    """Return the answer to a head that has this fault."""
    return _write_answer(problems.BAD_REQUEST, detail)


def count_head_bytes(url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> int:
    """Return how many bytes a request's head has, give or take a few."""
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def _write_answer(kind: ErrorKind, detail: str, headers: dict[str, str] | None = None) -> Refusal:
    response = problems.problem(kind, detail, {"Connection": "close", **(headers or {})})
    lines = [
        *response.raw_headers,
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
    ]
    rest = b"".join(name + b": " + value + b"\r\n" for name, value in lines)
    return STATUS_LINE[kind.status], rest + b"\r\n" + response.body
