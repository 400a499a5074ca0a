"""Headers of the W3C trace context: what is taken over, and what is ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.telemetry.trace_context import MOST_STATE_BYTES, PARENT, STATE, TraceParent, parse_parent

TRACE, SPAN = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
FOUND = TraceParent(int(TRACE, 16), int(SPAN, 16), is_sampled=True)


def parse(value: bytes, **more: bytes) -> TraceParent | None:
    return parse_parent({PARENT: value, **{name.encode(): text for name, text in more.items()}})


@pytest.mark.parametrize(
    ("flags", "is_sampled"), [(b"00", False), (b"01", True), (b"02", False), (b"03", True), (b"ff", True)]
)
def test_the_last_bit_says_whether_the_client_samples(flags: bytes, is_sampled: bool) -> None:
    assert parse(b"00-%b-%b-%b" % (TRACE, SPAN, flags)) == FOUND._replace(is_sampled=is_sampled)


def test_the_state_is_taken_along_unless_it_is_too_long() -> None:
    header = b"00-%b-%b-01" % (TRACE, SPAN)
    assert parse(header, tracestate=b"a=1,b=2") == FOUND._replace(state="a=1,b=2")
    assert parse(header, tracestate=b"x" * (MOST_STATE_BYTES + 1)) == FOUND
    assert parse_parent({STATE: b"a=1"}) is None


def test_a_later_version_may_say_more() -> None:
    assert parse(b"01-%b-%b-01-more" % (TRACE, SPAN)) == FOUND
    assert parse(b"fe-%b-%b-01" % (TRACE, SPAN)) == FOUND


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        b"00-%b-%b" % (TRACE, SPAN),
        b"00-%b-%b-1" % (TRACE, SPAN),
        b"00-%b-%b-01-more" % (TRACE, SPAN),
        b"00-%b-%b-01-" % (TRACE, SPAN),
        b"01-%b-%b-01more" % (TRACE, SPAN),
        b"ff-%b-%b-01" % (TRACE, SPAN),
        b"00-%b-%b-01" % (b"0" * 32, SPAN),
        b"00-%b-%b-01" % (TRACE, b"0" * 16),
        b"00-%b-%b-01" % (TRACE.upper(), SPAN),
        b" 00-%b-%b-01" % (TRACE, SPAN),
        b"00-%b-%b-01\n" % (TRACE, SPAN),
        b"00_%b_%b_01" % (TRACE, SPAN),
    ],
)
def test_what_is_malformed_is_ignored(value: bytes) -> None:
    assert parse(value) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_read_without_an_error(value: bytes) -> None:
    parse(value, tracestate=value)
