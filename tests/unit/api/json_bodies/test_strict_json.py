"""What counts as JSON, and what is said of what does not."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.api.json_bodies.strict_json import (
    MAX_DEPTH,
    count_strings,
    loads,
    refuse_depth,
    refuse_repeated_keys,
)
from serving.domain.errors import InvalidInput, NotJson
from tests.fakes import make_app, predict

ROW = "5.1, 3.5, 1.4, 0.2"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b'{"instances": [[1, 2,]]}', "trailing comma is not allowed at line 1, column 21"),
        (b'{"instances":\n [[1, 2]]', "at line 2, column 10; it ends too early"),
        (b"{'instances': [[1]]}", "JSON quotes strings and keys with double quotes"),
        (b'{"instances": [[True]]}', "JSON writes true, false and null"),
        (b'{"instances": [[None]]}', "JSON writes true, false and null"),
        (b"instances=1,2,3", "it looks like form data"),
        (b'{"instances": [["\xff"]]}', "not UTF-8 text at byte 17"),
        (b"\x1f\x8b\x08\x00\x00", "it looks compressed"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"input": "\\ud800"}', "surrogate"),
        (b'{"input": [1]} {}', "unexpected content after document"),
        (b'{"input": 01}', "leading zero"),
        (b'{"input": "a\nb"}', "control character"),
        (b"NaNaN", "at line 1, column 1"),
        (b'{"input": [NaN, }', "unexpected character"),
        (b'{"input": 1e999', "number is infinity"),
    ],
)
def test_what_is_not_json_is_400_with_the_place_and_a_hint(body: bytes, said: str) -> None:
    response = predict(make_app(), body)
    assert (response.status_code, response.json()["title"]) == (400, "The body is not JSON")
    assert said in response.json()["detail"]


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 400, "9" * 5000, "-" + "9" * 5000]
)
@pytest.mark.parametrize("row", ["[5.1, {}, 1.4, 0.2]", '{{"x0": 5.1, "x1": {}, "x2": 1.4, "x3": 0.2}}'])
def test_a_number_no_float_can_hold_is_422_and_names_the_row_and_the_feature(row: str, number: str) -> None:
    for body in (f'{{"instances": [{row.format("1")}, {row.format(number)}]}}', f'{{"input": {row.format(number)}}}'):
        response = predict(make_app(), body)
        index = 1 if "instances" in body else 0
        assert response.status_code == 422
        assert response.json()["detail"].startswith(f"row {index}, feature 'x1': ")
        assert "is not a finite number" in response.json()["detail"]


def test_a_number_that_is_small_is_not_out_of_range() -> None:
    assert predict(make_app(), '{"input": [1e-999, -0, 1E2, 18446744073709551616]}').status_code == 200


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "open"])
def test_a_hundred_thousand_levels_are_400(opening: str, is_closed: bool) -> None:
    closing = "".join({"[": "]", "{": "}"}[one] for one in reversed(opening) if one in "[{")
    body = opening * 100_000 + ("1" + closing * 100_000 if is_closed else "")
    app = make_app()
    for wrapped in (body, f'{{"instances": [{body}]}}', f'{{"input": {body}, "method": NaN}}'):
        response = predict(app, wrapped)
        assert (response.status_code, "nested deeper than 16" in response.json()["detail"]) == (400, True)


def test_levels_between_what_the_two_parsers_take_are_400_too() -> None:
    for levels in (900, 1000, 1015, 1020):
        body = '{"input": ' + '{"a":' * levels + '{"b": 1, "b": 2}' + "}" * (levels + 1)
        response = predict(make_app(), body)
        assert (response.status_code, "nested deeper than 16" in response.json()["detail"]) == (400, True)


def nested(levels: int) -> str:
    return f'{{"input": {"[" * (levels - 1)}{"]" * (levels - 1)}}}'


def test_sixteen_levels_are_json_and_seventeen_are_not() -> None:
    assert predict(make_app(), nested(MAX_DEPTH)).status_code == 422
    assert predict(make_app(), nested(MAX_DEPTH + 1)).status_code == 400


def test_brackets_in_strings_are_not_levels() -> None:
    refuse_depth(b'["' + b"[" * 50 + b'"]')
    refuse_depth(b'["\\"' + b"[" * 50 + b'"]')
    with pytest.raises(NotJson):
        refuse_depth(b'["\\\\"' + b"[" * 50)


def test_a_string_that_never_ends_is_searched_once() -> None:
    """Searched again from each quote it would take hours."""
    for body in (b'"' + b'\\"' * 5_000_000, b'"\\' * 5_000_000, b'"' * 9_999_999):
        refuse_depth(body)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def strings_of(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(strings_of, value.values()))
    if isinstance(value, list):
        return sum(map(strings_of, value))
    return isinstance(value, str)


@given(json_values)
def test_no_key_of_a_document_is_repeated(value: Any) -> None:
    refuse_repeated_keys(orjson.dumps([value]), [value], 100)


@given(json_values, json_values, st.text(max_size=5))
def test_a_repeated_key_is_found_wherever_it_is(before: Any, value: Any, key: str) -> None:
    raw = b'[%b, {"a": {%b: 1, %b: %b}}]' % (*map(orjson.dumps, (before, key, key, value)),)
    with pytest.raises(InvalidInput, match="appears twice"):
        refuse_repeated_keys(raw, orjson.loads(raw), 100)


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@given(json_values)
@example("a\\")
@example(['\\"', "\\\\", '"'])
def test_strings_and_depth_are_what_the_parser_sees(value: Any) -> None:
    raw = orjson.dumps(value)
    assert count_strings(raw) == strings_of(value)
    assert loads(raw) == orjson.loads(raw)
    padded = b"[" * (MAX_DEPTH - depth_of(value)) + raw
    refuse_depth(padded)
    with pytest.raises(NotJson):
        refuse_depth(b"[" * (MAX_DEPTH - depth_of(value) + 1) + raw.replace(b"[]", b"[1]"))


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b"-0", "-0.0"),
        (b"[1, -0 ]", "[1, -0.0]"),
        (b"[[-0,-0.5]]", "[[-0.0, -0.5]]"),
        (b'{"a-0": -0}', "{'a-0': -0.0}"),
        (b'["\\"-0", -0, "-0"]', "['\"-0', -0.0, '-0']"),
    ],
)
def test_a_zero_keeps_its_sign(raw: bytes, wanted: str) -> None:
    assert repr(loads(raw)) == wanted


def test_text_that_looks_like_a_zero_with_a_sign_stays_text() -> None:
    assert loads(b'{"a": "x-0", "-0": "2024-01-01", "b": -0.5, "c": -0e3}') == {
        "a": "x-0",
        "-0": "2024-01-01",
        "b": -0.5,
        "c": -0.0,
    }


@pytest.mark.parametrize(("raw", "wanted"), [(b"18446744073709551615", 2**64 - 1), (b"-9223372036854775808", -(2**63))])
def test_an_integer_of_64_bits_is_an_integer(raw: bytes, wanted: int) -> None:
    number = loads(raw)
    assert type(number) is int
    assert number == wanted


@pytest.mark.parametrize("raw", [b"18446744073709551617", b"-9223372036854775809", b"123456789012345670000"])
def test_an_integer_beyond_64_bits_is_a_float(raw: bytes) -> None:
    number = loads(raw)
    assert type(number) is float
    assert number == float(raw)
