"""A key that comes twice in one object is refused by every protocol: one of the values would be lost without a word."""

from __future__ import annotations

import pytest

from tests.fakes import call, make_app

TENSOR = '{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [1, 2, 3, 4]'
ROW = '"x0": 1, "x1": 2, "x2": 3, "x3": 4'


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/invocations", '{"inputs": [[1, 2, 3, 4]], "inputs": [[1, 2, 3, 4]]}', "'inputs' appears twice in the body"),
        ("/invocations", f'{{"dataframe_records": [{{{ROW}}}, {{{ROW}, "x0": 5}}]}}', "row 1, feature 'x0': appears"),
        ("/invocations", '{"dataframe_split": {"data": [[1, 2, 3, 4]], "data": []}}', "'data' appears twice"),
        ("/invocations", '{"inputs": {"x0": [1], "x1": [1], "x2": [1], "x3": [1], "x0": [2]}}', "'x0' appears twice"),
        ("/invocations", '{"inputs": [[1, 2, 3, 4]], "params": {"method": null, "method": null}}', "'method' appears"),
        ("/v1/models/iris:predict", '{"instances": [[1, 2, 3, 4]], "instances": []}', "'instances' appears twice"),
        ("/v1/models/iris:predict", f'{{"instances": [{{{ROW}, "x3": 5}}]}}', "row 0, feature 'x3': appears twice"),
        ("/v1/models/iris:classify", f'{{"examples": [{{{ROW}, "x3": 5}}]}}', "row 0, feature 'x3': appears twice"),
        ("/v2/models/iris/infer", f'{{"inputs": [{TENSOR}, "data": [5, 6, 7, 8]}}]}}', "'data' appears twice in the"),
        ("/v2/models/iris/infer", f'{{"inputs": [{TENSOR}, "name": "x"}}]}}', "'name' appears twice in the body"),
        (
            "/v2/models/iris/infer",
            f'{{"id": "a", "id": "b", "inputs": [{TENSOR}}}]}}',
            "'id' appears twice in the body",
        ),
    ],
)
def test_a_repeated_key_is_refused_and_named(path: str, body: str, said: str) -> None:
    answer = call(make_app(), "POST", path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert said in answer.text


def test_keys_that_come_once_are_answered() -> None:
    for path, body in (
        ("/invocations", f'{{"dataframe_records": [{{{ROW}}}, {{{ROW}}}], "params": {{"note": "a \\" b"}}}}'),
        ("/v1/models/iris:predict", f'{{"signature_name": "serving_default", "instances": [{{{ROW}}}]}}'),
        ("/v2/models/iris/infer", f'{{"id": "a", "inputs": [{TENSOR}}}]}}'),
        ("/v2/models/iris/infer", f'{{"id": "", "inputs": [{TENSOR}}}], "outputs": [{{"name": "predict"}}]}}'),
    ):
        answer = call(make_app(), "POST", path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200, answer.text
