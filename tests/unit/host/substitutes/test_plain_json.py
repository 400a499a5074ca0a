"""JSON by the standard library: the same documents as orjson, and the same refusals."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import orjson
import pytest

from serving import json_codec
from serving.host.substitutes import plain_json


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "ключ \N{SNOWMAN} \x00\n\""]},
        [float("nan"), {"x": (float("inf"), -float("inf"))}],
        {"gate": Colour.RED, "all": [Colour.RED]},
        [2**64 - 1, -(2**63), 10**18, "12345678901234567890"],
        [1e-300, 0.1, 1e16, -0.0, 123456789.123],
        [],
        "",
        None,
    ],
)  # fmt: skip
def test_it_writes_what_orjson_writes(value: Any) -> None:
    raw = plain_json.dumps(value)
    assert orjson.loads(raw) == orjson.loads(orjson.dumps(value))
    assert plain_json.loads(raw) == orjson.loads(raw)
    assert json.dumps(json.loads(raw)) == json.dumps(json.loads(orjson.dumps(value)))


def test_keys_that_are_numbers_are_texts() -> None:
    value = {0: "a", 7: {1: None}}
    option = plain_json.OPT_NON_STR_KEYS
    assert plain_json.dumps(value, option=option) == orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    assert option == json_codec.OPT_NON_STR_KEYS


@pytest.mark.parametrize("value", [2**64, [-(2**63) - 1], {"a": {"b": [10**30]}}, object(), "\ud800", {1, 2}, b"a"])
def test_both_refuse_to_write_the_same(value: Any) -> None:
    for codec in (orjson, plain_json):
        with pytest.raises(TypeError):
            codec.dumps(value)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[NaN]", b"[Infinity]", b"[1,]", b"\xff", b'"\\ud800"', b'"\xed\xa0\x80"', b"[" * 200_000, "\ud800"],
)
def test_both_refuse_to_read_the_same(raw: Any) -> None:
    for codec in (orjson, plain_json):
        with pytest.raises(codec.JSONDecodeError):
            codec.loads(raw)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda raw: raw.decode()])
def test_it_reads_every_kind_of_buffer(kind: Any) -> None:
    raw = '{"a": ["\\ud83d\\ude00", "\N{SNOWMAN}", 1e5]}'.encode()
    assert plain_json.loads(kind(raw)) == orjson.loads(raw)
