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
from serving.rows.batch import MAX_DIMENSIONS
from serving.wire.frames import (
    BOUNDS,
    FLAG_ARENA,
    MAGIC,
    MAX_HEADER_SEPARATORS,
    PREFIX,
    Bounds,
    FrameKind,
    decode_object,
    pack_prefix,
)
from serving.wire.payloads import decode_answer, decode_batch, decode_tensors
from serving.wire.stream import FrameReader

BOUNDED = settings(max_examples=200, deadline=None, derandomize=True, database=None)
SOAKED = settings(BOUNDED, max_examples=20_000)
MOST_FRAMES = 50

small = st.integers(0, 64)
sizes = small | st.sampled_from([max(bounds.header_bytes for bounds in BOUNDS.values()) + 1, (1 << 32) - 1])
payload_sizes = small | st.sampled_from([1 << 63, (1 << 64) - 1])
prefixes = st.builds(
    PREFIX.pack,
    st.just(MAGIC) | st.binary(min_size=4, max_size=4),
    st.sampled_from(list(map(int, FrameKind))) | st.integers(0, 255),
    st.sampled_from([0, FLAG_ARENA, 2, 255]),
    st.sampled_from([0, 0, 1]),
    sizes,
    st.integers(0, (1 << 64) - 1),
    payload_sizes,
)
whole_frames = st.builds(
    lambda kind, header, payload: pack_prefix(kind, 1, len(header), len(payload)) + header + payload,
    st.sampled_from(list(FrameKind)),
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


@pytest.mark.parametrize(("kind", "bounds"), BOUNDS.items())
def test_a_frame_larger_than_its_kind_costs_nothing(kind: FrameKind, bounds: Bounds) -> None:
    """Each kind, each size, one byte beyond what it may have and the most that a prefix can say."""
    tracemalloc.start()
    try:
        for header in (bounds.header_bytes + 1, (1 << 32) - 1):
            with pytest.raises(ProtocolError, match=f"{kind.name} too large"):
                frames_of(PREFIX.pack(MAGIC, kind, 0, 0, header, 0, 0), None)
        for payload in (bounds.payload_bytes + 1, (1 << 64) - 1):
            with pytest.raises(ProtocolError, match=f"{kind.name} too large"):
                frames_of(PREFIX.pack(MAGIC, kind, 0, 0, 2, 0, payload), None)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", set(FrameKind) - {FrameKind.PREDICT})
def test_only_requests_may_lie_in_the_arena(kind: FrameKind) -> None:
    with pytest.raises(ProtocolError, match="in the arena"):
        frames_of(PREFIX.pack(MAGIC, kind, FLAG_ARENA, 0, 2, 0, 0) + b"{}", memoryview(bytearray(32)))


def test_every_kind_has_bounds() -> None:
    assert BOUNDS.keys() == set(FrameKind)


def test_a_header_of_more_values_than_any_is_not_parsed() -> None:
    """A list of nothing has 3 bytes in JSON, and 80 in memory."""
    raw = b'{"a":[' + b"[]," * (MAX_HEADER_SEPARATORS // 2) + b"[]]}"
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="separators of values"):
            decode_object(raw)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(raw)
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


answers = st.fixed_dictionaries({"tensors": st.lists(tensors | documents, max_size=3) | documents}) | documents


@given(answers, st.binary(max_size=64), st.integers(1, 3))
@BOUNDED
def test_any_answer_has_the_rows_that_were_asked_or_is_refused(header: Any, payload: bytes, rows: int) -> None:
    try:
        prediction = decode_answer(orjson.dumps(header), memoryview(payload), rows)
    except ProtocolError:
        return
    assert prediction.tensors
    assert {len(tensor) for tensor in prediction.tensors} == {rows}
    assert len(prediction.list_rows()) == rows


@given(st.lists(documents, min_size=1, max_size=4))
@BOUNDED
def test_any_list_in_an_answer_holds_plain_values_in_bounded_nesting_or_is_refused(values: list[Any]) -> None:
    raw = orjson.dumps(values)
    header = orjson.dumps({"tensors": [{"dtype": "json", "nbytes": len(raw)}]})
    payload = memoryview(raw + bytes(-len(raw) % 8))
    if levels(values) <= MAX_DIMENSIONS:
        assert decode_answer(header, payload, len(values)).tensors == (orjson.loads(raw),)
    else:
        with pytest.raises(ProtocolError, match="neither text, numbers"):
            decode_answer(header, payload, len(values))


def levels(value: Any) -> int:
    """Return how many lists and objects are in each other at most."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(levels, value), default=0) if isinstance(value, list) else 0
