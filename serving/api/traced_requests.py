"""Requests while traces are on: what the usual classes do, and a span for each request that is traced.

Without traces none of this is used, so that a request costs nothing more. Attributes follow the conventions of
OpenTelemetry for HTTP and RPC: https://opentelemetry.io/docs/specs/semconv/
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Token
from typing import Any

from serving.api.bodies import Headers
from serving.api.dialect import Call, Refusal
from serving.api.incoming import AnsweredCall, Incoming, RefusedCall, Reply_co, Respondent
from serving.api.paths import prediction_of
from serving.api.predictor import Predictor
from serving.api.problems import kind_of
from serving.api.request_log import CLIENT_GONE, LoggedRequest, RequestLog
from serving.api.shortcut import Shortcut
from serving.plane.prediction import Answer, Prepared
from serving.plane.servable import Servable
from serving.telemetry.logging import TRACE_ID
from serving.telemetry.request_trace import REQUEST_TRACE, RequestStage, RequestTrace
from serving.telemetry.spans import AttributeValue
from serving.telemetry.tracer import RequestStart, Tracer

GRPC = "GRPC"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"})
_NAMES = {"models": "{model}", "versions": "{version}", "labels": "{label}"}
_MOST_CHARACTERS = 200
_NOT_ROUTED = (404, 405)
_PREDICTION_CALL = "/ModelInfer"
# https://grpc.io/docs/guides/status-codes/, as `serving.api.grpc.statuses` has them
_GRPC_CODES = {
    200: 0,
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    408: 4,
    409: 9,
    413: 8,
    415: 3,
    422: 3,
    501: 12,
    503: 14,
    504: 4,
}
_CANCELLED, _INTERNAL = 1, 13
_GRPC_ERRORS = frozenset({2, 4, 12, 13, 14, 15})  # those that the conventions call errors of a server


class TracedRequestLog(RequestLog):
    """Begins requests, traced ones with their trace. Of those whose clients do not decide, predictions are sampled."""

    def __init__(self, sample: float, tracer: Tracer) -> None:
        super().__init__(sample)
        self._tracer = tracer

    def begin(self, method: str, path: str, client: str | None, headers: Headers) -> LoggedRequest:
        """Return a new request, which the caller enters in a ``with`` block."""
        is_prediction = path.endswith(_PREDICTION_CALL) if method == GRPC else prediction_of(path) is not None
        start = self._tracer.begin_request(headers, may_sample=is_prediction)
        if start.trace_id is None:
            return super().begin(method, path, client, headers)
        return _TracedRequest(self.ids.of(headers), self.sample, (method, path, client), start, self._tracer)


class _TracedRequest(LoggedRequest):
    """One request of a trace: its log lines name the trace, and its span ends with the ``with`` block."""

    __slots__ = ("_tokens", "_trace", "_trace_id", "_tracer")

    def __init__(
        self, request_id: bytes, sample: float, head: tuple[str, str, str | None], start: RequestStart, tracer: Tracer
    ) -> None:
        super().__init__(request_id, sample, *head)
        self._trace_id, self._trace = start
        self._tracer = tracer
        self._tokens: tuple[Token[str | None], Token[RequestTrace | None]]

    def __enter__(self) -> LoggedRequest:
        super().__enter__()
        self._tokens = TRACE_ID.set(self._trace_id), REQUEST_TRACE.set(self._trace)
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        of_id, of_trace = self._tokens
        TRACE_ID.reset(of_id)
        REQUEST_TRACE.reset(of_trace)
        trace = self._trace
        if trace is not None:
            attributes, failure = self._describe()
            trace.attributes |= attributes
            trace.end(self._name_span(), failure)
            self._tracer.take(trace)

    def _name_span(self) -> str:
        if self._method == GRPC:
            return self._path.strip("/")
        method = self._method if self._method in _METHODS else "HTTP"
        route = self._find_route()
        return f"{method} {route}" if route else method

    def _find_route(self) -> str | None:
        """Return the path as a route; None where a client may have made it up."""
        if self.status in _NOT_ROUTED and prediction_of(self._path) is None:
            return None
        return route_of(self._path)

    def _describe(self) -> tuple[dict[str, AttributeValue], str | None]:
        """Return the attributes, and the text of an error, None where the conventions see none."""
        found: dict[str, AttributeValue] = {"serving.request_id": self.id.decode()}
        if self._client:
            found["client.address"] = self._client
        is_gone = self.status == CLIENT_GONE
        if self._method == GRPC:
            service, _, call = self._path.strip("/").rpartition("/")
            code = _CANCELLED if is_gone else _GRPC_CODES.get(self.status, _INTERNAL)
            found |= {"rpc.system": "grpc", "rpc.service": service, "rpc.method": call, "rpc.grpc.status_code": code}
            is_error, kind = code in _GRPC_ERRORS, str(code)
        else:
            method = self._method if self._method in _METHODS else "_OTHER"
            found |= {"http.request.method": method, "url.path": self._path[:_MOST_CHARACTERS], "url.scheme": "http"}
            route = self._find_route()
            if route:
                found["http.route"] = route
            if not is_gone:
                found["http.response.status_code"] = self.status
            is_error, kind = self.status >= 500, str(self.status)
        if is_gone:
            found["error.type"] = "client_gone"
        if not is_error:
            return found, None
        found["error.type"] = kind
        return found, f"status {kind}"


class TracedShortcut(Shortcut):
    """The short way, for predictions that are not traced: the others take the long way. Event loop thread only."""

    def __init__(self, *quick: Any, tracer: Tracer) -> None:
        super().__init__(*quick)
        self._tracer = tracer

    def respond(self, path: str, headers: Headers, raw: bytes) -> tuple[bytes, bytes] | None:
        """Return header lines (each with its end) and body of a 200, or None if the long way has to answer."""
        if self._tracer.wants(headers, raw):
            return None
        found = super().respond(path, headers, raw)
        if found is not None:
            self._tracer.pass_over(headers)
        return found


class TracedPredictor(Predictor):
    """Notes the stages of requests that are traced. Event loop thread only."""

    def __init__(self, *usual: Any, tracer: Tracer) -> None:
        super().__init__(*usual)
        self._tracer = tracer

    async def answer_held(self, servable: Servable, rows: list[Any], method: str | None) -> Answer:
        """Answer rows for an application, as a part of its own trace if it has one; see `Predictor.answer_held`."""
        is_within = REQUEST_TRACE.get() is not None  # the request itself is traced here
        trace = None if is_within else self._tracer.begin_call()
        if trace is None:
            return await super().answer_held(servable, rows, method)
        token, failure = REQUEST_TRACE.set(trace), None
        trace.attributes |= {**_describe_servable(servable), "serving.rows": len(rows)}
        trace.enter(RequestStage.ADMISSION)
        try:
            return await super().answer_held(servable, rows, method)
        except Exception as error:
            trace.attributes["serving.problem"] = kind_of(error).slug
            failure = trace.attributes["error.type"] = type(error).__name__
            raise
        finally:
            REQUEST_TRACE.reset(token)
            trace.end("predict", failure)
            self._tracer.take(trace)

    async def answer(self, incoming: Incoming[Reply_co]) -> AnsweredCall | RefusedCall[Reply_co]:
        """Answer or refuse a request. Raises ClientDisconnect if the client has gone."""
        trace = REQUEST_TRACE.get()
        if trace is not None:
            trace.enter(RequestStage.ADMISSION)
        return await super().answer(incoming)

    async def _prepare(
        self, servable: Servable, incoming: Incoming[Reply_co], size: int, seen: Respondent
    ) -> tuple[Call, Prepared]:
        trace = REQUEST_TRACE.get()
        if trace is None:
            return await super()._prepare(servable, incoming, size, seen)
        trace.attributes |= _describe_servable(servable)
        call, ready = await super()._prepare(servable, incoming, size, seen)
        trace.attributes["serving.rows"] = ready.batch.rows

        def write(answer: Answer, *rest: Any) -> Any:
            trace.enter(RequestStage.ANSWER)
            return call.write(answer, *rest)

        return call._replace(write=write), ready

    def _refusal_of(self, error: Exception, names: Mapping[str, str], seen: Respondent) -> Refusal:
        refusal = super()._refusal_of(error, names, seen)
        trace = REQUEST_TRACE.get()
        if trace is not None:
            trace.attributes["serving.problem"] = kind_of(refusal.error).slug
        return refusal


def _describe_servable(servable: Servable) -> dict[str, AttributeValue]:
    its = servable.id
    return {"serving.model": its.model, "serving.version": its.version, "serving.engine": servable.engine.name}


def route_of(path: str) -> str:
    """Return a path of this service with the places of names instead of names.

    ``/models/iris/predict`` becomes ``/models/{model}/predict``.
    """
    parts, is_name = path.split("/"), False
    for place, part in enumerate(parts):
        name = _NAMES.get(parts[place - 1]) if place and not is_name else None
        is_name = name is not None
        if name is not None:
            verb = part.partition(":")[2] if place == len(parts) - 1 else ""
            parts[place] = f"{name}:{verb}" if verb else name
    return "/".join(parts)
