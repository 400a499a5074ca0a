"""Predictions answered without a scope, a task or a framework, for a server that has the whole request already."""

from __future__ import annotations

import re
from itertools import count
from secrets import token_hex

from starlette.datastructures import State

from serving.api.bodies import Headers
from serving.api.predict import PredictEndpoint

MOST_PATHS = 4096

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

    def __init__(self, state: State, predict: PredictEndpoint, ids: RequestIds) -> None:
        self._state = state
        self._predict = predict
        self._ids = ids
        self._is_ready = False
        self._is_open = False
        self._params: dict[str, dict[str, str] | None] = {}

    def respond(self, path: str, headers: Headers, raw: bytes) -> tuple[bytes, bytes] | None:
        """Return header lines (each with its end) and body of a 200, or None when there is none to be had now."""
        if not self._is_ready:
            self._adopt()
        try:
            params = self._params[path]
        except KeyError:
            params = self._remember(path)
        if params is None or not self._is_open:
            return None
        try:
            found = self._predict.answer_now(self._state, params, headers, raw)
        except Exception:  # noqa: BLE001 - it happens again on the long way, and is answered there
            return None
        if found is None:
            return None
        answer, body = found
        head = (
            b"content-type: application/json\r\ncontent-length: %d\r\nx-content-type-options: nosniff\r\n"
            b"x-model-name: %b\r\nx-model-version: %b\r\nx-request-id: %b\r\n"
        )
        names = answer.model.encode(), answer.version.encode()
        return head % (len(body), *names, self._ids.of(headers)), body

    def _remember(self, path: str) -> dict[str, str] | None:
        if len(self._params) >= MOST_PATHS:
            self._params.clear()
        params = self._params[path] = prediction_params(path)
        return params

    def _adopt(self) -> None:
        settings = self._state.settings
        self._predict.adopt(settings, self._state.metrics)
        self._is_open = not settings.log.access_sample  # the access log is written on the long way
        self._is_ready = True


def prediction_params(path: str) -> dict[str, str] | None:
    """Return the parameters in the path of a prediction, None for any other path."""
    if not path.endswith("/predict"):
        return None
    match path.split("/"):
        case ["", "predict"]:
            return {}
        case ["", "models", model, "predict"] if model:
            return {"model": model}
        case ["", "models", model, "versions", version, "predict"] if model and version:
            return {"model": model, "version": version}
    return None
