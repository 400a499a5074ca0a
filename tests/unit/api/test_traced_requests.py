"""Requests while traces are on: which way they take, and what their spans are called."""

from __future__ import annotations

from typing import Any

import pytest

from serving.api.request_log import CLIENT_GONE, LoggedRequest
from serving.api.shortcut import Shortcut
from serving.api.traced_requests import _GRPC_CODES, GRPC, TracedRequestLog, TracedShortcut, route_of
from serving.telemetry.logging import TRACE_ID
from serving.telemetry.request_trace import REQUEST_TRACE
from serving.telemetry.spans import FinishedSpan
from serving.telemetry.trace_context import TraceParent
from serving.telemetry.tracer import Tracer
from tests.fakes import make_app

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = {b"traceparent": f"00-{TRACE}-b7ad6b7169203331-01".encode()}
NOT_SAMPLED = {b"traceparent": f"00-{TRACE}-b7ad6b7169203331-00".encode()}
CALL = "/inference.GRPCInferenceService/ModelInfer"


class NoExporter:
    def export(self, spans: Any) -> str | None:
        raise AssertionError("nothing is exported here")

    def close(self) -> None: ...

    def find_current(self) -> TraceParent | None:
        return None


class KeepingTracer(Tracer):
    """Keeps the spans that it is given."""

    def __init__(self, sample: float = 0.0) -> None:
        super().__init__(sample, NoExporter(), lambda _: None)
        self.spans: list[FinishedSpan] = []

    def take(self, trace: Any) -> None:
        self.spans += trace.make_spans()


def finish(status: int, method: str = "POST", path: str = "/models/iris/predict") -> FinishedSpan:
    """Return the span of a request that ended with a status."""
    tracer = KeepingTracer()
    with TracedRequestLog(0, tracer).begin(method, path, "1.2.3.4", SAMPLED) as request:
        request.status = status
    (span,) = tracer.spans
    return span


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/predict", "/predict"),
        ("/models/iris/predict", "/models/{model}/predict"),
        ("/models/models/versions/labels/predict", "/models/{model}/versions/{version}/predict"),
        ("/models/m/labels/stable/predict", "/models/{model}/labels/{label}/predict"),
        ("/v1/models/iris:predict", "/v1/models/{model}:predict"),
        ("/v1/models/iris/versions/3:classify", "/v1/models/{model}/versions/{version}:classify"),
        ("/v2/models/iris/infer", "/v2/models/{model}/infer"),
        ("/v2/repository/models/iris/load", "/v2/repository/models/{model}/load"),
        ("/models", "/models"),
        ("/", "/"),
    ],
)
def test_names_in_a_path_are_no_part_of_its_route(path: str, route: str) -> None:
    assert route_of(path) == route


@pytest.mark.parametrize(
    ("status", "error"), [(200, None), (404, None), (422, None), (499, None), (500, "500"), (503, "503")]
)
def test_errors_of_the_server_are_errors_of_the_span(status: int, error: str | None) -> None:
    span = finish(status)
    assert span.error == (None if error is None else f"status {error}")
    assert span.attributes.get("error.type") == ("client_gone" if status == CLIENT_GONE else error)
    assert span.attributes.get("http.response.status_code") == (None if status == CLIENT_GONE else status)


@pytest.mark.parametrize(
    ("status", "code", "is_error"), [(200, 0, False), (422, 3, False), (503, 14, True), (504, 4, True), (500, 13, True)]
)
def test_calls_have_the_codes_of_grpc(status: int, code: int, is_error: bool) -> None:
    span = finish(status, GRPC, CALL)
    assert span.name == CALL.strip("/")
    assert span.attributes["rpc.grpc.status_code"] == code
    assert (span.error is not None) == is_error


def test_the_codes_are_those_that_calls_are_answered_with() -> None:
    pytest.importorskip("grpc", reason="the extra grpc is not installed")
    from serving.api.grpc.statuses import CODES

    assert {status: code.value[0] for status, code in CODES.items()} | {200: 0} == _GRPC_CODES


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/made/up/" + "x" * 5000, 404, "GET"),
        ("BREW", "/models", 405, "HTTP"),
        ("GET", "/models", 200, "GET /models"),
        ("POST", "/models/nobody/predict", 404, "POST /models/{model}/predict"),
    ],
)
def test_what_a_client_makes_up_names_no_span(method: str, path: str, status: int, name: str) -> None:
    span = finish(status, method, path)
    assert span.name == name
    assert len(str(span.attributes["url.path"])) <= 200
    assert span.attributes["http.request.method"] == (method if method != "BREW" else "_OTHER")


def test_only_predictions_are_sampled() -> None:
    tracer = KeepingTracer(1.0)
    requests = TracedRequestLog(0, tracer)
    for method, path in (
        ("GET", "/models"),
        ("POST", "/refresh"),
        (GRPC, "/inference.GRPCInferenceService/ServerLive"),
    ):
        assert type(requests.begin(method, path, None, {})) is LoggedRequest
    for method, path in (("POST", "/v1/models/m:predict"), (GRPC, CALL)):
        with requests.begin(method, path, None, {}):
            pass
    assert len(tracer.spans) == 2


def test_within_a_request_its_trace_is_known_and_not_after_it() -> None:
    requests = TracedRequestLog(0, KeepingTracer())
    for headers in (SAMPLED, NOT_SAMPLED):
        with requests.begin("POST", "/predict", None, headers):
            assert TRACE_ID.get() == TRACE
            assert (REQUEST_TRACE.get() is not None) == (headers is SAMPLED)
        assert (TRACE_ID.get(), REQUEST_TRACE.get()) == (None, None)


def test_the_short_way_answers_what_is_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Shortcut, "respond", lambda *args: asked.append(args) or (b"", b""))
    services = make_app().state.services
    tracer = KeepingTracer(0.0)
    quick = ({}, services.settings.server, services.predictor, services.requests, services.metrics)
    shortcut = TracedShortcut(*quick, tracer=tracer)
    assert shortcut.respond("/predict", {}, b"") is not None
    assert shortcut.respond("/predict", NOT_SAMPLED, b"") is not None
    assert shortcut.respond("/predict", SAMPLED, b"") is None
    assert len(asked) == 2


def test_without_traces_the_usual_classes_answer() -> None:
    services = make_app().state.services
    assert type(services.shortcut) is Shortcut
    assert type(services.requests).__name__ == "RequestLog"
    assert type(services.predictor).__name__ == "Predictor"
