"""Numbers read without Python objects are those that a parser of JSON finds, and nothing else is read."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serving.api.json_bodies import long_array, number_reader
from serving.api.json_bodies.long_array import LongArray
from serving.api.json_bodies.number_reader import NumberReader, count_byte

needs_simdjson = pytest.mark.skipif(
    number_reader._parser_type() is None, reason="simdjson has no wheel for this Python"
)
plain = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0, -0.0])
cells = plain | st.none() | st.booleans() | st.text(max_size=2) | st.just({}) | st.just([]) | st.just([1])
arrays = st.lists(plain, max_size=5) | st.lists(cells, max_size=5)
tables = st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(plain, min_size=width, max_size=width), max_size=5))


def plainly(text: bytes, depth: int) -> Any:
    """Return what is read there by orjson: float64 of so many dimensions; None for what is not only numbers."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    rows = found if depth == 2 else [found]
    if not isinstance(found, list) or not all(isinstance(row, list) for row in rows):
        return None
    if not rows or len(set(map(len, rows))) != 1 or {type(cell) for row in rows for cell in row} - {int, float}:
        return None
    return np.array([[struct.unpack("d", struct.pack("d", cell))[0] for cell in row] for row in rows]).reshape(
        (len(rows), -1) if depth == 2 else -1
    )


def is_alike(got: Any, wanted: Any) -> bool:
    """Compare every bit: 0 and -0 are different, as they are for a division."""
    return got.shape == wanted.shape and got.tobytes() == wanted.tobytes()


def numbers_in(raw: bytes, start: int, end: int) -> Any:
    """Read the array between two places, brackets included."""
    return LongArray(raw, 16, start + 1, end - 1, 1).read_numbers()


@given(arrays | tables | st.lists(arrays, max_size=3), st.data())
@settings(max_examples=300)
@example([[1, [2]]], None)
@example([[1, 2], 3], None)
@example([[[1], 2]], None)
def test_what_is_read_is_what_the_parser_reads(value: Any, data: st.DataObject | None) -> None:
    text = json.dumps(value).encode()
    if data is not None and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(st.sampled_from([b"", b",", b"]", b"[", b"0", b"e9", b"NaN", b"\xff"])) + text[at:]
    reader = NumberReader()
    for read, depth in ((reader.read_matrix, 2), (reader.read_vector, 1)):
        got, wanted = read(text), plainly(text, depth)
        assert got is None or (wanted is not None and is_alike(got, wanted)), text


@needs_simdjson
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"[[1, 2.5], [-3e2, 0]]", [[1, 2.5], [-300, 0]]),
        (b" [ [ 1 ] ,\n[2]] ", [[1], [2]]),
        (b"[[0.1, 1e-320, -9007199254740991]]", [[0.1, 1e-320, -(2.0**53 - 1)]]),
    ],
)
def test_numbers_of_every_kind_are_read(text: bytes, wanted: list[list[float]]) -> None:
    found = NumberReader().read_matrix(text)
    assert found is not None
    assert found.tolist() == wanted


@needs_simdjson
@pytest.mark.parametrize(
    "number", [b"9007199254740993", b"-9007199254740993", b"18446744073709551615", b"1e300", b"-0"]
)
def test_what_may_be_rounded_or_loses_its_sign_is_left_to_the_other_way(number: bytes) -> None:
    assert NumberReader().read_matrix(b"[[1, " + number + b"]]") is None
    assert NumberReader().read_vector(b"[1, " + number + b"]") is None


@pytest.mark.parametrize("text", [b"", b"1", b"{}", b'"[[1]]"', b"[[1]] 2", b"[" * 3000, b"[[1e999]]", b"[[1],[]]"])
def test_nothing_else_is_read(text: bytes) -> None:
    assert NumberReader().read_matrix(text) is None
    assert NumberReader().read_vector(text) is None


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_array, "PIECE_BYTES", 4)
    monkeypatch.setattr(long_array.time, "sleep", lambda _: None)


@pytest.mark.usefixtures("_tiny")
@given(arrays | tables, st.sampled_from(["", "5, ", '"id": ']), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=300)
def test_an_array_in_pieces_is_the_array_as_a_whole(value: Any, before: str, data: st.DataObject) -> None:
    text = json.dumps(value).encode()
    if data.draw(st.booleans()):
        at = data.draw(st.integers(1, len(text) - 1))
        text = text[:at] + data.draw(st.sampled_from([b",", b"]", b"[", b"0", b" ", b"],", b"],["])) + text[at:]
    raw = before.encode() + text + b", 9]"
    got = numbers_in(raw, len(before), len(before) + len(text))
    wanted = plainly(text, 1) if plainly(text, 2) is None else plainly(text, 2)
    assert got is None or (wanted is not None and is_alike(got, wanted)), text


@needs_simdjson
@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize("value", [[0.5] * 100, [1], [[1, 2]] * 50, [[1.5, -2]], list(range(1000))])
def test_an_array_of_numbers_is_read_in_pieces(value: Any) -> None:
    text = json.dumps(value).encode()
    found = numbers_in(text, 0, len(text))
    assert found is not None
    assert found.tolist() == value


def test_bytes_are_counted_between_two_places() -> None:
    assert [count_byte(b"[[1],[2]]", b"[", *places) for places in ((), (1,), (0, 5), (5, 9))] == [3, 2, 2, 1]


def test_without_simdjson_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_reader, "_parser_type", lambda: None)
    assert NumberReader().read_matrix(b"[[1]]") is None
    assert NumberReader().read_vector(b"[1]") is None
    assert numbers_in(b"[1]", 0, 3) is None
