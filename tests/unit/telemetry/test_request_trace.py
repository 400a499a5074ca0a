"""The stages of a request as spans."""

from __future__ import annotations

import pytest

from serving.telemetry.request_trace import RequestStage, RequestTrace
from serving.telemetry.spans import SpanRole
from serving.telemetry.trace_context import TraceParent


def test_stages_follow_one_another_and_the_last_has_the_error() -> None:
    trace = RequestTrace(7, TraceParent(7, 9, is_sampled=True, state="a=1"))
    for stage in (RequestStage.ADMISSION, RequestStage.WAIT, RequestStage.HOST):
        trace.enter(stage)
    trace.end("POST /predict", "status 500")
    request, *stages = trace.make_spans()
    assert (request.parent_id, request.role, request.error, request.is_parent_remote) == (
        *(9, SpanRole.SERVER),
        *("status 500", True),
    )
    assert [(one.name, one.error) for one in stages] == [("admission", None), ("wait", None), ("host", "status 500")]
    assert {(one.trace_id, one.parent_id, one.trace_state) for one in stages} == {(7, request.span_id, "a=1")}
    assert [one.ends_at_ns for one in stages] == [*(one.begins_at_ns for one in stages[1:]), request.ends_at_ns]
    assert trace.span_count == 4


def test_a_request_without_stages_is_one_span() -> None:
    trace = RequestTrace(7, None)
    trace.end("GET")
    (request,) = trace.make_spans()
    assert (request.parent_id, request.is_parent_remote) == (0, False)


def test_a_stage_that_did_not_happen_is_taken_back() -> None:
    trace = RequestTrace(7, None)
    for stage in (RequestStage.ADMISSION, RequestStage.GRAPH):
        trace.enter(stage)
    trace.take_back()
    trace.enter(RequestStage.WAIT)
    trace.end("POST")
    assert [one.name for one in trace.make_spans()] == ["POST", "admission", "wait"]


def test_times_are_in_order_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = RequestTrace(7, None)
    monkeypatch.setattr("time.time_ns", lambda: 0)
    trace.enter(RequestStage.ADMISSION)
    trace.end("POST")
    request, stage = trace.make_spans()
    assert request.begins_at_ns <= stage.begins_at_ns <= stage.ends_at_ns == request.ends_at_ns
