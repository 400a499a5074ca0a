"""Predictions answered without a scope, a task or a framework, for a server that has the whole request already."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count
from secrets import token_hex

from starlette.datastructures import State

from serving.api.bodies import Headers
from serving.api.endpoint import Endpoint
from serving.api.origins import ORIGIN, SITE
from serving.api.paths import prediction_of

MOST_PATHS = 4096
# a path is as long as a client likes, and kept: two names of 100 and what is around them fit
MOST_PATH_CHARACTERS = 512

_ACCEPTED_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class RequestIds:
    """Gives every request an id: the client's own where it sent a sensible one."""

    def __init__(self) -> None:
        self._prefix = token_hex(6).encode()
        self._numbers = count(1)

    def of(self, headers: Headers) -> bytes:
        """Return the id of a request with these headers."""
        given = headers.get(b"x-request-id")
        if given is not None and _ACCEPTED_ID.fullmatch(given):
            return given
        return b"%b-%x" % (self._prefix, next(self._numbers))


class Shortcut:
    """Answers what needs no waiting and succeeds; everything else is left to the long way, which begins anew.

    Event loop thread only. `state` is ``app.state``; it has settings and metrics when the first request comes.
    """

    def __init__(self, state: State, endpoints: Mapping[str, Endpoint], ids: RequestIds) -> None:
        self._state = state
        self._endpoints = endpoints
        self._ids = ids
        self._is_ready = False
        self._is_open = False
        self._calls: dict[str, tuple[Endpoint, dict[str, str]] | None] = {}

    def respond(self, path: str, headers: Headers, raw: bytes) -> tuple[bytes, bytes] | None:
        """Return header lines (each with its end) and body of a 200, or None when there is none to be had now."""
        if not self._is_ready:
            self._adopt()
        try:
            call = self._calls[path]
        except KeyError:
            call = self._remember(path)
        if call is None or not self._is_open or ORIGIN in headers or SITE in headers:
            return None
        endpoint, params = call
        try:
            found = endpoint.answer_now(self._state, params, headers, raw)
        except Exception:  # noqa: BLE001 - it happens again on the long way, and is answered there
            return None
        if found is None:
            return None
        answer, written = found
        head = (
            b"content-type: %b\r\ncontent-length: %d\r\nx-content-type-options: nosniff\r\n"
            b"x-model-name: %b\r\nx-model-version: %b\r\n%bx-request-id: %b\r\n"
        )
        names = answer.model.encode(), answer.version.encode()
        more = b"".join([b"%b: %b\r\n" % header for header in written.headers]) if written.headers else b""
        body = written.body
        return head % (written.media_type, len(body), *names, more, self._ids.of(headers)), body

    def _remember(self, path: str) -> tuple[Endpoint, dict[str, str]] | None:
        found = prediction_of(path)
        call = None if found is None else (self._endpoints[found[0]], found[1])
        if len(path) <= MOST_PATH_CHARACTERS:
            if len(self._calls) >= MOST_PATHS:
                self._calls.clear()
            self._calls[path] = call
        return call

    def _adopt(self) -> None:
        settings = self._state.settings
        for endpoint in self._endpoints.values():
            endpoint.adopt(settings, self._state.metrics)
        self._is_open = not settings.log.access_sample  # the access log is written on the long way
        self._is_ready = True
