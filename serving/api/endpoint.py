"""Predictions over HTTP: one protocol's requests from their heads to their answers.

The endpoint is a bare ASGI application. FastAPI knows its routes and documents them, but a request does not pass
through FastAPI's handling of dependencies and bodies, which costs more than all of this module together.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.api import problems
from serving.api.bodies import BodyReader, Headers, decoded, refuse_encoding
from serving.api.dialect import QUERY, Call, Dialect, Refusal
from serving.api.incoming import RefusedCall, Target
from serving.api.inflight import Share
from serving.api.json_bodies.cutter import LARGE_BYTES
from serving.api.json_bodies.strict_json import refuse_depth
from serving.api.predictor import Predictor
from serving.api.sessions import Sessions
from serving.domain.errors import InvalidInput, NotJson
from serving.settings import ServerSettings, TokenScope

NOSNIFF = (b"x-content-type-options", b"nosniff")


class Endpoint:
    """Answers prediction requests of one dialect. Event loop thread only."""

    def __init__(self, dialect: Dialect, settings: ServerSettings, predictor: Predictor, sessions: Sessions) -> None:
        self.dialect = dialect
        self.sessions = sessions
        self.max_bytes = int(settings.max_body_mb * (1 << 20))
        self.max_depth = settings.max_json_depth
        advice = "; send fewer rows at a time, or raise server.max_body_mb"
        self.bodies = BodyReader(self.max_bytes, advice, seconds=settings.body_seconds)
        self._predictor = predictor

    def refuse(self, error: Exception) -> Response:
        """Return the answer to a request that was refused before `answer`, in the dialect's shape."""
        return self.write_refusal(problems.refusal_of(error))

    def write_refusal(self, refusal: Refusal) -> Response:
        """Return a refusal in the dialect's shape."""
        return self.dialect.refuse(refusal)

    async def answer(self, scope: Scope, receive: Receive, send: Send, *extra: tuple[bytes, bytes]) -> int:
        """Send an answer or a refusal, with `extra` headers, and return its status.

        The names in the path are the scope's path parameters. Raises ClientDisconnect if the client has gone.
        """
        outcome = await self._predictor.answer(HttpRequest(self, scope, receive))
        if isinstance(outcome, RefusedCall):
            response = outcome.reply
            if outcome.model:
                response.headers["x-model-name"] = outcome.model
                response.headers["x-model-version"] = outcome.version
            response.raw_headers.extend((NOSNIFF, *extra))
            await response(scope, receive, send)
            return outcome.status
        written = outcome.written
        start = [
            (b"content-type", written.media_type),
            (b"content-length", b"%d" % len(written.body)),
            *(NOSNIFF, (b"x-model-name", outcome.model.encode()), (b"x-model-version", outcome.version.encode())),
            *written.headers,
            *extra,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": start})
        await send({"type": "http.response.body", "body": written.body})
        return 200


class HttpRequest:
    """One request over HTTP, as `Predictor` takes it."""

    __slots__ = ("_endpoint", "_headers", "_query", "_raw", "_receive", "names")

    def __init__(self, endpoint: Endpoint, scope: Scope, receive: Receive) -> None:
        self._endpoint = endpoint
        self._headers: Headers = scope["serving.headers"]
        self._query: bytes = scope.get("query_string", b"")
        self._receive = receive
        self._raw = b""
        self.names: Mapping[str, str] = scope["path_params"]

    def check(self, scope: TokenScope) -> None:
        """Raise AccessRefused or CrossSite unless the caller's token or session opens this scope."""
        self._endpoint.sessions.check(scope, "POST", self._headers)

    async def receive(self, share: Share) -> int:
        """Read the body and decode its content encoding."""
        endpoint, headers = self._endpoint, self._headers
        endpoint.dialect.check_head(headers)
        refuse_encoding(headers, takes_compressed=endpoint.dialect.takes_compressed)
        body = await endpoint.bodies.read(self._receive, headers, share)
        raw = self._raw = await decoded(body, headers, endpoint.max_bytes)
        share.take(max(0, len(raw) - share.bytes))  # what was compressed is larger now
        return len(raw)

    def target(self) -> Target:
        """Return the model and the version that the path asks."""
        return self._endpoint.dialect.target(self.names)

    def parse(self) -> Call:
        """Parse the body; any thread."""
        params = {**self.names, QUERY: self._query.decode("latin-1")} if self._query else self.names
        return self._endpoint.dialect.parse(params, self._headers, self._raw)

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a header."""
        return self._headers.get(name)

    def seconds_left(self) -> None:
        """Return None: over HTTP clients send no deadline."""

    def sharpen(self, error: Exception) -> Exception:
        """Return the error for JSON that is nested too deeply, if it is, else `error`. Large bodies are not checked."""
        if isinstance(error, InvalidInput) and len(self._raw) <= LARGE_BYTES and self._raw[:1] in (b"{", b"["):
            try:
                refuse_depth(self._raw, self._endpoint.max_depth)
            except NotJson as deeper:
                return deeper
        return error

    def refuse(self, refusal: Refusal) -> tuple[int, Response]:
        """Return a refusal in the dialect's shape, and its status there."""
        response = self._endpoint.write_refusal(refusal)
        return response.status_code, response
