"""A collector of spans as OpenTelemetry's is: it takes OTLP over HTTP, and fails on demand."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.e2e.harness import until

messages = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="the extra otel is not installed"
)
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")


@dataclass(frozen=True, slots=True)
class CollectedSpan:
    """One span as it arrived."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    begins_at: int
    ends_at: int
    attributes: dict[str, Any]
    events: dict[str, dict[str, Any]]
    status: int
    message: str
    trace_state: str
    resource: dict[str, Any]
    raw: bytes = field(repr=False)


class Collector:
    """Answers at `endpoint` with `status`, after `may_answer` is set. Keeps what it has answered with 200."""

    def __init__(self, port: int = 0) -> None:
        self.status = 200
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.requests = 0
        self._spans: list[CollectedSpan] = []
        collector = self

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.requests += 1
                collector.may_answer.wait(60)
                collector.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Taking)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def take(self, body: bytes) -> None:
        if self.status != 200:
            return
        request = messages.ExportTraceServiceRequest()
        request.ParseFromString(body)
        self._spans += [
            _read_span(span, _read_attributes(of_process.resource.attributes))
            for of_process in request.resource_spans
            for of_scope in of_process.scope_spans
            for span in of_scope.spans
        ]

    def spans(self, **attributes: Any) -> list[CollectedSpan]:
        """Return the spans that have these attributes (`model` is ``serving.model``), in the order of arrival."""
        wanted = {f"serving.{name}": value for name, value in attributes.items()}.items()
        return [span for span in list(self._spans) if wanted <= span.attributes.items()]

    def of_trace(self, trace_id: str) -> list[CollectedSpan]:
        return [span for span in self.spans() if span.trace_id == trace_id]

    def wait_trace(self, trace_id: str) -> list[CollectedSpan]:
        """Wait for the spans of a trace, which come together."""
        return until(lambda: self.of_trace(trace_id), f"trace {trace_id} at the collector", 10.0)

    def wait(self, found: Callable[[CollectedSpan], bool], what: str) -> list[CollectedSpan]:
        """Wait for such a span, and return all spans of its trace, the outermost first."""
        span = until(lambda: next(filter(found, self.spans()), None), what, 10.0)
        return self.of_trace(span.trace_id)

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector for the length of a ``with`` block."""
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


def _read_span(span: Any, resource: dict[str, Any]) -> CollectedSpan:
    return CollectedSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=span.kind,
        begins_at=span.start_time_unix_nano,
        ends_at=span.end_time_unix_nano,
        attributes=_read_attributes(span.attributes),
        events={event.name: _read_attributes(event.attributes) for event in span.events},
        status=span.status.code,
        message=span.status.message,
        trace_state=span.trace_state,
        resource=resource,
        raw=span.SerializeToString(),
    )


def _read_attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
