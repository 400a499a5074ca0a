"""Whatever bytes come over the wire: frames, or ProtocolError, in memory no larger than what was sent."""

from __future__ import annotations

import contextlib
import socket
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.domain.errors import ProtocolError
from serving.host.protocol import (
    FLAG_ARENA,
    MAGIC,
    MAX_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    PREFIX,
    Kind,
    decode_batch,
    decode_object,
    decode_tensors,
    pack_prefix,
)
from serving.host.stream import FrameReader

BOUNDED = settings(max_examples=200, deadline=None, derandomize=True, database=None)
SOAKED = settings(BOUNDED, max_examples=20_000)
MOST_FRAMES = 50

small = st.integers(0, 64)
sizes = small | st.sampled_from([MAX_HEADER_BYTES + 1, (1 << 32) - 1])
payload_sizes = small | st.sampled_from([MAX_PAYLOAD_BYTES + 1, 1 << 63, (1 << 64) - 1])
prefixes = st.builds(
    PREFIX.pack,
    st.just(MAGIC) | st.binary(min_size=4, max_size=4),
    st.sampled_from(list(map(int, Kind))) | st.integers(0, 255),
    st.sampled_from([0, FLAG_ARENA, 2, 255]),
    st.sampled_from([0, 0, 1]),
    sizes,
    st.integers(0, (1 << 64) - 1),
    payload_sizes,
)
whole_frames = st.builds(
    lambda kind, header, payload: pack_prefix(kind, 1, len(header), len(payload)) + header + payload,
    st.sampled_from(list(Kind)),
    st.binary(max_size=40),
    st.binary(max_size=40),
)
streams = st.lists(prefixes | whole_frames | st.binary(max_size=64), max_size=6).map(b"".join)


def frames_of(raw: bytes, arena: memoryview | None) -> int:
    """Return how many frames a stream holds before its end; raises ProtocolError."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(raw)
        theirs.shutdown(socket.SHUT_WR)
        reader = FrameReader(ours, arena)
        for count in range(MOST_FRAMES):
            frame = reader.receive()
            if frame is None:
                return count
            assert len(frame.header) + len(frame.payload) <= len(raw) + len(arena or b"")
    pytest.fail("a stream without an end")


def _check_streams(bounds: settings) -> None:
    @given(streams, st.booleans())
    @bounds
    def check(raw: bytes, has_arena: bool) -> None:
        with contextlib.suppress(ProtocolError):
            frames_of(raw, memoryview(bytearray(32)) if has_arena else None)

    check()


def test_any_stream_is_frames_or_a_protocol_error() -> None:
    _check_streams(BOUNDED)


@pytest.mark.soak
def test_many_streams_are_frames_or_a_protocol_error() -> None:
    _check_streams(SOAKED)


@pytest.mark.parametrize(
    ("header", "payload"), [(MAX_HEADER_BYTES + 1, 0), (0, MAX_PAYLOAD_BYTES + 1), ((1 << 32) - 1, (1 << 64) - 1)]
)
def test_a_frame_larger_than_any_costs_nothing(header: int, payload: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="frame too large"):
            frames_of(PREFIX.pack(MAGIC, Kind.PREDICT, 0, 0, header, 1, payload), None)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


scalars: Any = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats() | st.text(max_size=5)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["method", "rows", "matrix", "tensors", "dtype", "shape", "nbytes"]) | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
)
tensors = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["<f8", "<i4", "|b1", "json", "|O", "<U4", "V8", ""]) | scalars},
    optional={
        "shape": st.lists(st.integers(-2, 1 << 62) | scalars, max_size=3) | scalars,
        "nbytes": st.integers(-(1 << 40), 1 << 40) | scalars,
    },
)
headers = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["predict", "transform", "no", None]),
        "rows": st.integers(-1, 9) | scalars,
        "matrix": st.booleans() | scalars,
        "tensors": st.lists(tensors | documents, max_size=3) | documents,
    }
)


@given(headers | documents, st.binary(max_size=64))
@BOUNDED
def test_any_header_of_a_prediction_is_a_batch_or_a_protocol_error(header: Any, payload: bytes) -> None:
    try:
        _, batch = decode_batch(orjson.dumps(header), memoryview(payload))
    except ProtocolError:
        return
    assert batch.rows >= 0


@given(st.lists(tensors | documents, max_size=3), st.binary(max_size=64))
@BOUNDED
def test_any_tensors_fit_their_payload_or_are_refused(descriptions: Any, payload: bytes) -> None:
    try:
        found = decode_tensors(orjson.loads(orjson.dumps(descriptions)), memoryview(payload))
    except ProtocolError:
        return
    assert len(found) == len(descriptions)


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"\xff", b""])
def test_a_header_no_parser_likes_is_a_protocol_error(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_object(raw)
