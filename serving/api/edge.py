"""The outermost thing this package puts around a request: its id, its log line, and an answer whatever happens."""

from __future__ import annotations

from collections.abc import Mapping
from random import random
from time import perf_counter

import structlog
from starlette.applications import Starlette
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api import admin, problems
from serving.api.access import Access, AccessRefused
from serving.api.endpoint import NOSNIFF, Endpoint
from serving.api.origins import refuse_cross_site
from serving.api.paths import DOCS, PAGES, is_for_operators, is_read, path_of, prediction_of, protocol_of
from serving.api.shortcut import RequestIds
from serving.domain.errors import CrossSite, RequestRefused
from serving.domain.server_names import ServerNames
from serving.settings import Settings, TokenScope
from serving.telemetry.logging import REQUEST_ID

CLIENT_GONE = 499
OPERATORS = "serving.operators"
MISDIRECTED = "serving.misdirected"  # of a scope: what is wrong with the name it is addressed to, for `http1` to say
PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_USUAL = (NOSNIFF, (b"cache-control", b"no-store"))
_PAGE = (*_USUAL, (b"x-frame-options", b"DENY"), (b"content-security-policy", PAGE_POLICY))

log = structlog.get_logger("serving.access")


class Edge:
    """ASGI middleware. Predictions go from here straight to their endpoints, past the framework's layers.

    They are the endpoints' routes all the same: under a mount point, or when the framework traces requests, they take
    the long way and end at the same application.
    """

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, Endpoint], ids: RequestIds) -> None:
        self._app = app
        self._endpoints = endpoints
        self._ids = ids
        self._settings: Settings | None = None
        self._sample = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on; never raises for what happens inside of it."""
        if scope["type"] != "http":
            await self._pass_other(scope, receive, send)
            return
        started = perf_counter()
        if self._settings is None:
            self._adopt(scope["app"].state)
        headers = scope["serving.headers"] = dict(scope["headers"])
        _drop_last_slash(scope)
        request_id = self._ids.of(headers)
        token = REQUEST_ID.set(request_id.decode())
        status = CLIENT_GONE
        try:
            dialect = _dialect_of(scope)
            error = _error_of_sender(scope)
            if dialect is None or error is not None:
                status = await self._pass_on(scope, receive, send, (b"x-request-id", request_id), error)
            else:
                endpoint = self._endpoints[dialect]
                status = await endpoint.answer(scope, receive, send, (b"x-request-id", request_id))
        except ClientDisconnect:
            pass
        finally:
            if status >= 400 or (self._sample and random() < self._sample):  # noqa: S311 - a sample, not a secret
                _write(scope, status, perf_counter() - started)
            REQUEST_ID.reset(token)

    async def _pass_on(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        header: tuple[bytes, bytes],
        error: RequestRefused | None,
    ) -> int:
        """Have the application answer what may be asked, with some headers more; return the status.

        Whatever it raises becomes a problem, as does `error`, if there is one.
        """
        status = 0
        path = path_of(scope["path"], scope.get("root_path", ""))
        more = (*(_PAGE if path in PAGES else _USUAL), header)

        async def send_with_header(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        try:
            refusal = self._refusal(scope, path) if error is None else self._endpoints[protocol_of(path)].refuse(error)
            await (self._app if refusal is None else refusal)(scope, receive, send_with_header)
        except ClientDisconnect:
            status = status or CLIENT_GONE
        except Exception as failure:  # noqa: BLE001 - the last resort: no traceback leaves, no connection is dropped
            response = self._endpoints[protocol_of(path)].refuse(failure)
            if not status:
                await response(scope, receive, send_with_header)
        return status

    def _refusal(self, scope: Scope, path: str) -> Response | None:
        """Return the answer to what is not to be seen here, or not by this client. None: let the application answer."""
        assert self._settings is not None
        server = self._settings.server
        is_elsewhere = server.admin_port is not None and OPERATORS not in scope and is_for_operators(path)
        if is_elsewhere or (path in DOCS and not server.docs):
            return self._endpoints[protocol_of(path)].refuse(HTTPException(404, problems.NOTHING_HERE))
        if is_read(scope["method"], path):
            access: Access = scope["app"].state.access
            try:
                access.check(TokenScope.READ, scope["serving.headers"].get(b"authorization"))
            except AccessRefused as refused:
                return self._endpoints[protocol_of(path)].refuse(refused)
        return None

    async def _pass_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a websocket or the lifespan on; when the lifespan has begun, the settings are known."""

        async def watched(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._adopt(scope["app"].state)
            await send(message)

        await self._app(scope, receive, watched)

    def _adopt(self, state: State) -> None:
        self._settings = state.settings
        self._sample = state.settings.log.access_sample
        for endpoint in self._endpoints.values():
            endpoint.adopt(state.settings, state.metrics)
        state.admin_bodies = admin.bodies(state.settings.server)


class PredictionRouter:
    """An application as its own server runs it: predictions go to their endpoint before the framework sees them.

    ASGI; everything else, and what is not HTTP, is the framework's. `state` is the application's. One that
    `is_for_operators` stands behind `server.admin_port`, and marks what comes in there.
    """

    def __init__(
        self, app: Starlette, endpoints: Mapping[str, Endpoint], ids: RequestIds, *, is_for_operators: bool = False
    ) -> None:
        self.state = app.state
        self._is_for_operators = is_for_operators
        self._app = app
        self._edge = Edge(app, endpoints, ids)
        self._names: ServerNames | None = None

    @property
    def names(self) -> ServerNames:
        """The names its listener answers to, for the connections to compare with. There are settings by then."""
        if self._names is None:
            server = self.state.settings.server
            self._names = ServerNames(server.hosts, server.admin_host if self._is_for_operators else server.host)
        return self._names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if self._is_for_operators:
            scope[OPERATORS] = True
        if scope["type"] == "http" and _dialect_of(scope) is not None:
            scope["app"] = self._app
            await self._edge(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _error_of_sender(scope: Scope) -> RequestRefused | None:
    """Return why a request is not answered, whatever it asks for: it is for another server, or from another site."""
    error: RequestRefused | None = scope.get(MISDIRECTED)
    if error is None:
        try:
            refuse_cross_site(scope["method"], scope["serving.headers"])
        except CrossSite as found:
            error = found
    return error


def _drop_last_slash(scope: Scope) -> None:
    """Make a path with slashes at its end the path without; who may read it is the same.

    The pages of the documentation are redirected instead: what they load is named relative to their own path.
    """
    path: str = scope["path"]
    if path.endswith("/") and path_of(path, scope.get("root_path", "")) not in ("/", *PAGES):
        scope["path"] = path.rstrip("/")


def _dialect_of(scope: Scope) -> str | None:
    """Recognise a prediction request by its path and fill in the path's parameters, as the router would."""
    if scope["method"] != "POST" or scope.get("root_path") or "fastapi.telemetry" in scope:
        return None
    found = prediction_of(scope["path"])
    if found is None:
        return None
    dialect, scope["path_params"] = found
    return dialect


def _write(scope: Scope, status: int, seconds: float) -> None:
    client = scope.get("client")
    write = log.error if status >= 500 else log.info
    write(
        "request",
        method=scope["method"][:20],
        path=scope["path"][:200],
        status=status,
        duration_ms=round(seconds * 1000, 2),
        client=client[0] if client else None,
    )
