"""Predictions of the Open Inference Protocol over REST: what is read, what is written, how it is refused."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import numpy as np
import orjson
import pytest
from fastapi import FastAPI
from httpx import Response
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.domain.errors import ModelFailed, Overloaded
from serving.domain.signature import Method
from serving.plane.active_reference import ActiveReference
from serving.rows.batch import Batch
from tests.fakes import MIXED, FakeEngine, call, echo, make_app, make_reference, make_servable, make_status

ROWS = [5.1, 3.5, 1.4, 0.2, 6.2, 2.9, 4.3, 1.3]
INPUT = {"name": "input", "shape": [2, 4], "datatype": "FP64", "data": ROWS}
INFER = "/v2/models/iris/infer"


def infer(body: Any, app: FastAPI | None = None, *, path: str = INFER, **headers: str) -> Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return call(app or make_app(), "POST", path, content=content, headers=sent)


def binary(document: Any, *blobs: bytes, **headers: str) -> Response:
    head = orjson.dumps(document)
    return infer(b"".join([head, *blobs]), None, **{"inference_header_content_length": str(len(head)), **headers})


def test_an_answer_names_the_version_and_echoes_the_id() -> None:
    response = infer({"id": "7", "inputs": [INPUT]}, path="/v2/models/iris/versions/3/infer")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert (response.headers["x-model-name"], response.headers["x-model-version"]) == ("iris", "3")
    outputs = [{"name": "predict", "datatype": "INT64", "shape": [2], "data": [0, 1]}]
    assert response.json() == {"model_name": "iris", "model_version": "3", "id": "7", "outputs": outputs}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"datatype": "FP32"},
        {"datatype": "FP32", "data": [0.8, 1.75, 0.1, 0.8 + 1e-9]},
        {"data": [[5, 3, 1, 0]]},
        {"name": "x0"},
        {"shape": [1, 3], "data": [1, 2, 3]},
        {"shape": [True, 4]},
        {"shape": [4]},
        {"shape": [2, 2]},
        {"data": [1, 2, 3, None]},
        {"data": [1, 2, 3, True]},
        {"data": [1, 2, 3, "4"]},
        {"data": [1, 2, 3, 2**64 - 1]},
        {"datatype": "FP32", "data": [1, 2, 3, 1e39]},
        {"data": [1, 2, 3]},
        {"datatype": "INT8", "data": [1, 2, 3, 4]},
    ],
)
def test_a_single_row_is_answered_alike_whichever_way_it_is_read(change: dict[str, Any]) -> None:
    entry = {"name": "a", "shape": [1, 4], "datatype": "FP64", "data": ROWS[:4]} | change
    engines = [FakeEngine(), FakeEngine()]
    bodies = ({"id": "1", "inputs": [entry]}, {"id": "1", "inputs": [entry], "outputs": []})
    answers = [
        infer(body, make_app(make_reference(iris=make_servable("iris", "3", engine))))
        for engine, body in zip(engines, bodies, strict=True)
    ]
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].json() == answers[1].json()
    one, other = ([batch.matrix.tolist() for batch in engine.batches if batch.matrix is not None] for engine in engines)
    assert one == other


def test_an_id_is_made_where_there_is_none() -> None:
    app = make_app()
    ids = {infer({"inputs": [INPUT]}, app).json()["id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(ids)


def test_nested_data_and_one_tensor_for_each_feature_are_the_same_rows() -> None:
    nested = INPUT | {"data": [ROWS[:4], ROWS[4:]]}
    columns = [
        {"name": f"x{place}", "shape": [2, 1], "datatype": "FP64", "data": ROWS[place::4]} for place in (2, 0, 3, 1)
    ]
    answers = [infer({"inputs": inputs}).json()["outputs"] for inputs in ([INPUT], [nested], columns)]
    assert answers[0] == answers[1] == answers[2]


def test_several_outputs_are_computed_from_the_same_rows_by_one_version() -> None:
    engine = FakeEngine()
    app = make_app(make_reference(iris=make_servable("iris", "3", engine)))
    asked = [{"name": "predict_proba"}, {"name": "predict"}]
    outputs = infer({"inputs": [INPUT], "outputs": asked}, app).json()["outputs"]
    assert [output["name"] for output in outputs] == ["predict_proba", "predict"]
    assert outputs[0]["shape"] == [2, 3]
    assert outputs[1]["data"] == [0, 1]
    assert len(engine.batches) == 2
    assert engine.batches[0] is engine.batches[1]


def test_a_swap_between_two_outputs_changes_nothing() -> None:
    app = make_app()

    def swapping(method: Method, batch: Batch) -> Any:
        app.state.active = make_reference(iris=make_servable("iris", "4"))
        return np.full(batch.rows, len(method))

    app.state.active = make_reference(iris=make_servable("iris", "3", FakeEngine(swapping)))
    asked = [{"name": "predict"}, {"name": "predict_proba"}]
    answer = infer({"inputs": [INPUT], "outputs": asked}, app).json()
    assert answer["model_version"] == "3"
    assert [output["data"] for output in answer["outputs"]] == [[7, 7], [13, 13]]


def test_binary_tensors_go_both_ways() -> None:
    blob = np.array(ROWS, np.float32).tobytes()
    entry = {"name": "a", "shape": [2, 4], "datatype": "FP32", "parameters": {"binary_data_size": len(blob)}}
    asked = [{"name": "predict", "parameters": {"binary_data": True}}, {"name": "predict_proba"}]
    response = binary({"inputs": [entry], "outputs": asked}, blob, content_type="application/octet-stream")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/octet-stream")
    length = int(response.headers["inference-header-content-length"])
    first, second = orjson.loads(response.content[:length])["outputs"]
    assert (first["parameters"], "data" in first) == ({"binary_data_size": 16}, False)
    assert np.frombuffer(response.content[length:], np.int64).tolist() == [0, 1]
    assert len(second["data"]) == 6


def test_all_outputs_are_binary_when_the_request_says_so_and_an_output_may_differ() -> None:
    body: dict[str, Any] = {"inputs": [INPUT], "parameters": {"binary_data_output": True}}
    assert "inference-header-content-length" in infer(body).headers
    body["outputs"] = [{"name": "predict"}, {"name": "predict_proba"}]
    response = infer(body)
    blobs = response.content[int(response.headers["inference-header-content-length"]) :]
    assert np.frombuffer(blobs[:16], np.int64).tolist() == [0, 1]
    assert np.frombuffer(blobs[16:]).tolist() == pytest.approx([0.98, 0.01, 0.01, 0.01, 0.98, 0.01])
    body["outputs"] = [{"name": "predict", "parameters": {"binary_data": False}}]
    assert "inference-header-content-length" not in infer(body).headers


def test_bools_texts_and_missing_values_reach_the_model() -> None:
    engine = FakeEngine(echo)
    app = make_app(make_reference(iris=make_servable("iris", "3", engine, MIXED)))
    inputs = [
        {"name": "town", "shape": [2], "datatype": "BYTES", "data": ["Köln", ""]},
        {"name": "is_new", "shape": [2], "datatype": "BOOL", "data": [True, False]},
        {"name": "age", "shape": [2], "datatype": "FP64", "data": [None, 3]},
    ]
    answer = infer({"inputs": inputs}, app)
    assert answer.json()["outputs"][0]["data"] == [None, 3.0]
    assert engine.batches[0].columns is not None
    assert engine.batches[0].columns[1] == ["Köln", ""]


def test_bodies_may_be_compressed() -> None:
    raw = orjson.dumps({"inputs": [INPUT]})
    for encoding, body in (("gzip", gzip.compress(raw)), ("deflate", zlib.compress(raw))):
        assert infer(body, content_encoding=encoding).status_code == 200
    assert infer(raw, content_encoding="br").status_code == 415


def test_what_nobody_here_knows_is_let_be() -> None:
    parameters = {"content_type": "np", "sequence_id": 4}
    entry = INPUT | {"parameters": {"content_type": "np"}, "more": 1}
    assert infer({"inputs": [entry], "parameters": parameters, "more": [], "outputs": []}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 100, 400, "nested deeper than 16"),
        ([], 400, "not an object"),
        ({}, 400, "'inputs' is empty"),
        ({"inputs": {}}, 400, "'inputs' is not an array of objects"),
        ({"inputs": [1]}, 400, "'inputs' is not an array of objects"),
        ({"inputs": [{}]}, 400, "needs a name"),
        ({"inputs": [INPUT], "id": 1}, 400, "'id' is not a string"),
        (b'{"id": "\\ud800", "inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": [NaN]}]}', 400, "'id'"),
        ({"inputs": [INPUT], "parameters": 1}, 400, "'parameters' is not an object"),
        ({"inputs": [{k: v for k, v in INPUT.items() if k != "data"}]}, 400, "no binary_data_size"),
        ({"inputs": [INPUT], "outputs": [{"name": "transform"}]}, 400, "predict, predict_proba"),
        ({"inputs": [INPUT], "outputs": [{"name": "predict"}, {"name": "transform"}]}, 400, "'transform'"),
        ({"inputs": [INPUT], "outputs": [{"name": "predict"}] * 2}, 400, "asked for twice"),
        ({"inputs": [INPUT], "outputs": [{"name": str(place)} for place in range(9)]}, 400, "more than 6 outputs"),
        ({"inputs": [INPUT], "outputs": [{}]}, 400, "an output needs a name"),
        (b'{"inputs": [{"name": "a", "shape": [1, 4], "datatype": "FP64", "data": [1, 2, NaN, 4]}]}', 400, "'x2'"),
        (b'{"inputs": [{"name": "a", "shape": [1, 4], "datatype": "FP64", "data": [1, 1e999, 3, 4]}]}', 400, "'x1'"),
        ({"inputs": [INPUT | {"shape": [10**12, 0], "data": []}]}, 400, "expected [rows, 4]"),
    ],
)
def test_what_is_wrong_is_said_in_the_protocols_shape(body: Any, status: int, message: str) -> None:
    response = infer(body)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("size", "blob", "length", "message"),
    [
        (32, b"\0" * 31, None, "31 bytes of data are left"),
        (16, b"\0" * 32, None, "16 bytes of data, expected 32"),
        (32, b"\0" * 33, None, "1 bytes follow"),
        (True, b"\0" * 32, None, "binary_data_size is true"),
        (32, b"\0" * 32, "0", "Inference-Header-Content-Length"),
        (32, b"\0" * 32, "-1", "Inference-Header-Content-Length"),
        (32, b"\0" * 32, "9" * 30, "Inference-Header-Content-Length"),
        (32, b"\0" * 32, "5", "not JSON"),
    ],
)
def test_lengths_that_do_not_add_up_are_refused(size: Any, blob: bytes, length: str | None, message: str) -> None:
    entry = {"name": "a", "shape": [1, 4], "datatype": "FP64", "parameters": {"binary_data_size": size}}
    changed = {} if length is None else {"inference_header_content_length": length}
    response = binary({"inputs": [entry]}, blob, **changed)
    assert response.status_code == 400
    assert message in response.json()["error"]


@pytest.mark.parametrize("content_type", ["application/octet-stream", "application/x-www-form-urlencoded"])
def test_json_is_taken_by_the_names_clients_give_it(content_type: str) -> None:
    """The second is what curl says unless it is told otherwise."""
    assert infer({"inputs": [INPUT]}, content_type=content_type).status_code == 200
    refused = infer(b"inputs=1", content_type=content_type)
    assert (refused.status_code, "it looks like form data" in refused.json()["error"]) == (400, True)


def test_models_that_cannot_answer_have_their_statuses() -> None:
    assert infer({"inputs": [INPUT]}, path="/v2/models/irsi/infer").status_code == 404
    assert infer({"inputs": [INPUT]}, path="/v2/models/iris/versions/9/infer").status_code == 404
    assert infer(b"a,b", content_type="text/csv").status_code == 415
    starting = infer({"inputs": [INPUT]}, make_app(ActiveReference(), make_status(has_started=False)))
    assert (starting.status_code, starting.headers["retry-after"]) == (503, "1")
    assert infer({"inputs": [INPUT]}, make_app(server={"max_rows": 1})).status_code == 413
    for error, status in ((ModelFailed("ValueError: bad luck"), 500), (Overloaded("many"), 503)):
        engine = FakeEngine()
        engine.error = error
        response = infer({"inputs": [INPUT]}, make_app(make_reference(iris=make_servable("iris", "3", engine))))
        assert (response.status_code, response.json()) == (status, {"error": str(error)})
        assert response.headers["x-model-version"] == "3"


def test_a_large_body_is_answered_like_a_small_one() -> None:
    rows = 20_000
    body = {"inputs": [INPUT | {"shape": [rows, 4], "data": ROWS[:4] * rows}], "outputs": [{"name": "predict_proba"}]}
    (output,) = infer(body).json()["outputs"]
    assert output["shape"] == [rows, 3]
    assert output["data"] == pytest.approx([0.98, 0.01, 0.01] * rows)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "x0", "x1"]) | JSON,
        "shape": st.lists(st.integers(0, 4), max_size=3) | JSON,
        "datatype": st.sampled_from(["FP64", "FP16", "INT8", "BOOL", "BYTES"]) | JSON,
    },
    optional={
        "data": st.lists(st.floats() | st.integers() | st.text(max_size=2), max_size=8) | JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(0, 40)}) | JSON,
    },
)


@given(inputs=st.lists(ENTRY, max_size=4), blob=st.binary(max_size=40), is_binary=st.booleans())
@settings(max_examples=60)
def test_no_body_is_more_than_refused(inputs: list[Any], blob: bytes, is_binary: bool) -> None:
    try:
        head = orjson.dumps({"inputs": inputs})
    except TypeError:  # integers beyond 64 bits, halves of surrogate pairs
        return
    headers = {"inference_header_content_length": str(len(head))} if is_binary else {}
    response = infer(head + blob * is_binary, None, **headers)
    assert response.status_code in (200, 400)
