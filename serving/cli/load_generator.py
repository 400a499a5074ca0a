"""Generates closed-loop load for ``serving bench``: each connection waits for its answer, then sends again."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from serving.cli.output import one_line

LAST_ANSWERS_SECONDS = 30.0
RECONNECT_SECONDS = 0.1


@dataclass(slots=True)
class Tally:
    """The results: seconds of each request that was answered with 200, versions that answered, failures."""

    seconds: list[float] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    ended: int = 0

    def count_failure(self, why: str) -> None:
        """Count a request that failed or was refused."""
        self.ended += 1
        self.failures[one_line(why)[:200]] += 1


class _Connection(asyncio.Protocol):
    """Sends the next request after each answer, until `ends_at`; `lost` is set when the connection has closed."""

    def __init__(self, tally: Tally, request: bytes, ends_at: float) -> None:
        import httptools  # noqa: PLC0415  (only this command needs it)

        self._tally, self._request, self._ends_at = tally, request, ends_at
        self._parser: Any = httptools.HttpResponseParser(self)
        self._body, self._version = bytearray(), ""
        self._transport: Any = None
        self.sent_at: float | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send_request()

    def _send_request(self) -> None:
        self._body.clear()
        self._version = ""
        self.sent_at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except Exception as error:  # noqa: BLE001  (a server may send any bytes)
            self._end_request(f"not HTTP: {error}")
            self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-model-version":
            self._version = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        if self._parser.get_status_code() != 200:
            self._body += part

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._end_request("" if status == 200 else f"{status} {_read_detail(self._body)}")
        if time.perf_counter() < self._ends_at and self._parser.should_keep_alive():
            self._send_request()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.sent_at is not None:
            self._end_request(f"no answer: {exc or 'the connection was closed'}")
        if not self.lost.done():
            self.lost.set_result(None)

    def _end_request(self, failure: str) -> None:
        seconds = time.perf_counter() - (self.sent_at or 0.0)
        self.sent_at = None
        if failure:
            self._tally.count_failure(failure)
            return
        self._tally.ended += 1
        self._tally.seconds.append(seconds)
        self._tally.versions[self._version or "?"] += 1


def _read_detail(body: bytes | bytearray) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return bytes(body[:100]).decode("utf-8", "replace")


async def generate_load(
    tally: Tally,
    url: str,
    name: str,
    body: bytes,
    connections: int,
    seconds: float,
    tick: Callable[[float], None],
    *,
    token: str | None = None,
) -> float:
    """Keep all `connections` busy for `seconds`; return the seconds until the last answer."""
    parts = urlsplit(f"{url}/models/{quote(name, safe='')}/predict")
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\nUser-Agent: serving-bench\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        + (f"Authorization: Bearer {token}\r\n" if token is not None else "")
        + "\r\n"
    )
    began = time.perf_counter()
    request, ends_at = head.encode() + body, began + seconds
    tasks = [asyncio.create_task(_keep_requesting(tally, parts, request, ends_at)) for _ in range(connections)]
    pending = set(tasks)
    while pending and (now := time.perf_counter()) < ends_at + LAST_ANSWERS_SECONDS:
        tick(now - began)
        _, pending = await asyncio.wait(pending, timeout=0.1)
    for task in pending:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return time.perf_counter() - began


async def _keep_requesting(tally: Tally, parts: Any, request: bytes, ends_at: float) -> None:
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if context else 80)
    while time.perf_counter() < ends_at:
        try:
            transport, connection = await loop.create_connection(
                lambda: _Connection(tally, request, ends_at), parts.hostname, port, ssl=context
            )
        except OSError as error:
            tally.count_failure(f"no connection: {error}")
            await asyncio.sleep(RECONNECT_SECONDS)
            continue
        try:
            await asyncio.shield(connection.lost)
        except asyncio.CancelledError:
            if connection.sent_at is not None:
                tally.count_failure(f"no answer {LAST_ANSWERS_SECONDS:g} s after the end")
                connection.sent_at = None
            transport.abort()
            raise
