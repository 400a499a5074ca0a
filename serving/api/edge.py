"""The outermost layer around a request over HTTP: every request is logged under its id, and answered."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api import problems
from serving.api.endpoint import NOSNIFF
from serving.api.origins import refuse_cross_site
from serving.api.paths import (
    DOCS,
    PAGE_SESSION,
    PAGES,
    is_for_operators,
    is_of_page,
    is_read,
    path_of,
    prediction_of,
    protocol_of,
)
from serving.api.request_log import CLIENT_GONE
from serving.api.services import services_of
from serving.api.sessions import Session
from serving.domain.errors import CrossSite, RequestRefused
from serving.domain.server_names import ServerNames
from serving.settings import TokenScope

OPERATORS = "serving.operators"
_SESSION = "serving.session"  # of a scope: the session that opens it to its sender, None without one
MISDIRECTED = "serving.misdirected"  # of a scope: what is wrong with the name it is addressed to, for `http1` to say
DOCS_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    b"trusted-types 'none'"
)

_NO_STORE, _NO_FRAME = (b"cache-control", b"no-store"), (b"x-frame-options", b"DENY")
_USUAL = (NOSNIFF, _NO_STORE)
_OF_DOCS = (*_USUAL, _NO_FRAME, (b"content-security-policy", DOCS_POLICY))
_OF_PAGE = (
    *(NOSNIFF, _NO_FRAME, (b"content-security-policy", PAGE_POLICY), (b"referrer-policy", b"no-referrer")),
    *((b"cross-origin-opener-policy", b"same-origin"), (b"cross-origin-resource-policy", b"same-origin")),
)


class Edge:
    """ASGI middleware. Predictions go from here straight to their endpoints, past the framework's layers.

    FastAPI knows these routes, too: under a mount point, or when the framework traces requests, predictions pass
    through FastAPI and come to the same endpoints.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on; errors inside it are answered and not raised."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # a websocket, or the lifespan
        else:
            _drop_last_slash(scope)
            await self.answer(scope, receive, send, _recognise(scope))

    async def answer(self, scope: Scope, receive: Receive, send: Send, protocol: str | None) -> None:
        """Answer a request: a prediction with its protocol's endpoint, any other (None) with the application."""
        services = services_of(scope["app"])
        headers = scope["serving.headers"] = dict(scope["headers"])
        client = scope.get("client")
        address = client[0] if client else None
        with services.requests.begin(scope["method"], scope["path"], address, headers) as request:
            header = (b"x-request-id", request.id)
            error = _error_of_sender(scope)
            try:
                if protocol is None or error is not None:
                    request.status = await self._pass_on(scope, receive, send, header, error)
                else:
                    request.status = await services.endpoints[protocol].answer(scope, receive, send, header)
            except ClientDisconnect:
                pass

    async def _pass_on(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        header: tuple[bytes, bytes],
        error: RequestRefused | None,
    ) -> int:
        """Let the application answer an allowed request, with some more headers; return the status.

        An exception that it raises becomes a problem, and so does `error`, if there is one.
        """
        status = 0
        endpoints = services_of(scope["app"]).endpoints
        path = path_of(scope["path"], scope.get("root_path", ""))
        more = (*_headers_of(path), header)

        async def send_with_header(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        try:
            refusal = self._refusal(scope, path) if error is None else endpoints[protocol_of(path)].refuse(error)
            session: Session | None = scope.get(_SESSION)
            if session is not None:
                receive = services_of(scope["app"]).sessions.end_with(session, receive)
            await (self._app if refusal is None else refusal)(scope, receive, send_with_header)
        except ClientDisconnect:
            status = status or CLIENT_GONE
        except Exception as failure:  # noqa: BLE001 - the last resort: no traceback leaves, no connection is dropped
            response = endpoints[protocol_of(path)].refuse(failure)
            if not status:
                await response(scope, receive, send_with_header)
        return status

    def _refusal(self, scope: Scope, path: str) -> Response | None:
        """Return the refusal of a path that is not on this port, None if it is; raise AccessRefused or CrossSite for a
        client that may not have it.
        """
        services = services_of(scope["app"])
        server = services.settings.server
        is_elsewhere = (
            server.admin_port is not None and OPERATORS not in scope and is_for_operators(scope["method"], path)
        )
        is_off = (path in DOCS and not server.docs) or (is_of_page(path) and server.ui == "off")
        if is_elsewhere or is_off:
            return services.endpoints[protocol_of(path)].refuse(HTTPException(404, problems.NOTHING_HERE))
        if is_read(scope["method"], path):
            scope[_SESSION] = services.sessions.check(TokenScope.READ, scope["method"], scope["serving.headers"])
        return None


class PredictionRouter:
    """The application of `serving serve`: predictions go to their endpoint before the framework sees them.

    An ASGI application. All other requests, and what is not HTTP, go to the framework. `state` is the application's. If
    it `is_for_operators`, it listens on `server.admin_port`, and marks the requests that come in there.
    """

    def __init__(self, app: Starlette, *, is_for_operators: bool = False) -> None:
        self.state = app.state
        self._is_for_operators = is_for_operators
        self._app = app
        self._edge = Edge(app)
        self._names: ServerNames | None = None

    @property
    def names(self) -> ServerNames:
        """The names its listener answers to; connections compare with them. Only after the lifespan has begun."""
        if self._names is None:
            server = services_of(self._app).settings.server
            self._names = ServerNames(server.hosts, server.admin_host if self._is_for_operators else server.host)
        return self._names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if self._is_for_operators:
            scope[OPERATORS] = True
        protocol = _recognise(scope) if scope["type"] == "http" else None
        if protocol is None:
            await self._app(scope, receive, send)
        else:
            scope["app"] = self._app
            await self._edge.answer(scope, receive, send, protocol)


def _error_of_sender(scope: Scope) -> RequestRefused | None:
    """Return why a request is refused because of its sender: it is for another server, or from another site."""
    error: RequestRefused | None = scope.get(MISDIRECTED)
    if error is None:
        try:
            refuse_cross_site(scope["method"], scope["serving.headers"])
        except CrossSite as found:
            error = found
    return error


def _headers_of(path: str) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of every answer under a path. Browsers may keep files of the page if they ask for changes."""
    if is_of_page(path):
        return (*_OF_PAGE, _NO_STORE if path == PAGE_SESSION else (b"cache-control", b"no-cache"))
    return _OF_DOCS if path in PAGES else _USUAL


def _drop_last_slash(scope: Scope) -> None:
    """Remove slashes at the end of a path, so that the rules for the path hold without them.

    The pages of the documentation are redirected instead, because what they load has names relative to their path. For
    the same reason ``/ui/`` has a slash, and its files have none.
    """
    path: str = scope["path"]
    if path.endswith("/"):
        route = path_of(path, scope.get("root_path", ""))
        if route not in ("/", *PAGES) and not is_of_page(route):
            scope["path"] = path.rstrip("/")


def _recognise(scope: Scope) -> str | None:
    """Return the protocol of a prediction, from its path, and set the path's parameters as the router would."""
    if scope["method"] != "POST" or scope.get("root_path") or "fastapi.telemetry" in scope:
        return None
    found = prediction_of(scope["path"])
    if found is None:
        return None
    protocol, scope["path_params"] = found
    return protocol
