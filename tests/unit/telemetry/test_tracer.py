"""Who is traced, and what becomes of spans that cannot be sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from structlog.testing import capture_logs

from serving.telemetry import tracer as tracer_module
from serving.telemetry.request_trace import RequestStage, RequestTrace
from serving.telemetry.spans import FinishedSpan, SpanRole
from serving.telemetry.trace_context import TraceParent
from serving.telemetry.tracer import MOST_WAITING, RequestSampler, RequestStart, Tracer
from tests.e2e.harness import until

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = {b"traceparent": f"00-{TRACE}-b7ad6b7169203331-01".encode()}
NOT_SAMPLED = {b"traceparent": f"00-{TRACE}-b7ad6b7169203331-00".encode()}
MALFORMED = {b"traceparent": b"00-1-2-3"}


class FakeExporter:
    """Keeps spans; fails with `reason`, if there is one, and waits while `may_go_on` is not set."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.error: Exception | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.is_closed = False
        self.current: TraceParent | None = None
        self.attempts = 0
        self.spans: list[FinishedSpan] = []

    def export(self, spans: Sequence[FinishedSpan]) -> str | None:
        self.attempts += 1
        self.may_go_on.wait(30)
        if self.error is not None:
            raise self.error
        if self.reason is None:
            self.spans += spans
        return self.reason

    def close(self) -> None:
        self.is_closed = True

    def find_current(self) -> TraceParent | None:
        return self.current


class Traces:
    """A tracer with its exporter and what it has counted."""

    def __init__(self, sample: float = 0.0) -> None:
        self.exporter, self.dropped = FakeExporter(), 0
        self.tracer = Tracer(sample, self.exporter, self._count)

    def _count(self, spans: int) -> None:
        self.dropped += spans

    def take(self, count: int = 1) -> None:
        """Hand over traces of two spans."""
        for _ in range(count):
            trace = RequestTrace(1, None)
            trace.enter(RequestStage.ADMISSION)
            trace.end("POST")
            self.tracer.take(trace)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    monkeypatch.setattr(tracer_module, "GATHER_SECONDS", 0.0)
    monkeypatch.setattr(tracer_module, "STOP_SECONDS", 60.0)
    found = Traces()
    yield found
    found.exporter.may_go_on.set()
    found.tracer.stop()


@pytest.mark.parametrize(
    ("share", "least", "most"), [(0, 0, 0), (1, 20_000, 20_000), (0.01, 120, 290), (0.5, 9600, 10_400)]
)
def test_the_sampler_chooses_its_share(share: float, least: int, most: int) -> None:
    sampler = RequestSampler(share)
    assert least <= sum(sampler.count() for _ in range(20_000)) <= most


@pytest.mark.parametrize("asked_twice", [False, True], ids=["asked once", "asked twice"])
@pytest.mark.parametrize("body", [lambda _: b"same", lambda number: b"%d" % number], ids=["equal", "different"])
@pytest.mark.parametrize(
    ("share", "least", "most"), [(0, 0, 0), (0.01, 120, 290), (0.5, 9600, 10_400), (1, 20_000, 20_000)]
)
def test_over_both_ways_the_share_is_the_same(
    share: float, least: int, most: int, body: Callable[[int], bytes], asked_twice: bool
) -> None:
    """Requests come eight at a time: all are asked before the first of them begins on the long way."""
    sampler, chosen, asked = RequestSampler(share), 0, 0
    for turn in range(2500):
        going_long = 0
        for number in range(8):
            raw = body(8 * turn + number)
            if sampler.claim(raw) and (not asked_twice or sampler.claim(raw)):
                going_long += 1
            elif number % 2:
                going_long += 1  # something else keeps it from the short way
                asked -= 1
            else:
                sampler.pass_over()
        chosen += sum(sampler.count() for _ in range(going_long))
        asked += going_long
    assert least <= chosen <= most
    assert asked <= 2.2 * most  # of equal ones, one more may take the long way for each that is chosen


def test_a_client_decides_for_its_own_trace_and_the_sampler_for_the_rest() -> None:
    never, always = Traces(0.0).tracer, Traces(1.0).tracer
    for tracer in (never, always):
        assert tracer.wants(SAMPLED, b"")
        assert not tracer.wants(NOT_SAMPLED, b"")
        start = tracer.begin_request(SAMPLED, may_sample=True)
        assert start.trace_id == TRACE
        assert start.trace is not None
        assert tracer.begin_request(NOT_SAMPLED, may_sample=True) == RequestStart(TRACE)
    for headers in ({}, MALFORMED):
        assert always.wants(headers, b"")
        assert not never.wants(headers, b"")
        assert always.begin_request(headers, may_sample=True).trace is not None
        assert always.begin_request(headers, may_sample=False) == RequestStart()
        assert never.begin_request(headers, may_sample=True) == RequestStart()


@pytest.mark.parametrize("headers", [{}, MALFORMED])
def test_a_request_on_the_short_way_counts_once(headers: dict[bytes, bytes]) -> None:
    tracer, traced = Traces(0.05).tracer, 0
    for _ in range(20_000):
        if tracer.wants(headers, b"x") and tracer.wants(headers, b"x"):
            assert tracer.begin_request(headers, may_sample=True).trace is not None
            traced += 1
        else:
            tracer.pass_over(headers)
    assert 830 <= traced <= 1170  # 1000 expected


def test_requests_of_clients_that_do_not_sample_do_not_count() -> None:
    for _ in range(50):
        tracer = Traces(0.5).tracer
        for _ in range(10):
            tracer.pass_over(NOT_SAMPLED)
            tracer.begin_request(NOT_SAMPLED, may_sample=True)
        if not tracer.wants({}, b""):
            break
    else:
        raise AssertionError("each of 50 samplers had its next request right away")


@pytest.mark.parametrize(("sample", "is_sampled"), [(0.0, True), (1.0, False)])
def test_a_call_of_an_application_belongs_to_its_own_trace(sample: float, is_sampled: bool) -> None:
    traces = Traces(sample)
    call = traces.tracer.begin_call()
    assert (call is not None) == (sample == 1.0)
    traces.exporter.current = TraceParent(7, 9, is_sampled=is_sampled)
    call = traces.tracer.begin_call()
    assert (call is not None) == is_sampled
    if call is not None:
        call.end("predict")
        (span,) = call.make_spans()
        assert (span.trace_id, span.parent_id, span.role) == (7, 9, SpanRole.INTERNAL)
        assert not span.is_parent_remote


def test_spans_are_exported_in_order_and_those_that_are_left_at_the_stop(traces: Traces) -> None:
    traces.tracer.start()
    traces.take(3)
    until(lambda: len(traces.exporter.spans) == 6)
    assert [span.name for span in traces.exporter.spans[:2]] == ["POST", "admission"]
    traces.take(1)
    traces.tracer.stop()
    assert len(traces.exporter.spans) == 8
    assert traces.exporter.is_closed
    assert traces.dropped == 0


def test_too_many_are_dropped_and_counted_and_nobody_waits(traces: Traces) -> None:
    traces.exporter.may_go_on.clear()
    traces.tracer.start()
    traces.take(1)
    until(lambda: traces.exporter.attempts == 1, "an export that hangs")
    traces.take(MOST_WAITING + 10)
    assert traces.dropped == 20
    traces.exporter.may_go_on.set()
    until(lambda: len(traces.exporter.spans) == 2 * (MOST_WAITING + 1))


def test_what_is_taken_between_an_export_and_the_stop_is_exported(
    traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    export, has_ended, may_end = traces.tracer._export_waiting, threading.Event(), threading.Event()

    def export_and_wait() -> None:
        export()
        has_ended.set()
        may_end.wait(60)

    monkeypatch.setattr(traces.tracer, "_export_waiting", export_and_wait)
    traces.tracer.start()
    traces.take(1)
    assert has_ended.wait(30)
    traces.take(1)
    traces.tracer._is_stopping.set()
    may_end.set()
    traces.tracer.stop()
    assert (len(traces.exporter.spans), traces.dropped) == (4, 0)


def test_a_stop_does_not_wait_for_an_export_that_hangs_and_counts_what_is_lost(
    traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracer_module, "STOP_SECONDS", 0.2)
    traces.exporter.may_go_on.clear()
    traces.tracer.start()
    traces.take(1)
    until(lambda: traces.exporter.attempts == 1, "an export that hangs")
    traces.take(5)
    with capture_logs() as lines:
        traces.tracer.stop()
    assert traces.exporter.is_closed
    assert traces.dropped == 10
    assert [(line["event"], line["spans"]) for line in lines] == [("traces_lost_at_stop", 10)]
    traces.take(1)
    assert traces.dropped == 12


def test_failures_are_logged_once_in_a_while_and_counted(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    traces.exporter.reason = "nobody listens"
    with capture_logs() as lines:
        traces.tracer.start()
        for count in range(1, 4):
            traces.take(1)
            until(lambda count=count: traces.dropped == 2 * count)
        traces.exporter.may_go_on.clear()
        traces.take(1)
        until(lambda: traces.exporter.attempts == 4, "the export after the last failure")
        assert [line["event"] for line in lines] == ["traces_not_exported"]
        monkeypatch.setattr(traces.tracer, "_log_at", 0.0)
        traces.exporter.may_go_on.set()
        until(lambda: len(lines) == 2, "another line")
    assert lines[1] == {
        "event": "traces_not_exported",
        "log_level": "warning",
        "reason": "nobody listens",
        "lost_spans": 6,
    }


def test_an_error_in_one_export_does_not_end_those_that_follow(traces: Traces) -> None:
    traces.exporter.error = RuntimeError("a bug")
    with capture_logs() as lines:
        traces.tracer.start()
        traces.take(1)
        until(lambda: lines, "a line about it")
    traces.exporter.error = None
    traces.take(1)
    until(lambda: len(traces.exporter.spans) == 2, "the next one")
