"""The wire: what goes in comes out, and what is no frame is refused."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serving.domain.errors import ProtocolError
from serving.rows.batch import Batch
from serving.wire.frames import (
    ARENA_THRESHOLD_BYTES,
    PREFIX,
    FrameKind,
    decode_object,
    pack_prefix,
    unpack_prefix,
)
from serving.wire.payloads import decode_batch, decode_tensors, encode_batch, encode_tensors
from serving.wire.stream import FrameReader, receive_frame, send_frame

dtypes = st.sampled_from(["?", "i1", "u1", "<i2", "<i8", "<u8", "<f2", "<f4", "<f8", ">f8", ">i4"])


def through_the_wire(tensors: list[Any]) -> tuple[Any, ...]:
    descriptions, buffers = encode_tensors(tensors)
    header = orjson.loads(orjson.dumps(descriptions))
    return decode_tensors(header, memoryview(b"".join(buffers)))


@given(st.lists(hnp.arrays(dtypes, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)), max_size=3))
def test_arrays_arrive_as_they_were_sent(arrays: list[Any]) -> None:
    for sent, received in zip(arrays, through_the_wire(arrays), strict=True):
        assert received.shape == sent.shape
        assert received.dtype == sent.dtype.newbyteorder("<")
        np.testing.assert_array_equal(sent, received)


def test_lists_arrive_beside_arrays() -> None:
    sent = [["a", None, "ü"], np.arange(3.0), [["x", 1], ["y", 2.5]]]
    received = through_the_wire(sent)
    assert received[0] == sent[0]
    assert received[2] == sent[2]
    np.testing.assert_array_equal(received[1], sent[1])


def test_objects_never_go_over_the_wire() -> None:
    """Invariant 9: the only dtypes are numbers and bools, so nothing could be unpickled."""
    with pytest.raises(ProtocolError, match="object"):
        encode_tensors([np.array([object()])])
    with pytest.raises(ProtocolError, match="not a tensor"):
        decode_tensors([{"dtype": "|O", "shape": [1]}], memoryview(bytes(8)))


@pytest.mark.parametrize(
    "description",
    [
        {"dtype": "<f8", "shape": [3]},
        {"dtype": "<f8", "shape": [-1]},
        {"dtype": "<f8", "shape": [1 << 62, 1 << 62]},
        {"dtype": "<f8", "shape": [True]},
        {"dtype": "<f8", "shape": "1"},
        {"dtype": "<f8", "shape": []},
        {"dtype": "json", "nbytes": 9},
        {"dtype": "json", "nbytes": 8},
        {"dtype": "json"},
        {"dtype": "V8", "shape": [1]},
        {"shape": [1]},
        [],
        None,
    ],
)
def test_a_description_that_does_not_fit_its_payload_is_refused(description: Any) -> None:
    payload = memoryview(bytes(16))
    with pytest.raises(ProtocolError):
        decode_tensors([description], payload)


@pytest.mark.parametrize(
    "batch",
    [
        Batch(2, matrix=np.arange(6.0).reshape(2, 3)),
        Batch(2, columns=(np.array([1.0, np.nan]), ["a", None], np.array([True, False]))),
    ],
)
def test_a_batch_arrives_as_it_was_sent(batch: Batch) -> None:
    header, buffers = encode_batch("predict_proba", batch)
    method, received = decode_batch(header, memoryview(b"".join(buffers)))
    assert method == "predict_proba"
    assert received.rows == 2
    if batch.matrix is not None:
        np.testing.assert_array_equal(received.matrix, batch.matrix)
    else:
        assert received.columns is not None
        np.testing.assert_array_equal(received.columns[0], batch.columns[0])  # type: ignore[index]
        assert received.columns[1] == ["a", None]


def test_a_batch_whose_columns_disagree_is_refused() -> None:
    header, buffers = encode_batch("predict", Batch(2, columns=(np.zeros(3),)))
    with pytest.raises(ProtocolError, match="does not have 2 rows"):
        decode_batch(header, memoryview(b"".join(buffers)))


@given(st.binary(min_size=PREFIX.size, max_size=PREFIX.size))
def test_random_bytes_are_no_prefix(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack_prefix(raw)


@given(st.binary(max_size=200))
def test_random_headers_are_refused_or_objects(raw: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert isinstance(decode_object(raw), dict)


def test_frames_of_any_size_pass_through_a_socket() -> None:
    ours, theirs = socket.socketpair()
    sizes = [0, 1, 4096, ARENA_THRESHOLD_BYTES * 3]
    sender = threading.Thread(
        target=lambda: (
            [send_frame(ours, FrameKind.PREDICT, size, b"{}", [bytes(size)]) for size in sizes] and ours.close()
        )
    )
    sender.start()
    with theirs:
        for size in sizes:
            frame = receive_frame(theirs)
            assert frame is not None
            assert (frame.request_id, len(frame.payload)) == (size, size)
        assert receive_frame(theirs) is None
    sender.join()


def test_a_stream_that_ends_inside_a_frame_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(pack_prefix(FrameKind.PREDICT, 1, 100, 0) + b"{")
        ours.close()
        with pytest.raises(ProtocolError, match="inside a frame"):
            receive_frame(theirs)


def test_a_payload_may_lie_in_the_arena() -> None:
    ours, theirs = socket.socketpair()
    arena = memoryview(bytearray(b"abcdefgh"))
    with ours, theirs:
        ours.sendall(pack_prefix(FrameKind.PREDICT, 1, 2, 3, in_arena=True) + b"{}")
        frame = receive_frame(theirs, arena)
        assert frame is not None
        assert bytes(frame.payload) == b"abc"
        ours.sendall(pack_prefix(FrameKind.PREDICT, 1, 2, 9, in_arena=True) + b"{}")
        with pytest.raises(ProtocolError, match="arena"):
            receive_frame(theirs, arena)


class CountingSocket:
    """A socket that counts how often it is read."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.calls = 0

    def recv_into(self, buffer: Any) -> int:
        self.calls += 1
        return self._socket.recv_into(buffer)


def test_a_small_frame_is_read_with_one_call() -> None:
    ours, theirs = socket.socketpair()
    counting: Any = CountingSocket(theirs)
    reader = FrameReader(counting)
    with ours, theirs:
        for number in (1, 2, 3):
            send_frame(ours, FrameKind.PREDICT, number, b"{}", [bytes(1000)])
            frame = reader.receive()
            assert frame is not None
            assert (frame.request_id, len(frame.payload), counting.calls) == (number, 1000, number)


@pytest.mark.parametrize("read_ahead_bytes", [PREFIX.size, 50, 64, 64 << 10])
def test_frames_read_ahead_come_out_as_they_went_in(read_ahead_bytes: int) -> None:
    ours, theirs = socket.socketpair()
    sizes = [0, 1, 20, 50, 70_000, 3, 7]
    with ours, theirs:
        sender = threading.Thread(
            target=lambda: ours.sendall(
                b"".join(
                    pack_prefix(FrameKind.PREDICT, size, 2, size) + b"{}" + bytes([size % 251]) * size for size in sizes
                )
            )
        )
        sender.start()
        reader = FrameReader(theirs, None, read_ahead_bytes)
        for size in sizes:
            frame = reader.receive()
            assert frame is not None
            assert (frame.request_id, bytes(frame.header)) == (size, b"{}")
            assert bytes(frame.payload) == bytes([size % 251]) * size
        sender.join()
        ours.sendall(PREFIX.pack(b"SVH1", FrameKind.PREDICT, 0, 0, 2, 1, 0)[:9])
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(ProtocolError, match="inside a frame"):
            reader.receive()


def test_receiving_one_frame_leaves_the_next_to_whoever_reads_on() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_frame(ours, FrameKind.REPORT, 1, b"{}")
        ours.sendall(b"next")
        assert receive_frame(theirs) is not None
        assert theirs.recv(100) == b"next"
