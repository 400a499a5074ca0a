"""The hot path: one prediction request, in whatever protocol, from its head to its answer.

The endpoint is a bare ASGI application. FastAPI knows its routes and documents them, but a request does not pass
through FastAPI's handling of dependencies and bodies, which costs more than everything below together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter

from starlette.datastructures import State as AppState
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.api import problems
from serving.api.access import Access
from serving.api.answers import is_small
from serving.api.bodies import BodyReader, Headers, decoded, refuse_encoding
from serving.api.dialect import QUERY, Call, Dialect, Written
from serving.api.inflight import Inflight, Share
from serving.api.pieces import LARGE_BYTES
from serving.api.strict_json import refuse_depth
from serving.domain.errors import InvalidInput, NothingActive, NotJson, UnknownModel
from serving.domain.state import State
from serving.domain.status import ModelStatus
from serving.plane.prediction import Answer, Limits, Prepared, compute, execute_now, hold, look, prepare, prepared
from serving.plane.registry import Role, find
from serving.plane.servable import Servable
from serving.settings import Settings, TokenScope
from serving.telemetry.metrics import Metrics

_REFUSED = {State.REJECTED, State.QUARANTINED}
NOSNIFF = (b"x-content-type-options", b"nosniff")


class Endpoint:
    """Answers prediction requests of one dialect; what is in their paths are the scope's path parameters."""

    def __init__(self, access: Access, dialect: Dialect, inflight: Inflight) -> None:
        self._access = access
        self._inflight = inflight
        self._dialect = dialect
        self.adopt(Settings(), Metrics(""))

    def adopt(self, settings: Settings, metrics: Metrics) -> None:
        """Take what is known only when the lifespan has begun; before the first request, and after a restart."""
        self._metrics = metrics
        self._access.adopt(settings)
        self._is_open = self._access.is_open(TokenScope.PREDICT)
        self._limits = Limits.of(settings.server)
        self._dialect.max_rows = settings.server.max_rows
        self._inflight.limit(settings.server.max_inflight_mb)
        advice = "; send fewer rows at a time, or raise server.max_body_mb"
        self._max_bytes = int(settings.server.max_body_mb * (1 << 20))
        self._bodies = BodyReader(self._max_bytes, advice, seconds=settings.server.body_seconds)
        self._max_depth = settings.server.max_json_depth
        self._most_now = min(self._max_bytes, LARGE_BYTES)

    def refuse(self, error: Exception) -> Response:
        """Return the answer to a request that has not come as far as `answer`, in the dialect's shape."""
        return self._dialect.refuse(problems.refusal_of(error))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as a route does; see `answer`."""
        await self.answer(scope, receive, send)

    def answer_now(
        self, state: AppState, params: Mapping[str, str], headers: Headers, raw: bytes
    ) -> tuple[Answer, Written] | None:
        """Return an answer and its body where nothing has to be waited for, None where something has.

        Raises what `answer` would answer with a refusal. Counts a request it has answered. Event loop thread only.
        """
        if len(raw) > self._most_now or b"content-encoding" in headers:
            return None
        if not self._is_open:
            self._access.check(TokenScope.PREDICT, headers.get(b"authorization"))
        started = perf_counter()
        servable = look(state, self._limits, *self._dialect.target(params))
        if not servable.engine.is_immediate:
            return None
        self._dialect.check_head(headers)
        call = self._dialect.parse(params, headers, raw, self._max_depth)
        if call.reads_slowly or call.writes_slowly:
            return None
        answer = execute_now(servable, call.read(servable.signature), self._limits)
        if answer is None or not is_small(answer):
            return None
        written = call.write(answer, servable.signature)
        self._metrics.traffic(answer.model, answer.version).record(200, answer.rows, perf_counter() - started)
        return answer, written

    async def answer(self, scope: Scope, receive: Receive, send: Send, *extra: tuple[bytes, bytes]) -> int:
        """Send an answer or a refusal, with `extra` headers, and return its status.

        Raises ClientDisconnect when nobody is there to read either.
        """
        started = perf_counter()
        params: dict[str, str] = scope["path_params"]
        state: AppState = scope["app"].state
        seen = _Seen()
        try:
            with self._inflight.share() as share:
                answer, written = await self._computed(scope, receive, params, share, seen)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - every failure is answered, and known here by its version
            response = self._refused(error, state, params, seen)
            response.raw_headers.extend((NOSNIFF, *extra))
            status, rows = response.status_code, 0
            await response(scope, receive, send)
        else:
            status, rows = 200, answer.rows
            start = [
                (b"content-type", written.media_type),
                (b"content-length", b"%d" % len(written.body)),
                *(NOSNIFF, (b"x-model-name", seen.model.encode()), (b"x-model-version", seen.version.encode())),
                *written.headers,
                *extra,
            ]
            await send({"type": "http.response.start", "status": 200, "headers": start})
            await send({"type": "http.response.body", "body": written.body})
        self._metrics.traffic(seen.model, seen.version).record(status, rows, perf_counter() - started)
        return status

    async def _computed(
        self, scope: Scope, receive: Receive, params: dict[str, str], share: Share, seen: _Seen
    ) -> tuple[Answer, Written]:
        """Read a request and compute its answer; what there is to say of a failure is noted in `seen`.

        Who may not is refused before anything of the body is read, and so is what there is no room for.
        """
        headers: Headers = scope["serving.headers"]
        self._access.check(TokenScope.PREDICT, headers.get(b"authorization"))
        self._dialect.check_head(headers)
        refuse_encoding(headers, takes_compressed=self._dialect.takes_compressed)
        raw = await decoded(await self._bodies.read(receive, headers, share), headers, self._max_bytes)
        share.take(max(0, len(raw) - share.bytes))  # what was compressed is larger now
        if len(raw) <= LARGE_BYTES:
            seen.raw = raw
        if scope["query_string"]:
            params = {**params, QUERY: scope["query_string"].decode("latin-1")}
        with hold(scope["app"].state, self._limits, *self._dialect.target(params)) as servable:
            seen.model, seen.version = servable.id.model, servable.id.version
            signature = servable.signature
            call, ready = await self._prepared(servable, params, headers, raw)
            answer = await compute(servable, ready, self._limits)
        if is_small(answer) and not call.writes_slowly:
            return answer, call.write(answer, signature)
        return answer, await asyncio.to_thread(call.write, answer, signature)

    async def _prepared(
        self, servable: Servable, params: Mapping[str, str], headers: Headers, raw: bytes
    ) -> tuple[Call, Prepared]:
        """Take a body as far as the model; what takes a while all in one thread, as each hop costs 0.1 ms."""
        parse = partial(self._dialect.parse, params, headers, raw, self._max_depth)
        if len(raw) > LARGE_BYTES:
            return await asyncio.to_thread(self._prepare, servable, parse)
        call = parse()
        if call.reads_slowly:
            return await asyncio.to_thread(self._prepare, servable, lambda: call)
        return call, await prepared(servable, call.read(servable.signature), self._limits)

    def _prepare(self, servable: Servable, parse: Callable[[], Call]) -> tuple[Call, Prepared]:
        call = parse()
        return call, prepare(servable, call.read(servable.signature), self._limits)

    def _refused(self, error: Exception, state: AppState, params: dict[str, str], seen: _Seen) -> Response:
        try:
            if isinstance(error, InvalidInput) and seen.raw[:1] in (b"{", b"["):
                refuse_depth(seen.raw, self._max_depth)
        except NotJson as deeper:
            error = deeper
        error = explain(error, state, params.get("model"))
        if not seen.model:
            return self._dialect.refuse(problems.refusal_of(error, *problems.names_of(params)))
        response = self._dialect.refuse(problems.refusal_of(error, seen.model, seen.version))
        response.headers["x-model-name"] = seen.model
        response.headers["x-model-version"] = seen.version
        return response


class _Seen:
    """What is known of a request when it fails: what would have answered, and its body, unless that is a large one."""

    __slots__ = ("model", "raw", "version")

    def __init__(self) -> None:
        self.model, self.version, self.raw = "", "", b""


def find_explained(state: AppState, model: str, version: str | Role | None = None) -> Servable:
    """Return what `serving.plane.registry.find` returns; its errors say what `explain` makes of them."""
    try:
        return find(state, model, version)
    except (UnknownModel, NothingActive) as error:
        raise explain(error, state, model) from None


def explain(error: Exception, state: AppState, model: str | None) -> Exception:
    """Return an error that says whether a model is unknown, on its way, refused or unloaded; None: the default one."""
    if not isinstance(error, UnknownModel | NothingActive):
        return error
    is_any = isinstance(error, NothingActive)  # what is asked for is then the only model there is, if no name is given
    known = _known_model(state, model, is_any=is_any)
    if known is not None and known.unloaded:
        return NothingActive(f"'{known.name}' is unloaded; POST /v2/repository/models/{known.name}/load loads it again")
    if isinstance(error, UnknownModel) and not state.status.has_started:
        return NothingActive("the service is still starting; try again shortly")
    if known is None:
        return error
    # the reason belongs to what reading is for: it is told where reading needs no token
    why = _refusal_of(known) if state.access.is_open(TokenScope.READ) else None
    return NothingActive(f"'{known.name}' has no active version{why or ' yet'}; GET /models/{known.name} says why")


def _known_model(state: AppState, name: str | None, *, is_any: bool) -> ModelStatus | None:
    models = state.status.models
    name = name or state.settings.server.default_model
    if name is None and is_any and len(models) == 1:
        (name,) = models
    return None if name is None else models.get(name)


def _refusal_of(model: ModelStatus) -> str | None:
    """Return which version was refused last and why, where nothing else is on its way; None while something is."""
    is_hopeless = model.active is None and model.target is None and model.versions
    if not is_hopeless or not {version.state for version in model.versions} <= _REFUSED:
        return None
    newest, *others = model.versions
    more = f" (and {len(others)} older)" if others else ""
    how = "is in quarantine" if newest.state is State.QUARANTINED else f"was refused: {newest.reason or 'no reason'}"
    return f": version '{newest.version}'{more} {how}"
