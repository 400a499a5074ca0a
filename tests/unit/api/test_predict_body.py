"""The native body: which keys it takes, and that none of them comes twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.predict_body import parse
from serving.domain.errors import InvalidInput
from serving.plane.prediction import PredictRequest
from tests.fakes import make_app, predict

ROW = {"x0": 5.1, "x1": 3.5, "x2": 1.4, "x3": 0.2}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([[1, 2, 3, 4]], "the body is an array; send an object"),
        (5, "the body is a single value"),
        ({}, "the body has no rows"),
        ({"method": "predict"}, "the body has no rows"),
        ({"instances": [[1]], "input": [1]}, "both 'instances' and 'input'"),
        ({"instance": [[1]]}, "unknown key 'instance' in the body; did you mean 'instances'?"),
        ({"instances": [[1]], "Method": "predict"}, "did you mean 'method'?"),
        ({"inputs": [[1]]}, "did you mean 'input'?"),
        ({"data": [[1]]}, "the body takes instances, input, method"),
        ({"instances": [[1]], "k" * 500: 1}, "unknown key 'kkk"),
        ({"instances": {"x0": 1}}, "'instances' is not an array of rows; for one row send 'input'"),
        ({"instances": None}, "'instances' is not an array"),
        ({"instances": [[1]], "method": 3}, "'method' is not a string"),
        ({"instances": []}, "no rows: send at least one"),
        ({"instances": [5.1, 3.5, 1.4, 0.2]}, "one row alone is [[...]]"),
        ({"instances": [[[1]]]}, "row 0 has 1 value"),
        ({"instances": [[1, 2, 3, [4]]]}, "row 0, feature 'x3': expected a number, got an array"),
        ({"instances": [[1, 2, 3, True]]}, "got true"),
        ({"instances": [[1, 2, 3, None]]}, "does not take null"),
        ({"instances": [[1, 2, 3, 4], ROW]}, "send all rows in one form"),
        ({"instances": [[1, 2, 3, 4], [1, 2, 3]]}, "row 1 has 3 values, the model takes 4"),
        ({"instances": [{**ROW, "x9": 1}]}, "row 0: unknown 'x9'"),
        ({"input": None}, "row 0 is null"),
        ({"input": 5}, "row 0 is the number 5"),
        ({"input": {"x0": 1}}, "missing 'x1', 'x2', 'x3'"),
    ],
)
def test_a_body_that_is_json_but_no_rows_is_422_and_says_what_to_change(body: Any, said: str) -> None:
    response = predict(make_app(), body)
    assert response.status_code == 422
    assert said in response.json()["detail"]
    assert len(response.content) < 1500


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"instances": [[1]], "instances": [[2]]}', "'instances' appears twice in the body"),
        ('{"instances": [[1]], "\\u0069nstances": [[2]]}', "'instances' appears twice in the body"),
        ('{"input": "a", "input": "a"}', "'input' appears twice in the body"),
        ('{"instances": [[1]], "method": "predict", "method": null}', "'method' appears twice in the body"),
        ('{"instances": [{"x0": 1}, {"x0": 1, "x1": 2, "x0": 3}]}', "row 1, feature 'x0': appears twice"),
        ('{"instances": [{"x0": 1, "\\u00780": 3}]}', "row 0, feature 'x0': appears twice"),
        ('{"instances": [{"x0": "\\"", "x0": "\\\\"}]}', "row 0, feature 'x0': appears twice"),
        ('{"instances": [{"x0": NaN, "x0": 1}]}', "row 0, feature 'x0': appears twice"),
        ('{"input": {"x0": 1, "x0": 1}}', "row 0, feature 'x0': appears twice"),
    ],
)
def test_a_key_that_comes_twice_is_422_and_named(body: str, said: str) -> None:
    response = predict(make_app(), body)
    assert response.status_code == 422
    assert said in response.json()["detail"]


def test_quotes_and_backslashes_in_strings_are_not_keys_that_come_twice() -> None:
    for text in ('a "b" c', "\\", '\\"', '"', '\\\\"', "{'x': 1}", "[]{}:,"):
        assert parse(json.dumps({"input": text}).encode()).rows == [text]
        assert parse(json.dumps({"instances": [[text], [text]]}).encode()).rows == [[text], [text]]


cells = st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(-1e9, 1e9) | st.text(max_size=5)
rows = (
    st.lists(st.lists(cells, max_size=4), max_size=4)
    | st.lists(st.dictionaries(st.text(max_size=3), cells, max_size=4), max_size=4)
    | st.lists(st.text(max_size=8), max_size=4)
)


@given(rows, st.sampled_from([None, "predict", 'a"b\\']), st.booleans())
def test_every_valid_body_is_read_as_it_is(rows: list[Any], method: str | None, is_ascii: bool) -> None:
    body = {"instances": rows} | ({} if method is None else {"method": method})
    request = parse(json.dumps(body, ensure_ascii=is_ascii).encode())
    assert request == PredictRequest(rows, method, False)


@given(st.lists(st.dictionaries(st.text(max_size=3), cells, min_size=1, max_size=4), min_size=1, max_size=4), st.data())
def test_every_repeated_key_is_found(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(rows) - 1))
    key = data.draw(st.sampled_from(sorted(rows[index])))
    texts = [json.dumps(row) for row in rows]
    texts[index] = f"{texts[index][:-1]}, {json.dumps(key)}: {json.dumps(data.draw(cells))}}}"
    with pytest.raises(InvalidInput, match=f"^row {index}, feature .* appears twice"):
        parse(f'{{"instances": [{", ".join(texts)}]}}'.encode())
