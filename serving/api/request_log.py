"""The id and the log line of each request, over HTTP and gRPC alike.

Every request has an id: the client's own if it is a valid one. Every line that is logged during the request names it.
At the end of the request one more line is logged for an error, and for a sample of all others.
"""

from __future__ import annotations

import re
from contextvars import Token
from itertools import count
from random import random
from secrets import token_hex
from time import perf_counter

import structlog

from serving.api.bodies import Headers
from serving.telemetry.logging import REQUEST_ID

CLIENT_GONE = 499

_ACCEPTED_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")

log = structlog.get_logger("serving.access")


class RequestIds:
    """Gives every request an id. Any thread."""

    def __init__(self) -> None:
        self._prefix = token_hex(6).encode()
        self._numbers = count(1)

    def of(self, headers: Headers) -> bytes:
        """Return the id of a request with these headers."""
        given = headers.get(b"x-request-id")
        if given is not None and _ACCEPTED_ID.fullmatch(given):
            return given
        return b"%b-%x" % (self._prefix, next(self._numbers))


class RequestLog:
    """Begins requests. `sample` is the share of successful requests that are logged. Any thread."""

    def __init__(self, sample: float) -> None:
        self.ids = RequestIds()
        self.sample = sample

    def begin(self, method: str, path: str, client: str | None, headers: Headers) -> LoggedRequest:
        """Return a new request, which the caller enters in a ``with`` block."""
        return LoggedRequest(self.ids.of(headers), self.sample, method, path, client)


class LoggedRequest:
    """One request, from the beginning of its ``with`` block to the end. Its `status` is 499 until it is answered."""

    __slots__ = ("_client", "_method", "_path", "_sample", "_started", "_token", "id", "status")

    def __init__(self, request_id: bytes, sample: float, method: str, path: str, client: str | None) -> None:
        self.id = request_id
        self.status = CLIENT_GONE
        self._sample = sample
        self._method = method
        self._path = path
        self._client = client

    def __enter__(self) -> LoggedRequest:
        self._started = perf_counter()
        self._token: Token[str | None] = REQUEST_ID.set(self.id.decode())
        return self

    def __exit__(self, *_: object) -> None:
        if self.status >= 400 or (self._sample and random() < self._sample):  # noqa: S311 - a sample, not a secret
            self._write()
        REQUEST_ID.reset(self._token)

    def _write(self) -> None:
        write = log.error if self.status >= 500 else log.info
        write(
            "request",
            method=self._method[:20],
            path=self._path[:200],
            status=self.status,
            duration_ms=round((perf_counter() - self._started) * 1000, 2),
            client=self._client,
        )
