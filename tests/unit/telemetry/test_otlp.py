"""Spans through OpenTelemetry's exporter: what it says stays out of the log, and nothing global is touched."""

from __future__ import annotations

import logging
import socket

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")

from opentelemetry import trace

from serving.telemetry.otlp import OtlpExporter
from serving.telemetry.spans import FinishedSpan, SpanEvent, SpanRole
from tests.e2e.span_collector import collecting

SPAN = FinishedSpan(
    *("POST", 0xA, 0xB, 0xC, 1_700_000_000_000_000_000, 1_700_000_001_000_000_001, {"a": 1, "b": "x", "c": 0.5}),
    role=SpanRole.SERVER,
    error="status 500",
    events=(SpanEvent("activated", 1_700_000_000_500_000_000, {"d": True}),),
    trace_state="k=v",
    is_parent_remote=True,
)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give an export as long as a slow machine needs."""
    monkeypatch.setattr("serving.telemetry.otlp.SEND_SECONDS", 60)


def test_a_span_arrives_as_it_was_recorded() -> None:
    with collecting() as collector:
        exporter = OtlpExporter(collector.endpoint, "models")
        assert exporter.export([SPAN]) is None
        exporter.close()
        (found,) = collector.spans()
    assert (found.trace_id, found.span_id, found.parent_id) == (f"{0xA:032x}", f"{0xB:016x}", f"{0xC:016x}")
    assert (found.begins_at, found.ends_at) == (SPAN.begins_at_ns, SPAN.ends_at_ns)
    assert found.attributes == {"a": 1, "b": "x", "c": 0.5}
    assert found.events == {"activated": {"d": True}}
    assert (found.status, found.message, found.kind, found.trace_state) == (2, "status 500", 2, "k=v")
    assert found.resource["service.name"] == "models"


@pytest.mark.parametrize("status", [400, 500])
def test_a_refusal_is_returned_and_not_logged(status: int, caplog: pytest.LogCaptureFixture) -> None:
    with collecting() as collector:
        collector.status = status
        exporter = OtlpExporter(collector.endpoint, "models")
        reason = exporter.export([SPAN])
        exporter.close()
    assert reason is not None
    assert str(status) in reason
    assert caplog.records == []


def test_an_endpoint_that_is_gone_is_given_up_at_the_close(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.telemetry.otlp.SEND_SECONDS", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        exporter = OtlpExporter(f"http://127.0.0.1:{free.getsockname()[1]}/v1/traces", "models")
        assert exporter.export([SPAN]) is not None
        exporter.close()
    assert caplog.records == []


def test_what_an_application_logs_itself_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def say() -> None:
        logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").warning("an application's own")

    with collecting() as collector:
        exporter = OtlpExporter(collector.endpoint, "models")
        take, collector.take = collector.take, lambda body: (say(), take(body))[1]  # type: ignore[method-assign]
        assert exporter.export([SPAN]) is None  # meanwhile, in the collector's thread
        exporter.close()
    say()
    assert [record.getMessage() for record in caplog.records] == ["an application's own"] * 2


def test_no_global_provider_is_set() -> None:
    before = trace.get_tracer_provider()
    with collecting() as collector:
        OtlpExporter(collector.endpoint, "models").close()
    assert trace.get_tracer_provider() is before
