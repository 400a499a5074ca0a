"""The trace of one request: the stages it goes through, one after the other.

A request that is not traced costs one look at `REQUEST_TRACE` where a stage begins. Nothing of rows or answers is
recorded, only how many rows there are.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import StrEnum

from serving.telemetry.spans import (
    SPAN_ID_BITS,
    Attributes,
    AttributeValue,
    FinishedSpan,
    SpanClock,
    SpanRole,
    make_id,
)
from serving.telemetry.trace_context import TraceParent


class RequestStage(StrEnum):
    """The stages of a prediction. The names are those of the spans."""

    ADMISSION = "admission"  # token, lease, body read, rows checked
    WAIT = "wait"  # for a host or a thread that is busy
    HOST = "host"  # in a host's process
    GRAPH = "graph"  # in this process
    ANSWER = "answer"


class RequestTrace:
    """One traced request. A stage ends where the next one begins; one thread at a time.

    `attributes` are those of the whole request. An INTERNAL one is part of a request of an application.
    """

    __slots__ = (
        "_clock",
        "_ends_at_ns",
        "_error",
        "_name",
        "_parent",
        "_role",
        "_stages",
        "attributes",
        "span_id",
        "trace_id",
    )

    def __init__(self, trace_id: int, parent: TraceParent | None, role: SpanRole = SpanRole.SERVER) -> None:
        self.trace_id, self.span_id = trace_id, make_id(SPAN_ID_BITS)
        self.attributes: dict[str, AttributeValue] = {}
        self._parent, self._role = parent, role
        self._clock = SpanClock()
        self._stages: list[tuple[str, int, Attributes]] = [("", self._clock.now_ns(), {})]  # the first: before any
        self._name, self._ends_at_ns = "", 0
        self._error: str | None = None

    def enter(self, stage: RequestStage, **attributes: AttributeValue) -> None:
        """Begin a stage, with attributes of its own, and end the one before."""
        self._stages.append((stage, self._clock.now_ns(), attributes))

    def take_back(self) -> None:
        """Let the stage that was entered last not have begun."""
        self._stages.pop()

    def end(self, name: str, error: str | None = None) -> None:
        """End the request; `name` is that of its span, and `error` says why it failed, None if it did not."""
        self._ends_at_ns = self._clock.now_ns()
        self._name, self._error = name, error

    @property
    def span_count(self) -> int:
        """Implement `FinishedTrace`."""
        return len(self._stages)

    def make_spans(self) -> list[FinishedSpan]:
        """Implement `FinishedTrace`: the request, then its stages. The stage in which it failed has its error."""
        parent, stages = self._parent, self._stages[1:]
        state = "" if parent is None else parent.state
        request = FinishedSpan(
            self._name,
            self.trace_id,
            self.span_id,
            0 if parent is None else parent.span_id,
            self._stages[0][1],
            self._ends_at_ns,
            self.attributes,
            self._role,
            self._error,
            trace_state=state,
            is_parent_remote=parent is not None and self._role is SpanRole.SERVER,
        )
        spans = [request]
        for place, (name, begins_at_ns, attributes) in enumerate(stages, 1):
            is_last = place == len(stages)
            span = FinishedSpan(
                *(name, self.trace_id, make_id(SPAN_ID_BITS), self.span_id, begins_at_ns),
                *(self._ends_at_ns if is_last else stages[place][1], attributes),
                error=self._error if is_last else None,
                trace_state=state,
            )
            spans.append(span)
        return spans


REQUEST_TRACE: ContextVar[RequestTrace | None] = ContextVar("serving_request_trace", default=None)
"""The trace of the request that is being answered, None if it is not traced."""
