"""What many clients saw in real time: once anybody has an answer of a version, no later request gets an older one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.e2e.harness import until

SECONDS = 40.0
HUNG = -1
PAUSE_SECONDS = 0.002  # without it clients would take the whole machine, and new versions would come late
WHILE_WAITING = 0.03  # for clients that go on while processes end and start, which takes seconds


@dataclass(frozen=True, slots=True)
class Seen:
    """One request and its answer: when it was sent and had arrived (monotonic clock), its status and its version."""

    sent_at: float
    arrived_at: float
    status: int
    version: int
    value: float | None


def find_going_back(seen: Iterable[Seen]) -> list[tuple[Seen, int]]:
    """Return the answers that are older than one that had arrived before they were asked for, with its version."""
    answers = sorted((one for one in seen if one.status == 200), key=lambda one: one.arrived_at)
    newest: list[int] = []
    for one in answers:
        newest.append(max(one.version, newest[-1] if newest else one.version))
    arrivals = [one.arrived_at for one in answers]
    found = []
    for one in answers:
        before = bisect_left(arrivals, one.sent_at)
        if before and newest[before - 1] > one.version:
            found.append((one, newest[before - 1]))
    return found


@dataclass
class Clients:
    """Clients that ask one model again and again, each over a connection of its own, from one thread.

    A client whose connection fails notes a status of 0, and connects again, to what `url` is then; one that waits for
    longer than SECONDS notes HUNG. After each answer a client pauses: the shorter, the more of a machine they all take.
    """

    url: str
    model: str
    count: int = 12
    pause_seconds: float = PAUSE_SECONDS
    seen: list[Seen] = field(default_factory=list)

    def __enter__(self) -> Clients:
        self._is_stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="clients")
        self._thread.start()
        until(lambda: len(self.seen) >= self.count, "an answer for each client")
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping = True
        self._thread.join(60)
        assert not self._thread.is_alive(), "a request never came back"

    def failures(self) -> list[Seen]:
        """Return the requests that were not answered with 200."""
        return [one for one in self.seen if one.status != 200]

    async def _run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self.count)))

    async def _client(self) -> None:
        body = json.dumps({"instances": [[0.0, 0.0]]}).encode()
        head = f"POST /models/{self.model}/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
        streams = None
        while not self._is_stopping:
            sent_at = time.monotonic()
            try:
                if streams is None:
                    address = urlsplit(self.url)
                    streams = await asyncio.open_connection(address.hostname, address.port)
                    sent_at = time.monotonic()
                streams[1].write(request)
                async with asyncio.timeout(SECONDS):
                    head_bytes = await streams[0].readuntil(b"\r\n\r\n")
                    fields = dict(line.lower().split(b": ", 1) for line in head_bytes.split(b"\r\n")[1:-2])
                    answer = json.loads(await streams[0].readexactly(int(fields[b"content-length"])))
                status = int(head_bytes.split(b" ", 2)[1])
                has_ended = fields.get(b"connection") == b"close"
            except TimeoutError:
                status, answer, has_ended = HUNG, {}, True
            except (OSError, asyncio.IncompleteReadError):
                status, answer, has_ended = 0, {}, True
            version = int(answer.get("version") or 0) if status == 200 else 0
            value = float(answer["predictions"][0]) if status == 200 else None
            self.seen.append(Seen(sent_at, time.monotonic(), status, version, value))
            if has_ended and streams is not None:
                await _close(streams[1])
                streams = None
            await asyncio.sleep(self.pause_seconds if status == 200 else 0.03)
        if streams is not None:
            await _close(streams[1])


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
