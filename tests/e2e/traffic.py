"""Open-loop traffic over keep-alive connections, recorded, and the checker of what must hold over all of it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from serving.domain.version import order_key

BODY = b'{"instances": [[0.0, 0.0]]}'


@dataclass(frozen=True)
class Reply:
    """One answer, or what went wrong instead."""

    connection: int
    sent_at: float
    seconds: float
    status: int
    version: str = ""
    value: float | None = None
    error: str = ""


@dataclass
class Traffic:
    """Sends `rate` requests a second, spread over `connections`, from a thread of its own."""

    url: str
    model: str
    rate: float = 200.0
    connections: int = 8
    replies: list[Reply] = field(default_factory=list)

    def __enter__(self) -> Traffic:
        self._is_stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="traffic")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping = True
        self._thread.join(60)
        assert not self._thread.is_alive(), "a request never came back"

    async def _run(self) -> None:
        await asyncio.gather(*(self._connection(number) for number in range(self.connections)))

    async def _connection(self, number: int) -> None:
        address = urlsplit(self.url)
        head = (
            f"POST /models/{self.model}/predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n"
        ).encode()
        pause = self.connections / self.rate
        due = time.perf_counter() + pause * number / self.connections
        streams = None
        while not self._is_stopping:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent_at, due = due, due + pause
            try:
                if streams is None:
                    streams = await asyncio.open_connection(address.hostname, address.port)
                streams[1].write(head + BODY)
                status, headers, body = await _read(streams[0])
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                self.replies.append(Reply(number, sent_at, 0.0, 0, error=repr(error)))
                streams = None
                continue
            seconds = time.perf_counter() - sent_at
            if status != 200:
                self.replies.append(Reply(number, sent_at, seconds, status, error=body.decode(errors="replace")))
                continue
            answer = json.loads(body)
            assert answer["version"] == headers["x-model-version"]
            self.replies.append(Reply(number, sent_at, seconds, 200, answer["version"], answer["predictions"][0]))
        if streams is not None:
            streams[1].close()


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    status = int(lines[0].split()[1])
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
    return status, headers, await reader.readexactly(int(headers["content-length"]))


def check(replies: list[Reply], *, may_go_back: bool = False) -> None:
    """Every request was answered with 200, by the version it names, and no connection saw time run backwards."""
    assert replies, "no traffic at all"
    failed = [reply for reply in replies if reply.status != 200]
    assert not failed, f"{len(failed)} of {len(replies)} requests failed, the first: {failed[:3]}"
    wrong = [reply for reply in replies if reply.value != float(reply.version)]
    assert not wrong, f"answers that their version would not give: {wrong[:3]}"
    if may_go_back:
        return
    newest: dict[int, str] = {}
    for reply in replies:
        before = newest.get(reply.connection, reply.version)
        assert order_key(reply.version) >= order_key(before), f"went back from {before}: {reply}"
        newest[reply.connection] = reply.version
