"""What a connection may take, and the answers of one that takes more: there is no request to be answered by a route."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from serving.api import problems
from serving.api.bodies import DROPPED_BYTES
from serving.api.problems import ErrorKind
from serving.http1.crowd import Crowd
from serving.http1.deadlines import Deadlines
from serving.http1.heads import NOT_HTTP
from serving.http1.write_queue import WriteQueue
from serving.settings import ServerSettings

LINGER_SECONDS = 5.0
MOST_AHEAD_BYTES = 64 << 20  # of all connections: what their clients sent ahead and is not read yet


class Bounds:
    """What all connections of one loop share: their limits, their deadlines, and what is sent at the end of a turn.

    `heads` are connections that owe the rest of a request's head, or their first byte; `dropped` those whose request
    has been answered before its body was there; `lingering` those that are closed but for what the client still sends;
    `stalled` those whose client takes nothing of what it is sent; `crowd` those that came when there were too many.
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
        self.too_large = _answer(problems.HEAD_TOO_LARGE, large)
        self.too_slow = _answer(problems.HEAD_TOO_SLOW, slow)
        self.too_many = _answer(problems.TOO_MANY_CONNECTIONS, many, {"Retry-After": "1"})
        self.invalid = refuse_head(NOT_HTTP)


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, Bounds] = WeakKeyDictionary()


def bounds_of(loop: asyncio.AbstractEventLoop, settings: ServerSettings) -> Bounds:
    """Return what the connections of a loop share; the first one's settings are those of all."""
    found = _shared.get(loop)
    return found if found is not None else _shared.setdefault(loop, Bounds(loop, settings))


def refuse_head(detail: str) -> tuple[bytes, bytes]:
    """Return the answer to a head that has this fault, in the two parts that `Bounds` has its answers in."""
    return _answer(problems.BAD_REQUEST, detail)


def head_bytes(url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> int:
    """Return how many bytes a request's head has, within a few."""
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def _answer(kind: ErrorKind, detail: str, headers: dict[str, str] | None = None) -> tuple[bytes, bytes]:
    """Return a whole answer in two parts, between which the headers belong that a server adds to every one."""
    response = problems.problem(kind, detail, {"Connection": "close", **(headers or {})})
    lines = [
        *response.raw_headers,
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
    ]
    rest = b"".join(name + b": " + value + b"\r\n" for name, value in lines)
    return STATUS_LINE[kind.status], rest + b"\r\n" + response.body
