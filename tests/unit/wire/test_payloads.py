"""Answers over the wire: what a host may send comes out as it went in, what it may not is refused on both sides."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest

from serving.domain.errors import InvalidInput, ModelFailed, ProtocolError
from serving.rows.batch import Prediction
from serving.wire import payloads
from serving.wire.frames import BOUNDS, FrameKind
from serving.wire.payloads import decode_answer, decode_detail, encode_answer, encode_detail


def through_the_wire(*tensors: Any) -> tuple[Any, ...]:
    rows = len(tensors[0])
    header, buffers = encode_answer(Prediction(tensors), rows)
    return decode_answer(header, memoryview(b"".join(buffers)), rows).tensors


@pytest.mark.parametrize(
    "tensors",
    [
        (np.arange(3.0),),
        (np.arange(6, dtype=np.int32).reshape(3, 2),),
        (np.array([True, False, True]),),
        (np.zeros((3, 0)),),
        (["setosa", None, "ü"],),
        ([["a", 1], ["b", 2.5], ["c", True]],),
        ([{"label": "a", "p": [0.5, {"x": None}]}, {}, "c"],),
        (np.ones((3, 2)), np.ones((3, 4)), [["x"], ["y"], ["z"]]),
    ],
)
def test_answers_arrive_as_they_were_given(tensors: tuple[Any, ...]) -> None:
    for sent, received in zip(tensors, through_the_wire(*tensors), strict=True):
        if isinstance(sent, list):
            assert received == sent
        else:
            assert received.dtype == sent.dtype
            np.testing.assert_array_equal(received, sent)


@pytest.mark.parametrize("tensor", [np.zeros(2), np.zeros((3, 2, 0)), [{1: 2}, 1, 2], np.zeros(()), [1]])
def test_a_host_does_not_send_what_the_server_would_not_take(tensor: Any) -> None:
    with pytest.raises(ModelFailed, match="the model gave"):
        encode_answer(Prediction((tensor,)), 3)


def test_an_answer_too_large_is_told_to_whoever_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelFailed, match="the answer takes 40 MB, at most 32 MB can be given for 1 rows"):
        encode_answer(Prediction((np.zeros((1, 5 << 20)),)), 1)
    with pytest.raises(InvalidInput, match="at most 256 MB can be given for 100 rows: send fewer rows"):
        encode_answer(Prediction((np.broadcast_to(np.zeros(1), (100, 400_000)),)), 100)
    monkeypatch.setattr(payloads, "MAX_JSON_VALUES", 1000)
    assert encode_answer(Prediction((["a"] * 400,)), 400)
    with pytest.raises(InvalidInput, match="1000 values that are no array: send fewer rows"):
        encode_answer(Prediction((["a"] * 1001,)), 1001)


def test_keys_of_objects_count_as_values_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "MAX_JSON_VALUES", 700)
    rows = [{"at": "2026-11-20T08:00:00"}] * 100  # a comma, a brace and three colons each
    assert encode_answer(Prediction((rows,)), 100)
    with pytest.raises(InvalidInput, match="700 values"):
        encode_answer(Prediction((rows * 2,)), 200)


def test_the_lists_of_all_outputs_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "MAX_JSON_VALUES", 100)
    one = [["a text of some length"]] * 30  # 60 commas and brackets
    assert encode_answer(Prediction((one,)), 30)
    with pytest.raises(InvalidInput, match="100 values"):
        encode_answer(Prediction((one, one)), 30)
    header, buffers = encode_answer(Prediction((one,)), 30)
    twice = orjson.dumps({"tensors": orjson.loads(header)["tensors"] * 2})
    with pytest.raises(ProtocolError, match="100 values"):
        decode_answer(twice, memoryview(b"".join(buffers) * 2), 30)


def forged(*tensors: Any) -> bytes:
    return orjson.dumps({"tensors": list(tensors)})


@pytest.mark.parametrize(
    ("header", "payload", "reason"),
    [
        (b"{}", b"", "not the header of an answer"),
        (b'{"tensors":[]}', b"", "no values at all"),
        (b'{"tensors":[],"more":1}', b"", "not the header of an answer"),
        (b'{"tensors":{}}', b"", "not the header of an answer"),
        (b"[]", b"", "not a JSON object"),
        (forged({"dtype": "<f8", "shape": [2]}), bytes(16), "2 values for 1 rows"),
        (forged({"dtype": "<f8", "shape": []}), bytes(8), "single value"),
        (forged({"dtype": "<f8", "shape": [1, 1 << 40, 0]}), b"", "shape"),
        (forged({"dtype": "<f8", "shape": [1] * 9}), bytes(8), "not a tensor"),
        (forged({"dtype": "|b1", "shape": [1]}), b"\x02" + bytes(7), "neither 0 nor 1"),
        (forged({"dtype": "|O", "shape": [1]}), bytes(8), "not a tensor"),
        (forged({"dtype": "x" * 1000, "shape": [1]}), bytes(8), "not a tensor"),
        (forged({"dtype": "json", "nbytes": 8}), b'[{"a":1}]'[:8] + bytes(0), "JSON"),
        (forged({"dtype": "json", "nbytes": 18}), b"[" * 9 + b"]" * 9 + bytes(6), "neither text"),
        (forged({"dtype": "json", "nbytes": -8}), bytes(8), "does not fit"),
        (forged({"dtype": "<f8", "shape": [1]}), bytes(16), "describe 8 bytes"),
    ],
)
def test_an_answer_that_is_none_is_refused_with_a_short_line(header: bytes, payload: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason) as caught:
        decode_answer(header, memoryview(payload), 1)
    assert len(str(caught.value)) < 400


def test_what_json_would_become_is_bounded_before_it_is_parsed() -> None:
    """15 MB of empty lists would be 5 million of them, in 400 MB."""
    raw = b"[" + b"[]," * (5 << 20) + b"[]]"
    header, payload = forged({"dtype": "json", "nbytes": len(raw)}), memoryview(raw + bytes(-len(raw) % 8))
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="values that are no array"):
            decode_answer(header, payload, 5 << 20)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(raw)
    finally:
        tracemalloc.stop()


def test_the_answer_to_few_rows_is_small() -> None:
    size = (32 << 20) + 8
    header = forged({"dtype": "<f8", "shape": [1, size // 8]})
    with pytest.raises(ProtocolError, match="at most 32 MB can be given for 1 rows"):
        decode_answer(header, memoryview(bytes(size)), 1)


def test_a_detail_arrives_as_one_printable_line() -> None:
    assert decode_detail(encode_detail("row 3\n\x1b[31mis wrong")) == "row 3 ?[31mis wrong"
    assert decode_detail(orjson.dumps({"detail": "a\x1b]0;b\x07"})) == "a?]0;b?"
    assert len(encode_detail("\U0001f600" * 10_000)) < BOUNDS[FrameKind.FAILURE].header_bytes
    for header in (b"{}", b'{"detail":5}', b'{"detail":"a","more":1}', b"[]", b"x"):
        with pytest.raises(ProtocolError):
            decode_detail(header)
