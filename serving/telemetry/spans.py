"""Spans as plain values: what is exported of a trace. Knows no library."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from random import getrandbits
from typing import NamedTuple, Protocol

AttributeValue = str | bool | int | float
Attributes = Mapping[str, AttributeValue]

TRACE_ID_BITS, SPAN_ID_BITS = 128, 64


class SpanRole(Enum):
    """Whether a span is a request that this server answers, or a part of its work."""

    SERVER, INTERNAL = "server", "internal"


class SpanEvent(NamedTuple):
    """Something that happened at one instant: nanoseconds since 1970."""

    name: str
    at_ns: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class FinishedSpan:
    """One span. Times are nanoseconds since 1970; `parent_id` is 0 for a span without a parent.

    `error` is the text of its status if it failed, else None. `is_parent_remote`: the parent is a client's span.
    """

    name: str
    trace_id: int
    span_id: int
    parent_id: int
    begins_at_ns: int
    ends_at_ns: int
    attributes: Attributes
    role: SpanRole = SpanRole.INTERNAL
    error: str | None = None
    events: tuple[SpanEvent, ...] = ()
    trace_state: str = ""
    is_parent_remote: bool = False


class FinishedTrace(Protocol):
    """What a process has recorded of one trace, complete."""

    @property
    def span_count(self) -> int:
        """How many spans `make_spans` returns."""
        ...

    def make_spans(self) -> list[FinishedSpan]:
        """Return the spans, the outermost first. Called once, in the thread that exports."""
        ...


class SpanClock:
    """Times of one trace: they are in order even if the system's clock is set meanwhile. Any thread."""

    __slots__ = ("_offset_ns",)

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.perf_counter_ns()

    def now_ns(self) -> int:
        """Return the time in nanoseconds since 1970."""
        return time.perf_counter_ns() + self._offset_ns


def make_id(bits: int) -> int:
    """Return the number of a new trace or span. Forked processes draw different ones."""
    return getrandbits(bits) or 1


def format_trace_id(trace_id: int) -> str:
    """Return a trace's number as people and other programs read it."""
    return f"{trace_id:032x}"
