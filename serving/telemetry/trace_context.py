"""Reads the W3C trace context of a request: https://www.w3.org/TR/trace-context/

It says which trace the request belongs to, and whether its client wants this part of it, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

PARENT, STATE = b"traceparent", b"tracestate"
MOST_STATE_BYTES = 1024
SAMPLED = 1

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_FIRST_VERSION, _NO_VERSION = b"00", b"ff"


class TraceParent(NamedTuple):
    """The span of the client that a request comes from. `state` is what its ``tracestate`` says, unchecked."""

    trace_id: int
    span_id: int
    is_sampled: bool
    state: str = ""


def parse_parent(headers: Mapping[bytes, bytes]) -> TraceParent | None:
    """Return the trace that a request belongs to; None if it names none, or in a form that is not the standard's.

    Names of headers are in lower case. What is malformed is ignored, as the standard says.
    """
    value = headers.get(PARENT)
    if value is None:
        return None
    match = _PARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == _NO_VERSION or (version == _FIRST_VERSION and rest is not None):
        return None
    trace, span = int(trace_id, 16), int(span_id, 16)
    if not trace or not span:
        return None
    state = headers.get(STATE, b"")
    text = state.decode("latin-1") if len(state) <= MOST_STATE_BYTES else ""
    return TraceParent(trace, span, bool(int(flags, 16) & SAMPLED), text)
