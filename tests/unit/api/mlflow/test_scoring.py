"""MLflow's scoring protocol: its bodies in, its answers out."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import orjson
import pytest

from serving.api.json_bodies.cutter import LARGE_BYTES
from serving.api.paths import PREDICTION_ENDS
from serving.domain.signature import Feature, Method, Signature
from serving.rows.batch import Batch
from tests.fakes import (
    MIXED,
    FakeEngine,
    call,
    make_app,
    make_client,
    make_model_status,
    make_reference,
    make_servable,
    make_status,
    predict,
    run,
)
from tests.unit.api.test_shortcut import Immediate, app_with

ROW = [5.1, 3.5, 1.4, 0.2]
AB = Signature(features=(Feature(name="a"), Feature(name="b", nullable=True)), methods=("predict",), is_named=True)


def tens(_: Method, batch: Batch) -> Any:
    assert batch.matrix is not None
    return np.nan_to_num(batch.matrix) @ [10.0, 1.0]


def app_ab() -> Any:
    return make_app(make_reference(iris=make_servable("iris", "3", FakeEngine(tens), AB)))


def ask(body: Any, app: Any = None, path: str = "/invocations", **headers: str) -> Any:
    return predict(app or app_ab(), body, path, **{name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["b", "a"], "index": [0], "data": [[2, 1]]}},
        {"dataframe_split": {"columns": ["b", "more", "a"], "data": [[2, "x", 1]]}},
        {"dataframe_split": {"data": [[1, 2]]}},
        {"dataframe_records": [{"b": 2, "a": 1}]},
        {"dataframe_records": [{"b": 2, "z": None, "a": 1}]},
        {"instances": [[1, 2]]},
        {"instances": [{"a": 1, "b": 2, "c": 3}]},
        {"inputs": [[1, 2]]},
        {"inputs": {"b": [2], "a": [1], "c": [0]}},
        {"inputs": [[1, 2]], "params": {"temperature": 1}},
    ],
)
def test_columns_are_found_by_name_and_others_ignored(body: Any) -> None:
    response = ask(body)
    assert (response.status_code, response.json()) == (200, {"predictions": [12.0]})
    assert response.headers["x-model-version"] == "3"


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["b"], "data": [[2]]}},
        {"dataframe_records": [{"a": 1, "b": 2}, {"b": 2}]},
        {"instances": [{"b": 1}]},
        {"inputs": {"b": [2]}},
    ],
)
def test_missing_columns_are_named_as_mlflow_names_them(body: Any) -> None:
    response = ask(body)
    assert response.status_code == 400
    assert response.json() == {"error_code": "BAD_REQUEST", "message": "Model is missing inputs ['a']"}


def test_a_missing_column_is_named_beside_the_ones_nobody_asked_for() -> None:
    message = ask({"dataframe_records": [{"b": 2, "c": 3}]}).json()["message"]
    assert message == "Model is missing inputs ['a']. Note that there were extra inputs: ['c']"


def test_columns_of_a_model_without_names_count_by_position() -> None:
    split = {"columns": ["sepal length", "sepal width", "petal length", "petal width"], "data": [ROW]}
    assert ask({"dataframe_split": split}, make_app()).json() == {"predictions": [0]}
    split["columns"] = [0, 1, 2, 3]  # type: ignore[list-item]
    assert ask({"dataframe_split": split}, make_app()).json() == {"predictions": [0]}
    body = "w,x,y,z\n5.1,3.5,1.4,0.2\n"
    assert ask(body, make_app(), content_type="text/csv").json() == {"predictions": [0]}


def test_nan_and_null_are_missing_values_where_they_may_be() -> None:
    body = b'{"dataframe_split": {"columns": ["a", "b"], "data": [[1, NaN], [2, null]]}}'
    assert ask(body).json() == {"predictions": [10.0, 20.0]}
    assert ask(b'{"inputs": [[NaN, 1]]}').status_code == 400


def test_params_choose_the_method() -> None:
    body = {"inputs": [ROW], "params": {"method": "predict_proba"}}
    assert ask(body, make_app()).json() == {"predictions": [[0.98, 0.01, 0.01]]}


def test_one_model_is_asked_by_its_name() -> None:
    assert ask({"inputs": [[1, 2]]}, path="/models/iris/invocations").json() == {"predictions": [12.0]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "none of them"),
        ({"inputs": [[1, 2]], "instances": [[1, 2]]}, "instances and inputs"),
        ([[1, 2]], "the body is an array"),
        (b"{", "not JSON"),
        ({"dataframe_split": [[1, 2]]}, "an object of 'columns' and 'data'"),
        ({"dataframe_split": {"columns": "ab", "data": [[1, 2]]}}, "not an array of names"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, "twice"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [1]]}}, "row 1 of 'data' has 1 values"),
        ({"dataframe_records": [[1, 2]]}, "array of objects"),
        ({"dataframe_records": {"a": 1}}, "not an array of rows"),
        ({"inputs": 7}, "not an array of rows"),
        ({"inputs": []}, "no rows"),
        ({"inputs": [[1, "2"]]}, "row 0, feature 'b'"),
        ({"inputs": {"a": [1], "b": [1, 2]}}, "send one for each row"),
        ({"inputs": [[1, 2]], "params": []}, "'params'"),
        ({"inputs": [[1, 2]], "params": {"method": 1}}, "'method' is not a string"),
        ({"inputs": [[1, 2]], "params": {"method": "fly"}}, "'fly'"),
    ],
)
def test_bad_input_is_400_and_says_why(body: Any, said: str) -> None:
    response = ask(body)
    assert (response.status_code, response.json()["error_code"]) == (400, "BAD_REQUEST")
    assert said in response.json()["message"]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/json; charset=UTF-8", 200),
        ("application/json; charset=latin-1", 415),
        ("application/json; format=pandas-split", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/vnd.apache.parquet", 415),
    ],
)
def test_content_types_have_no_parameter_but_the_charset(content_type: str, status: int) -> None:
    response = ask({"inputs": [[1, 2]]}, content_type=content_type)
    assert response.status_code == status
    assert status == 200 or response.json()["error_code"] == "BAD_REQUEST"


def test_csv_and_arrays_come_in_and_go_out() -> None:
    response = ask("b,more,a\n2,x,1\n4,y,3\n", content_type="text/csv", accept="text/csv")
    assert response.headers["content-type"].startswith("text/csv")
    assert response.text.split() == ["predict", "12.0", "34.0"]
    file = io.BytesIO()
    np.save(file, np.array([[1.0, 2.0], [3.0, 4.0]]))
    response = ask(file.getvalue(), content_type="application/x-npy", accept="application/x-npy")
    assert response.headers["content-type"] == "application/x-npy"
    assert np.load(io.BytesIO(response.content), allow_pickle=False).tolist() == [12.0, 34.0]
    assert ask("b,c\n1,2\n", content_type="text/csv").json()["message"].startswith("Model is missing inputs ['a']")


def test_an_array_of_objects_is_never_read() -> None:
    file = io.BytesIO()
    np.save(file, np.array([[object]], dtype=object), allow_pickle=True)
    assert ask(file.getvalue(), content_type="application/x-npy").status_code == 400


def test_errors_have_mlflows_codes() -> None:
    unknown = ask({"inputs": [[1, 2]]}, path="/models/irsi/invocations")
    assert (unknown.status_code, unknown.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    closed = make_app(security={"predict_token": "t" * 20})
    refused = ask({"inputs": [ROW]}, closed)
    assert (refused.status_code, refused.json()["error_code"]) == (401, "UNAUTHENTICATED")
    waiting = make_app(make_reference(iris=None), make_status(make_model_status(active=None)))
    answer = ask({"inputs": [ROW]}, waiting, "/models/iris/invocations")
    assert (answer.status_code, answer.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert answer.headers["retry-after"]


@pytest.mark.parametrize("form", ["dataframe_records", "instances", "inputs", "dataframe_split"])
def test_large_bodies_are_read(form: str) -> None:
    names = ["b", "c", "a"]
    rows = [[index % 10, "text", index] for index in range(8_000)]
    table: dict[str, Any] = {
        "dataframe_records": [dict(zip(names, row, strict=True)) for row in rows],
        "instances": [dict(zip(names, row, strict=True)) for row in rows],
        "inputs": {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)},
        "dataframe_split": {"columns": names, "data": rows},
    }
    raw = orjson.dumps({form: table[form]})
    padded = raw + b" " * max(0, LARGE_BYTES + 1 - len(raw))
    assert ask(padded).json()["predictions"] == [10.0 * index + index % 10 for index in range(8_000)]


@pytest.mark.parametrize("names", [["b", "a"], ["b", "c", "a"], ["a", "b"]])
def test_large_bodies_of_numbers_are_read_by_the_names_of_columns(names: list[str]) -> None:
    rows = [{"a": index, "b": index % 10, "c": 0.5} for index in range(30_000)]
    split = {"columns": names, "data": [[row[name] for name in names] for row in rows]}
    raw = orjson.dumps({"dataframe_split": split})
    assert len(raw) > LARGE_BYTES
    assert ask(raw).json()["predictions"] == [10.0 * index + index % 10 for index in range(30_000)]
    short = {"columns": [*names, "z"], "data": split["data"]}
    message = ask(orjson.dumps({"dataframe_split": short})).json()["message"]
    assert f"has {len(names)} values, there are {len(names) + 1} columns" in message


def test_large_records_are_objects_like_small_ones() -> None:
    raw = orjson.dumps({"dataframe_records": [[1, 2]] * 30_000})
    assert len(raw) > LARGE_BYTES
    for body in (raw, b'{"dataframe_records": [[1, 2]]}'):
        assert "'dataframe_records' is not an array of objects" in ask(body).json()["message"]


def test_columns_of_several_kinds() -> None:
    app = make_app(
        make_reference(iris=make_servable("iris", "3", FakeEngine(lambda _, batch: batch.columns[1]), MIXED))
    )  # type: ignore[index,return-value]
    records = [{"town": "Ulm", "age": None, "is_new": True, "id": 7}]
    assert ask({"dataframe_records": records}, app).json() == {"predictions": ["Ulm"]}


def test_probes_answer_a_line_feed_and_follow_readiness() -> None:
    for path in ("/ping", "/health"):
        response = call(make_app(), "GET", path)
        assert (response.status_code, response.text) == (200, "\n")
        starting = call(make_app(status=make_status(has_started=False)), "GET", path)
        assert (starting.status_code, starting.text) == (503, "\n")
    assert call(make_app(), "GET", "/version").text == "0"
    refused = call(make_app(security={"read_token": "t" * 20}), "GET", "/version")
    assert (refused.status_code, refused.json()["error_code"]) == (401, "UNAUTHENTICATED")


def test_the_framework_finds_the_routes_too() -> None:
    """Under a mount point requests take the long way, through the router."""

    async def scenario() -> None:
        app = app_ab()
        app.root_path = "/under"
        async with make_client(app) as client:
            for path, body in (
                ("/v1/models/iris:predict", {"instances": [[1, 2]]}),
                ("/invocations", {"inputs": [[1, 2]]}),
            ):
                response = await client.post("/under" + path, json=body)
                assert response.json() == {"predictions": [12.0]}

    run(scenario())


@pytest.mark.parametrize("path", ["/invocations", "/models/iris/invocations"])
def test_scoring_takes_the_short_way_in_every_form(path: str) -> None:
    assert path.endswith(PREDICTION_ENDS)
    app = app_with(Immediate())
    for media_type, body in (
        (b"application/json", orjson.dumps({"inputs": [ROW]})),
        (b"text/csv", b"5.1,3.5,1.4,0.2\n"),
    ):
        found = app.state.services.shortcut.respond(path, {b"content-type": media_type}, body)
        assert found is not None
        assert orjson.loads(found[1]) == {"predictions": [0]}
