"""Messages from outside are bounded before they are objects."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.errors import BodyTooLarge, InvalidInput, RequestRefused
from tests.fakes import run

pytest.importorskip("grpc", reason="the extra grpc is not installed")

from serving.api.grpc import message_limits
from serving.api.grpc.inference_pb2 import ModelInferRequest
from serving.api.json_bodies.cutter import LARGE_BYTES

EMPTY_INPUT, EMPTY_PARAMETER = b"\x2a\x00", b"\x22\x00"


def _request(values: int = 0, texts: int = 0) -> bytes:
    request = ModelInferRequest(model_name="iris")
    contents = request.inputs.add(name="input", datatype="FP64", shape=[values, 1]).contents
    contents.fp64_contents.extend([0.5] * values)
    contents.bytes_contents.extend([b""] * texts)
    return request.SerializeToString()


def test_large_messages_are_read_whole() -> None:
    raw = _request(values=100_000, texts=90_000)
    assert len(raw) > LARGE_BYTES
    request = run(message_limits.read(ModelInferRequest, raw))
    assert len(request.inputs[0].contents.fp64_contents) == 100_000
    assert len(request.inputs[0].contents.bytes_contents) == 90_000


@pytest.mark.parametrize(
    "raw",
    [
        EMPTY_INPUT * (message_limits.MAX_PARTS + 1),
        EMPTY_PARAMETER * (message_limits.MAX_PARTS + 1),
        _request(texts=message_limits.MAX_PARTS),
        b"\x78\x00" * (message_limits.MAX_PARTS + 1),  # a field nobody knows
    ],
)
def test_small_parts_in_large_numbers_are_refused_before_they_are_objects(raw: bytes) -> None:
    with pytest.raises(BodyTooLarge, match="more than 100000 fields and strings"):
        run(message_limits.read(ModelInferRequest, raw))


@pytest.mark.parametrize("raw", [b"\xff", b"\x2a\x05", _request(1)[:-1], b"\x0a\x01\xff", b"\x0b"])
def test_what_is_no_message_is_refused_small_or_large(raw: bytes) -> None:
    for padding in (b"", b"\x7a\x80\x80\x10" + bytes(1 << 18)):  # one unknown field of 256 KiB in front
        with pytest.raises(InvalidInput, match=r"no inference\.ModelInferRequest"):
            run(message_limits.read(ModelInferRequest, padding + raw))


@given(st.binary(max_size=200))
def test_whatever_is_parsed_is_walked_through_and_nothing_else_is_raised(raw: bytes) -> None:
    try:
        ModelInferRequest.FromString(raw)
    except DecodeError:
        is_message = False
    else:
        is_message = True
    try:
        message_limits.refuse_many_parts(ModelInferRequest, raw)
    except RequestRefused:
        assert not is_message or any(byte & 7 in (3, 4) for byte in raw)  # groups, which nobody sends
