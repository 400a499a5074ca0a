"""One connection without a socket: bytes in, and what its transport is told; no clock is waited for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from serving.domain.server_names import ServerNames
from serving.http1 import HttpConnection
from serving.http1.limits import MOST_AHEAD_BYTES
from serving.settings import ServerSettings

HOST = b"Host: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
OFFER = b"Connection: upgrade\r\nUpgrade: h2c\r\n"
NOW, LATER = b"now", b"later"  # bodies of predictions: answered where they end, or by the application
TURNS = 12

Step = bytes | Callable[["Wire"], None]
Trace = list[int | str]


def request(
    path: bytes = b"/wait", headers: bytes = b"", body: bytes = b"", *, method: bytes = b"POST", version: bytes = b"1.1"
) -> bytes:
    """Return a whole request; its body has its length in front, unless `headers` say that it comes in chunks."""
    length = b"" if CHUNKED in headers else b"Content-Length: %d\r\n" % len(body)
    return b"%b %b HTTP/%b\r\n%b%b%b\r\n%b" % (method, path, version, HOST, headers, length, body)


def predict(body: bytes = NOW, headers: bytes = b"", *, version: bytes = b"1.1") -> bytes:
    """Return a prediction."""
    return request(b"/predict", headers, body, version=version)


class Shortcut:
    """Answers NOW at once, with its target and body; everything else is left to the application."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[bytes, bytes], bytes]] = []

    def respond(self, path: str, fields: dict[bytes, bytes], raw: bytes) -> tuple[bytes, bytes] | None:
        """Return header lines and a body, or None."""
        self.asked.append((path, dict(fields), raw))
        if raw.strip() != NOW:
            return None
        body = path.encode() + b" " + raw
        return b"content-length: %d\r\n" % len(body), body


class Application:
    """Answers with its target and body: `/wait` and what begins with it when it is told to, all others at once.

    `/wait-closing` ends its connection; `/wait-begun` has sent the head of its answer before; `/early` answers before
    the body is there. What ends in `-failing` raises after its answer. `began` are the targets of what it was given,
    `headers` the headers of what it was given last.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.shortcut = Shortcut()
        services = SimpleNamespace(shortcut=self.shortcut, settings=SimpleNamespace(server=settings))
        self.state = SimpleNamespace(services=services)
        self.names = ServerNames((), "127.0.0.1")
        self.began: list[str] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.waiting: list[asyncio.Event] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        path = scope["path"]
        self.began.append(path)
        self.headers = scope["headers"]
        is_begun = path == "/wait-begun"
        if is_begun:
            await send(_start_of(path, b""))
        body, has_more = b"", not is_begun and not path.startswith("/early")
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            has_more = message["more_body"]
        if path.startswith("/wait"):
            event = asyncio.Event()
            self.waiting.append(event)
            await event.wait()
        if not is_begun:
            await send(_start_of(path, body))
        await send({"type": "http.response.body", "body": path.encode() + b" " + body})
        if path.endswith("-failing"):
            raise RuntimeError("after the answer")


def _start_of(path: str, body: bytes) -> dict[str, Any]:
    headers = [(b"content-length", b"%d" % (len(path) + 1 + len(body)))]
    if path.startswith("/wait-closing"):
        headers.append((b"connection", b"close"))
    return {"type": "http.response.start", "status": 200, "headers": headers}


class Transport(asyncio.Transport):
    """Remembers what it was told; a close is a close at once."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ends: list[str] = []
        self.is_paused = False
        self.unsent_bytes = 0

    def write(self, data: Any) -> None:
        """Send."""
        assert not self.ends, "written after the end"
        self.written += data

    def write_eof(self) -> None:
        """Send an end."""
        self.ends.append("eof")

    def can_write_eof(self) -> bool:
        """Say that an end can be sent."""
        return True

    def close(self) -> None:
        """Close."""
        self.ends.append("close")

    def abort(self) -> None:
        """Reset."""
        self.ends.append("abort")

    def is_closing(self) -> bool:
        """Say whether it is closed."""
        return "close" in self.ends or "abort" in self.ends

    def pause_reading(self) -> None:
        """Deliver nothing."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Deliver again."""
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        """Return what the client has not taken yet."""
        return self.unsent_bytes


class Wire:
    """A connection, its transport and its application. `settings` are those of ``[server]``."""

    def __init__(self, application: Application | None = None, state: ServerState | None = None, **settings: Any):
        self.application = application or Application(ServerSettings.model_validate(settings))
        config = uvicorn.Config(
            self.application,  # type: ignore[arg-type]
            lifespan="off",
            ws="none",
            log_config=None,
            timeout_keep_alive=600,  # it is idle for too long where a step says so, and nowhere else
        )
        config.load()
        self.connection = HttpConnection(config, state or ServerState(), {})
        self.limits = self.connection._limits
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    @property
    def trace(self) -> Trace:
        """The statuses that were sent, and how the connection ended."""
        found = re.findall(rb"HTTP/1\.1 (\d+) ", self.transport.written)
        return [*map(int, found), *self.transport.ends]

    async def play(self, *steps: Step) -> Trace:
        """Take steps, each after everything that the one before leads to."""
        for step in steps:
            if isinstance(step, bytes):
                self.connection.data_received(step)
            else:
                step(self)
            await turn()
        return self.trace

    def answer(self) -> None:
        """Have the application answer the request that waits longest."""
        self.application.waiting.pop(0).set()

    def overdue(self) -> None:
        """Let the deadline pass that the connection is under: there must be one."""
        under = (self.limits.heads, self.limits.dropped, self.limits.lingering)
        (deadlines,) = [each for each in under if self.connection in each]
        deadlines.end(self.connection)
        self.connection.on_overdue()

    def idle(self) -> None:
        """Let the time of an idle connection pass."""
        self.connection._idle_since -= self.connection.timeout_keep_alive
        self.connection.timeout_keep_alive_handler()

    def resume(self) -> None:
        """Go on where another process has answered."""
        self.connection.resume()

    def send_away(self) -> None:
        """Make room for another connection."""
        self.connection.send_away()

    def recognise(self) -> None:
        """Have another connection of the same listener answer a prediction, whose head is known from then on."""
        other = Wire(self.application)
        other.connection.data_received(predict())

    def fill(self) -> None:
        """Have other connections take all the room for what is sent ahead."""
        self.limits.ahead_bytes = MOST_AHEAD_BYTES

    def lose(self) -> None:
        """Lose the connection."""
        self.connection.connection_lost(None)


async def turn() -> None:
    """Let the loop do what is to be done now."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
