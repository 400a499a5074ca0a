"""Exports spans over OTLP with OpenTelemetry's own library, an extra: the only module that imports it.

Nothing global is touched: no tracer provider is set, and an application's own tracing is left alone. The library makes
spans in the thread that exports, with the numbers and times that were recorded before.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from uuid import uuid4

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)

from serving import __version__
from serving.domain.text import one_line
from serving.telemetry.spans import FinishedSpan, SpanRole
from serving.telemetry.trace_context import TraceParent

SEND_SECONDS = 5  # for one batch, with the attempts that are made again
_KINDS = {SpanRole.SERVER: SpanKind.SERVER, SpanRole.INTERNAL: SpanKind.INTERNAL}
_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.attributes",
    "opentelemetry.trace.span",
    "opentelemetry.sdk.trace",
    "urllib3.connectionpool",
)


class OtlpExporter:
    """Implements `SpanExporter`: sends spans to `endpoint`, as those of `service`.

    Headers, certificates and compression are taken from the variables that the library documents, such as
    ``OTEL_EXPORTER_OTLP_HEADERS``.
    """

    def __init__(self, endpoint: str, service: str) -> None:
        own: dict[str, str | int] = {
            "service.name": service,
            "service.version": __version__,
            "service.instance.id": str(uuid4()),
            "process.pid": os.getpid(),
        }
        self._numbers = _GivenIds()
        self._made = _MadeSpans()
        provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource.create(own), shutdown_on_exit=False, id_generator=self._numbers
        )
        provider.add_span_processor(self._made)
        self._tracer = provider.get_tracer("serving", __version__)
        self._exporter = OTLPSpanExporter(endpoint, timeout=SEND_SECONDS)
        self._said = _SaidInThread()

    def export(self, spans: Sequence[FinishedSpan]) -> str | None:
        """Implement `SpanExporter.export`. The library tries again for some seconds if that may help."""
        with self._said:
            try:
                for span in spans:
                    self._make(span)
                    time.sleep(0)  # requests go first: else each waits 5 ms for the interpreter
                result = self._exporter.export(self._made.take())
            except Exception as error:  # noqa: BLE001  (whatever happens in the library, the thread goes on)
                return f"{type(error).__name__}: {one_line(str(error))}"
            if result is SpanExportResult.SUCCESS:
                return None
            return self._said.last or "the library does not say why"

    def close(self) -> None:
        """Implement `SpanExporter.close`."""
        with self._said:
            self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def find_current(self) -> TraceParent | None:
        """Implement `SpanExporter.find_current`: by the library's context, which an application's tracing sets."""
        found = get_current_span().get_span_context()
        if not found.is_valid:
            return None
        return TraceParent(found.trace_id, found.span_id, found.trace_flags.sampled, found.trace_state.to_header())

    def _make(self, span: FinishedSpan) -> None:
        """Have the library make a span, with the numbers that it has already."""
        self._numbers.trace_id, self._numbers.span_id = span.trace_id, span.span_id
        made = self._tracer.start_span(
            span.name,
            _context_of(span),
            _KINDS[span.role],
            dict(span.attributes),
            start_time=span.begins_at_ns,
        )
        for event in span.events:
            made.add_event(event.name, dict(event.attributes), event.at_ns)
        if span.error is not None:
            made.set_status(Status(StatusCode.ERROR, span.error))
        made.end(span.ends_at_ns)


class _GivenIds(IdGenerator):
    """Gives the numbers that a span has already. One thread."""

    trace_id, span_id = 0, 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _MadeSpans(SpanProcessor):
    """Keeps spans that have ended. One thread."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)

    def take(self) -> list[ReadableSpan]:
        taken, self._spans = self._spans, []
        return taken


class _SaidInThread(logging.Filter):
    """Keeps from the log what the library says in this thread, within a ``with`` block; remembers the last of it.

    An application's own use of the library is in other threads, and is logged as before.
    """

    def __init__(self) -> None:
        super().__init__()
        self._threads: set[int] = set()
        self.last: str | None = None

    def __enter__(self) -> None:
        if not self._threads:
            for name in _LOGGERS:
                logging.getLogger(name).addFilter(self)
        self._threads.add(threading.get_ident())
        self.last = None

    def __exit__(self, *_: object) -> None:
        self._threads.discard(threading.get_ident())
        if not self._threads:
            for name in _LOGGERS:
                logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is logged (called by `logging`)."""
        if record.thread not in self._threads:
            return True
        if record.levelno >= logging.WARNING:
            self.last = one_line(record.getMessage())
        return False


def _context_of(span: FinishedSpan) -> Context:
    """Return the library's context with the parent of a span; an empty one for a span without a parent."""
    if not span.parent_id:
        return Context()
    state = TraceState.from_header([span.trace_state]) if span.trace_state else None
    flags = TraceFlags(TraceFlags.SAMPLED)
    parent = SpanContext(span.trace_id, span.parent_id, span.is_parent_remote, flags, state)
    return set_span_in_context(NonRecordingSpan(parent), Context())
