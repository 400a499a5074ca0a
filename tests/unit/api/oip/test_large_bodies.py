"""Large inputs are read apart from their body, and nobody can tell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.api.json_bodies import cutter, long_array, number_reader
from serving.api.json_bodies.long_array import LongArray
from serving.api.oip import infer_body
from serving.api.oip.infer_body import read
from serving.domain.errors import InvalidInput, NotJson, RequestRefused
from serving.domain.signature import Feature, Signature
from serving.rows.tables import Table

SIGNATURE = Signature(features=tuple(Feature(name=name) for name in "abc"), methods=("predict",))

figures = st.floats(-9, 9) | st.integers(-99, 99)
values = (
    st.lists(figures, max_size=12)
    | st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(figures, min_size=width, max_size=width), max_size=4))
    | st.lists(figures | st.none() | st.booleans() | st.text('"]dat:[', max_size=4), max_size=6)
)
shapes = st.lists(st.integers(0, 4), min_size=1, max_size=2)
datatypes = st.sampled_from(["FP64", "FP64", "FP32", "FP16", "INT64", "BYTES", "BOOL", "FP"])
names = st.sampled_from(["a", "b", "c", "x", '"data":[1,2]'])
parameters = st.fixed_dictionaries({}, optional={"data": values, "binary_data_size": st.integers(0, 9)})


@st.composite
def inputs(draw: st.DrawFn) -> dict[str, Any]:
    data = draw(values)
    fitting = [len(data), len(data[0])] if data and isinstance(data[0], list) else [draw(st.sampled_from([len(data)]))]
    if len(fitting) == 1 and len(data) % 3 == 0 and draw(st.booleans()):
        fitting = [len(data) // 3, 3]
    entry = {
        "name": draw(names),
        "shape": draw(st.just(fitting) | shapes),
        "datatype": draw(datatypes),
        "data": data,
    }
    return entry | draw(st.just({}) | st.fixed_dictionaries({"parameters": parameters}))


bodies = st.fixed_dictionaries(
    {"inputs": st.lists(inputs(), max_size=3) | values},
    optional={"id": names, "data": values, "parameters": parameters},
)


@dataclass
class Outcome:
    """Rows, or what was wrong, without positions."""

    tensors: Any
    table: Any = None


def outcome(raw: bytes) -> Outcome:
    try:
        found = read({}, raw, 16)
        tensors = [
            (name, datatype, shape, values.tolist() if isinstance(values, np.ndarray) else values)
            for name, datatype, shape, values in found.inputs
        ]
        rows = found.request(SIGNATURE).rows
        assert isinstance(rows, Table)
        return Outcome((found.id, found.methods, tensors), (len(rows), rows.names))
    except RequestRefused as error:
        return Outcome((type(error), str(error) if isinstance(error, InvalidInput) else None))


@pytest.fixture(params=["simdjson", "no simdjson"])
def _tiny(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_array, "PIECE_BYTES", 4)
    monkeypatch.setattr(infer_body._LAYOUT, "levels", ((infer_body.DATA_LEVEL, 1),))
    if request.param == "no simdjson":
        monkeypatch.setattr(number_reader, "_parser_type", lambda: None)


def lift(raw: bytes) -> Any | None:
    """Return a body with its long arrays of numbers cut out, None where that is not what they are."""
    found = cutter._read_guessing(raw, infer_body._LAYOUT, 16)
    return None if found is None else found[0]


@pytest.mark.usefixtures("_tiny")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=300)
@given(bodies, st.sampled_from([None, 1]), st.data())
def test_a_body_is_read_as_if_nothing_had_been_taken_out(
    document: Any, indent: int | None, data: st.DataObject
) -> None:
    raw = json.dumps(document, indent=indent).encode()
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw = raw[:at] + data.draw(st.sampled_from([b"", b",", b"]", b"[", b'"', b"}", b"\\", b"1", b"NaN"])) + raw[at:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer_body, "_plain", lambda _: None)  # that is for small ones
        patch.setattr(cutter, "LARGE_BYTES", -1)
        patch.setattr(cutter, "MOST_ARRAYS", data.draw(st.sampled_from([1, 4096])))
        found = outcome(raw)
        patch.setattr(cutter, "LARGE_BYTES", 1 << 40)
        wanted = outcome(raw)
    if wanted.tensors[0] is NotJson:  # what else is wrong with such a body may be found first
        assert found.tensors[0] in (NotJson, InvalidInput), raw
    else:
        assert repr(found) == repr(wanted), raw


BODIES = {
    "flat": {"data": [1.5] * 5000, "shape": [1000, 5]},
    "nested": {"data": [[1.5, 2]] * 3000, "shape": [3000, 2]},
    "of other floats": {"data": [1.5] * 5000, "shape": [1000, 5], "datatype": "FP32"},
}


@pytest.mark.skipif(number_reader._parser_type() is None, reason="simdjson has no wheel for this Python")
@pytest.mark.parametrize("case", BODIES)
@pytest.mark.parametrize("indent", [None, 1])
def test_large_numbers_never_become_python_objects(
    case: str, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"name": "input", "datatype": "FP64"} | BODIES[case]
    raw = json.dumps({"inputs": [entry, {"name": "few", "datatype": "FP64", "shape": [1], "data": [1]}]}, indent=indent)
    document = lift(raw.encode())
    assert document is not None
    large, few = (each["data"] for each in document["inputs"])
    assert isinstance(large, LongArray)
    assert few == [1]
    monkeypatch.setattr(long_array, "loads", None)
    tensor = infer_body._tensor_of(large, "input", str(entry["datatype"]), tuple(entry["shape"]))
    assert isinstance(tensor.values, np.ndarray)
    assert tensor.values.dtype == {"FP64": np.float64, "FP32": np.float32}[tensor.datatype]
    np.testing.assert_array_equal(tensor.values, np.ravel(BODIES[case]["data"]))


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize("data", ["[0}.0]", "[[0}.0]]", "[0, 1}]", '["a", 1}]'])
def test_an_array_ends_with_its_own_bracket(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer_body, "_plain", lambda _: None)
    monkeypatch.setattr(cutter, "LARGE_BYTES", -1)
    raw = f'{{"inputs": [{{"name": "a", "datatype": "FP64", "shape": [1], "data": {data}}}]}}'
    assert outcome(raw.encode()).tensors[0] is NotJson


@pytest.mark.usefixtures("_tiny")
def test_rows_that_are_as_many_as_all_numbers_should_be_are_still_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"name": "a", "shape": [1, 3], "datatype": "FP64", "data": [[0.0, 0.0]] * 3}
    raw = json.dumps({"inputs": [entry], "data": [0.0]}).encode()  # too much beside it for the quick way
    monkeypatch.setattr(infer_body, "_plain", lambda _: None)
    monkeypatch.setattr(cutter, "LARGE_BYTES", -1)
    assert "the nested data are not 1 arrays of 3" in str(outcome(raw).tensors[1])


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize(
    ("data", "shape"), [([[0, 0, 0]] * 4, [4, 0]), ([[1, 2], [3, 4], 5, 6], [4, 2]), ([[1, 2]] * 3 + [[1]], [4, 2])]
)
def test_nesting_is_told_by_the_whole_shape_whichever_piece_is_wrong(
    data: Any, shape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"name": "a", "shape": shape, "datatype": "INT64", "data": data}
    monkeypatch.setattr(cutter, "LARGE_BYTES", -1)
    said = f"the nested data are not {shape[0]} arrays of {shape[1]}"
    assert said in str(outcome(json.dumps({"inputs": [entry]}).encode()).tensors[1])


@pytest.mark.parametrize(
    ("data", "shape", "said"),
    [
        ([1.0] * 9000, [3000, 2], "9000 values, expected 6000 for shape [3000, 2]"),
        ([[1.0]] * 9000, [9000, 2], "the nested data are not 9000 arrays of 2, as the shape says"),
        ([1.0] * 8999 + ["x"], [9000], 'FP64 takes numbers, and value 8999 of the data is the string "x"'),
        ([1.0] * 8999 + [True], [9000], "FP64 takes numbers, and value 8999 of the data is true"),
        ([1.0] * 8999 + [None], [8999], "9000 values, expected 8999"),
    ],
)
def test_what_is_wrong_with_many_numbers_is_said_as_for_few(
    data: Any, shape: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = json.dumps({"inputs": [{"name": "a", "datatype": "FP64", "shape": shape, "data": data}]}).encode()
    monkeypatch.setattr(cutter, "LARGE_BYTES", -1)
    document, _ = cutter.read_json(raw, infer_body._LAYOUT)
    large = document["inputs"][0]["data"]
    with pytest.raises(InvalidInput) as caught:
        infer_body._tensor_of(large, "a", "FP64", tuple(shape))
    assert said in str(caught.value)


def test_numbers_that_are_missing_or_too_large_are_so_in_many_too() -> None:
    data = ", ".join(["1.5"] * 9000 + ["null", "1e999", f"1{'0' * 400}"])
    document = lift(b'{"inputs": [{"data": [%b]}]}' % data.encode())
    assert document is not None
    numbers = infer_body._tensor_of(document["inputs"][0]["data"], "a", "FP64", (9003,)).values
    np.testing.assert_array_equal(numbers[-4:], [1.5, np.nan, np.inf, np.inf])


def test_numbers_that_are_no_data_of_an_input_are_left_where_they_are() -> None:
    many = ", ".join(["1"] * 5000)
    for raw in (
        f'{{"inputs": [], "parameters": {{"data": [{many}]}}}}',
        f'{{"id": "\\"data\\": [{many}]", "inputs": []}}',
        f'{{"inputs": [{{"data": [{many}], "data": [1]}}]}}',
        f'[{{"data": [{many}]}}]',
        f'{{"data": [{many}',
        f'{{"data": [[[{many}]]]}}',
    ):
        assert lift(raw.encode()) is None, raw[:40]


@pytest.mark.parametrize("opening", [b'"data":[1,', b'"data":[[1],', b'"data":[' + b" " * 60])
def test_many_arrays_without_an_end_take_no_longer_than_one(opening: bytes) -> None:
    """Whoever looks for the end of each reads 4 MB half a million times."""
    assert lift(opening * ((4 << 20) // len(opening))) is None
