"""Open-loop traffic of several kinds of clients, recorded."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.e2e.record import Record, Reply

ANSWER_SECONDS = 60.0  # far beyond any deadline of the server: a request that gets no answer at all


@dataclass
class Traffic:
    """Sends `rate` requests a second, spread over `connections`, from a thread of its own.

    The block begins when the first has been answered, or has failed. `rows` in each request; `is_one_shot`: a new
    connection for each; `pause_seconds` between the halves of a request.
    `url` may change while it runs: connections that are opened from then on go there.
    """

    url: str
    model: str
    rate: float = 200.0
    connections: int = 8
    rows: int = 1
    is_one_shot: bool = False
    pause_seconds: float = 0.0
    client: str = "keep-alive"
    record: Record = field(default_factory=Record)

    @property
    def replies(self) -> deque[Reply]:
        """What has been answered, in the order of the answers."""
        return self.record.replies

    def __enter__(self) -> Traffic:
        self._is_stopping = False
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="traffic")
        self._thread.start()
        assert self._has_begun.wait(ANSWER_SECONDS + 10), "the first request never came back"
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping = True
        self._thread.join(ANSWER_SECONDS + 10)
        assert not self._thread.is_alive(), "a request never came back"

    async def _run(self) -> None:
        await asyncio.gather(*(self._connection(number) for number in range(self.connections)))

    async def _connection(self, number: int) -> None:
        pause = self.connections / self.rate
        due = time.perf_counter() + pause * number / self.connections
        streams = None
        while not self._is_stopping:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent_at, due = due, due + pause
            try:
                if streams is None:
                    address = urlsplit(self.url)
                    streams = await asyncio.open_connection(address.hostname, address.port)
                status, headers, body = await asyncio.wait_for(self._ask(*streams), ANSWER_SECONDS)
                has_ended = self.is_one_shot or headers.get("connection") == "close"
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                seconds = time.perf_counter() - sent_at
                reply = Reply(number, sent_at, seconds, 0, error=repr(error), client=self.client, model=self.model)
                has_ended = True
            else:
                reply = self._reply(number, sent_at, status, headers, body)
            self.record.add(reply)
            self._has_begun.set()
            if has_ended and streams is not None:
                streams[1].close()
                streams = None
        if streams is not None:
            streams[1].close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[int, dict[str, str], bytes]:
        body = json.dumps({"instances": [[0.0, 0.0]] * self.rows}).encode()
        request = (
            f"POST /models/{self.model}/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{'Connection: close' + chr(13) + chr(10) if self.is_one_shot else ''}\r\n"
        ).encode() + body
        if self.pause_seconds:
            half = len(request) // 2
            writer.write(request[:half])
            await asyncio.sleep(self.pause_seconds)
            request = request[half:]
        writer.write(request)
        return await _read(reader)

    def _reply(self, number: int, sent_at: float, status: int, headers: dict[str, str], body: bytes) -> Reply:
        seconds = time.perf_counter() - sent_at
        if status != 200:
            error = body.decode(errors="replace")
            return Reply(number, sent_at, seconds, status, error=error, client=self.client, model=self.model)
        answer = json.loads(body)
        version, predictions = answer["version"], answer["predictions"]
        error = ""
        if version != headers["x-model-version"]:
            error = f"the header names version {headers['x-model-version']!r}"
        elif len(predictions) != self.rows or len(set(predictions)) != 1:
            error = f"{len(predictions)} predictions for {self.rows} equal rows: {predictions[:5]}"
        return Reply(number, sent_at, seconds, 200, version, predictions[0], error, self.client, self.model)


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    status = int(lines[0].split()[1])
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
    return status, headers, await reader.readexactly(int(headers["content-length"]))
