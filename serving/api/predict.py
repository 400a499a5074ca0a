"""``POST .../predict``: the hot path.

The endpoint is a bare ASGI application. FastAPI knows its routes and documents them, but a request does not pass
through FastAPI's handling of dependencies and bodies, which costs more than everything below together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.datastructures import State
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.api import predict_docs, problems
from serving.api.access import Access
from serving.api.answers import encode, encode_now
from serving.api.bodies import BodyReader, Headers, refuse_media
from serving.api.pieces import LARGE_BYTES, parse_large
from serving.api.predict_body import parse
from serving.api.strict_json import refuse_depth
from serving.domain.errors import InvalidInput, NothingActive, NotJson, UnknownModel
from serving.prediction import Answer, Limits, execute, execute_now, hold, look
from serving.settings import Settings, TokenScope
from serving.telemetry.metrics import Metrics

NOSNIFF = (b"x-content-type-options", b"nosniff")

_JSON = (b"content-type", b"application/json")


class PredictEndpoint:
    """Answers one prediction request; the model and version asked for are in the scope's path parameters."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self.adopt(Settings(), Metrics(""))

    def adopt(self, settings: Settings, metrics: Metrics) -> None:
        """Take what is known only when the lifespan has begun; before the first request, and after a restart."""
        self._metrics = metrics
        self._access.adopt(settings)
        self._is_open = self._access.is_open(TokenScope.PREDICT)
        self._limits = Limits.of(settings.server)
        advice = "; send fewer rows at a time, or raise server.max_body_mb"
        max_bytes = int(settings.server.max_body_mb * (1 << 20))
        self._bodies = BodyReader(max_bytes, advice, seconds=settings.server.body_seconds)
        self._max_depth = settings.server.max_json_depth
        self._most_now = min(max_bytes, LARGE_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as a route does; see `answer`."""
        await self.answer(scope, receive, send)

    def answer_now(
        self, state: State, params: Mapping[str, str], headers: Headers, raw: bytes
    ) -> tuple[Answer, bytes] | None:
        """Return an answer and its body where nothing has to be waited for, None where something has.

        Raises what `answer` would answer with a problem. Counts a request it has answered. Event loop thread only.
        """
        if len(raw) > self._most_now:
            return None
        if not self._is_open:
            self._access.check(TokenScope.PREDICT, headers.get(b"authorization"))
        started = perf_counter()
        servable = look(state, self._limits, params.get("model"), params.get("version"))
        if not servable.engine.is_immediate:
            return None
        refuse_media(headers)
        answer = execute_now(servable, parse(raw, self._max_depth), self._limits)
        body = None if answer is None else encode_now(answer)
        if answer is None or body is None:
            return None
        self._metrics.traffic(answer.model, answer.version).record(200, answer.rows, perf_counter() - started)
        return answer, body

    async def answer(self, scope: Scope, receive: Receive, send: Send, *extra: tuple[bytes, bytes]) -> int:
        """Send an answer or a problem, with `extra` headers, and return its status.

        Raises ClientDisconnect when nobody is there to read either.
        """
        started = perf_counter()
        params: dict[str, str] = scope["path_params"]
        state: State = scope["app"].state
        model, version, rows = "", "", 0
        raw = b""
        try:
            headers: Headers = scope["serving.headers"]
            self._access.check(TokenScope.PREDICT, headers.get(b"authorization"))
            refuse_media(headers)
            raw = await self._bodies.read(receive, headers)
            if len(raw) <= LARGE_BYTES:
                request = parse(raw, self._max_depth)
            else:
                request = await asyncio.to_thread(parse_large, raw, self._max_depth)
            with hold(state, self._limits, params.get("model"), params.get("version")) as servable:
                model, version = servable.id.model, servable.id.version
                answer = await execute(servable, request, self._limits)
            body = await encode(answer)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - every failure is answered, and known here by its version
            response = self._problem(error, state, params, raw, (model, version))
            response.raw_headers.extend((NOSNIFF, *extra))
            status = response.status_code
            await response(scope, receive, send)
        else:
            status, rows = 200, answer.rows
            names = ((b"x-model-name", model.encode()), (b"x-model-version", version.encode()))
            start = [_JSON, (b"content-length", b"%d" % len(body)), NOSNIFF, *names, *extra]
            await send({"type": "http.response.start", "status": 200, "headers": start})
            await send({"type": "http.response.body", "body": body})
        self._metrics.traffic(model, version).record(status, rows, perf_counter() - started)
        return status

    def _problem(
        self, error: Exception, state: State, params: dict[str, str], raw: bytes, answered_by: tuple[str, str]
    ) -> Response:
        model, version = answered_by
        try:
            if isinstance(error, InvalidInput) and len(raw) <= LARGE_BYTES:  # larger ones have been looked at
                refuse_depth(raw, self._max_depth)
        except NotJson as deeper:
            error = deeper
        if isinstance(error, UnknownModel):
            error = _not_yet(error, state, params.get("model"))
        if not model:
            return problems.respond(error, *problems.names_of(params))
        response = problems.respond(error, model, version)
        response.headers["x-model-name"] = model
        response.headers["x-model-version"] = version
        return response


def _not_yet(error: UnknownModel, state: State, model: str | None) -> UnknownModel | NothingActive:
    """Tell a model nobody knows from one that is on its way."""
    if not state.status.has_started:
        return NothingActive("the service is still starting; try again shortly")
    if model in state.status.models:
        return NothingActive(f"'{model}' has no active version yet; GET /models/{model} says why")
    return error


class PredictRoute(APIRoute):
    """A route FastAPI documents and routes to, whose requests go straight to an ASGI application."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, _documented, **options)
        self.app = endpoint


async def _documented(request: Request) -> Response:  # noqa: ARG001  (FastAPI reads the signature)
    """Stand for the endpoint where FastAPI looks at its parameters."""
    raise AssertionError("requests go straight to the endpoint")


def add_routes(app: FastAPI, endpoint: PredictEndpoint) -> None:
    """Add the prediction routes, with their documentation."""
    for operation in predict_docs.OPERATIONS:
        app.router.add_api_route(
            operation.path,
            endpoint,
            methods=["POST"],
            route_class_override=PredictRoute,
            name=operation.name,
            operation_id=operation.name,
            summary=operation.summary,
            description=operation.description,
            tags=["predict"],
            response_model=None,
            responses=predict_docs.responses(),
            openapi_extra=predict_docs.details(operation.path),
        )
