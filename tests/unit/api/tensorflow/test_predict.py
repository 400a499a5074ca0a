"""TensorFlow Serving's predict, classify and regress: their bodies in, their answers out."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from serving.api.json_bodies.cutter import LARGE_BYTES
from serving.api.paths import PREDICTION_ENDS, prediction_of
from serving.domain.signature import Feature, ModelKind, Signature
from serving.plane.active_reference import ActiveReference
from tests.fakes import (
    MIXED,
    TEXTS,
    FakeEngine,
    Rule,
    call,
    echo,
    iris,
    make_app,
    make_model_reference,
    make_reference,
    make_servable,
    predict,
)
from tests.unit.api.test_shortcut import Immediate, app_with

ROW = [5.1, 3.5, 1.4, 0.2]
NAMED = {"x3": 0.2, "x0": 5.1, "x1": 3.5, "x2": 1.4}
ONE = Signature(features=(Feature(name="x", nullable=True),), methods=("predict",), kind=ModelKind.REGRESSOR)


def app_of(signature: Signature, rule: Rule = echo) -> Any:
    return make_app(make_reference(iris=make_servable("iris", "3", FakeEngine(rule), signature)))


def ask(body: Any, verb: str = "predict", app: Any = None, where: str = "") -> Any:
    return predict(app or make_app(), body, f"/v1/models/iris{where}:{verb}")


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"instances": [ROW, ROW]}, {"predictions": [0, 0]}),
        ({"instances": [NAMED]}, {"predictions": [0]}),
        ({"instances": [{name: [value] for name, value in NAMED.items()}]}, {"predictions": [0]}),
        ({"inputs": [ROW]}, {"outputs": [0]}),
        ({"inputs": {name: [value, 2.0] for name, value in NAMED.items()}}, {"outputs": [0, 2]}),
        ({"inputs": {name: [[value]] for name, value in NAMED.items()}}, {"outputs": [0]}),
        ({"instances": [ROW], "signature_name": "serving_default"}, {"predictions": [0]}),
        ({"instances": [ROW], "signature_name": "predict_proba"}, {"predictions": [[0.98, 0.01, 0.01]]}),
        ({"instances": [ROW], "whatever": 1}, {"predictions": [0]}),
    ],
)
def test_rows_come_in_two_layouts_and_each_has_its_answer(body: Any, answer: Any) -> None:
    response = ask(body)
    assert (response.status_code, response.json()) == (200, answer)
    assert (response.headers["x-model-name"], response.headers["x-model-version"]) == ("iris", "3")


def test_what_curl_sends_by_itself_is_read() -> None:
    response = call(
        make_app(), "POST", "/v1/models/iris:predict", data={orjson.dumps({"instances": [ROW]}).decode(): ""}
    )
    assert response.status_code == 400  # a form in earnest is no JSON ...
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = orjson.dumps({"instances": [ROW]})
    assert call(make_app(), "POST", "/v1/models/iris:predict", content=body, headers=headers).status_code == 200


def test_scalars_are_rows_of_a_model_of_one_feature_and_nan_is_missing_where_it_may_be() -> None:
    app = app_of(ONE, lambda _, batch: np.nan_to_num(batch.matrix[:, 0] / 2 + 3))  # type: ignore[index]
    assert ask({"instances": [1.0, 2.0, 5.0]}, app=app).json() == {"predictions": [3.5, 4.0, 5.5]}
    assert ask(b'{"instances": [1.0, NaN]}', app=app).json() == {"predictions": [3.5, 0.0]}
    assert ask(b'{"instances": [{"x": NaN}]}', app=app).json() == {"predictions": [0.0]}
    assert ask({"examples": [{"x": 1.0}, {"x": [2.0]}]}, "regress", app).json() == {"results": [3.5, 4.0]}


def test_text_may_come_as_base64() -> None:
    app = app_of(TEXTS, lambda _, batch: [text.upper() for text in batch.columns[0]])  # type: ignore[index]
    body = {"instances": [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]}
    assert ask(body, app=app).json() == {"predictions": ["HELLO", "WORLD"]}
    assert ask({"instances": [{"text": {"b64": "aGVsbG8="}}]}, app=app).json() == {"predictions": ["HELLO"]}
    assert "base64" in ask({"instances": [{"b64": "%"}]}, app=app).json()["error"]


def test_classify_gives_a_label_and_a_score_for_each_class() -> None:
    body = {"examples": [{"x0": 5.1, "x1": 3.5}], "context": {"x2": 1.4, "x3": 0.2}}
    assert ask(body, "classify").json() == {"results": [[["0", 0.98], ["1", 0.01], ["2", 0.01]]]}
    body["signature_name"] = "tensorflow/serving/classify"
    assert ask(body, "classify").status_code == 200


@pytest.mark.parametrize(
    ("verb", "body", "said"),
    [
        ("predict", {"instances": [ROW], "inputs": [ROW]}, "both"),
        ("predict", {}, "no rows"),
        ("predict", {"instances": "abc"}, "not an array"),
        ("predict", {"instances": 3}, "not an array"),
        ("predict", {"inputs": {}}, "no columns"),
        ("predict", {"inputs": {"x0": [1], "x1": [1, 2]}}, "'x1' has 2"),
        ("predict", {"inputs": {"x0": 1}}, "'x0' is not an array"),
        ("predict", {"instances": [[1, 2]]}, "the model takes 4"),
        ("predict", b'{"instances": [[1, NaN, 1, 1]]}', "NaN is not a finite number"),
        ("predict", b"[1]", "the body is an array"),
        ("predict", b'{"instances": [[1', "not JSON"),
        ("predict", {"instances": [ROW], "signature_name": "fly"}, "'fly'"),
        ("predict", {"instances": [ROW], "signature_name": 1}, "signature_name"),
        ("predict", {"instances": [{}]}, "missing"),
        ("classify", {"examples": [ROW]}, "not an object"),
        ("classify", {"instances": [ROW]}, "examples"),
        ("classify", {"examples": [NAMED], "context": {"x0": 1}}, "'x0' is in 'context'"),
        ("classify", {"examples": [NAMED], "context": []}, "context"),
        ("classify", {"examples": [NAMED], "signature_name": "predict"}, "predict_proba"),
        ("regress", {"examples": [NAMED]}, ":classify"),
    ],
)
def test_what_cannot_be_answered_is_400_with_a_reason(verb: str, body: Any, said: str) -> None:
    response = ask(body, verb)
    assert response.status_code == 400
    assert set(response.json()) == {"error"}
    assert said in response.json()["error"]


def test_a_model_without_scores_is_not_asked_to_classify() -> None:
    assert ask({"examples": [{"x": 1}]}, "classify", app_of(ONE)).status_code == 400
    assert ask({"instances": [[1, "a", True]]}, app=app_of(MIXED)).json() == {"predictions": [1.0]}


def test_errors_have_the_protocols_shape_and_status() -> None:
    missing = predict(make_app(), {"instances": [ROW]}, "/v1/models/irsi:predict")
    assert (missing.status_code, set(missing.json())) == (404, {"error"})
    version = ask({"instances": [ROW]}, where="/versions/9")
    assert (version.status_code, set(version.json())) == (404, {"error"})
    closed = ask({"instances": [ROW]}, app=make_app(security={"predict_token": "t" * 20}))
    assert (closed.status_code, closed.headers["www-authenticate"]) == (401, "Bearer")
    assert set(closed.json()) == {"error"}


def test_labels_name_the_active_version_and_the_one_before_it() -> None:
    app = make_app()
    assert ask({"instances": [ROW]}, app=app, where="/labels/stable").headers["x-model-version"] == "3"
    assert ask({"instances": [ROW]}, app=app, where="/labels/3").headers["x-model-version"] == "3"
    assert ask({"instances": [ROW]}, app=app, where="/labels/canary").status_code == 404
    nothing = ask({"instances": [ROW]}, app=app, where="/labels/previous")
    assert (nothing.status_code, nothing.json()["error"][:10]) == (404, "no version")


def test_a_label_that_an_operator_has_set_comes_first() -> None:
    two, three = make_servable("iris", "2"), make_servable("iris", "3")
    app = make_app(ActiveReference({"iris": make_model_reference(three, two, stable=two, next=None)}))
    for verb in ("predict", "classify"):
        body = {"instances": [ROW]} if verb == "predict" else {"examples": [NAMED]}
        assert ask(body, verb, app=app, where="/labels/stable").headers["x-model-version"] == "2"
    coming = ask({"instances": [ROW]}, app=app, where="/labels/next")
    assert (coming.status_code, "not loaded" in coming.json()["error"]) == (503, True)
    unknown = ask({"instances": [ROW]}, app=app, where="/labels/canary")
    assert unknown.json() == {"error": "'iris' has no label 'canary' (it has: stable, next)"}
    assert call(app, "GET", "/v1/models/iris/labels/stable").status_code == 200


@pytest.mark.parametrize("key", ["instances", "inputs"])
@pytest.mark.parametrize("extra", [{}, {"signature_name": "predict"}])
def test_large_bodies_are_read_in_pieces(key: str, extra: dict[str, str]) -> None:
    rows = [[float(index % 7), 3.5, 1.4, index % 2 * 2.0] for index in range(20_000)]
    raw = orjson.dumps({**extra, key: rows})
    assert len(raw) > LARGE_BYTES
    answer = ask(raw, app=app_of(make_servable("iris", "3").signature, iris))
    assert next(iter(answer.json().values())) == [index % 2 * 2 for index in range(20_000)]


def test_large_examples_are_objects_like_small_ones() -> None:
    raw = orjson.dumps({"examples": [ROW] * 20_000})
    assert len(raw) > LARGE_BYTES
    for body in (raw, {"examples": [ROW]}):
        assert "row 0 is not an object" in ask(body, "classify").json()["error"]


@pytest.mark.parametrize("where", ["", "/versions/3", "/labels/stable", "/labels/3"])
def test_predictions_take_the_short_way(where: str) -> None:
    app = app_with(Immediate())
    assert f"/v1/models/iris{where}:predict".endswith(PREDICTION_ENDS)
    found = app.state.services.shortcut.respond(
        f"/v1/models/iris{where}:predict", {}, orjson.dumps({"instances": [ROW]})
    )
    assert found is not None
    assert (orjson.loads(found[1]), b"x-model-version: 3" in found[0]) == ({"predictions": [0]}, True)


@pytest.mark.parametrize(
    "path", ["/v1/models/iris:fly", "/v1/models/:predict", "/v1/models/a/b:predict", "/models/iris:predict"]
)
def test_what_is_no_prediction_has_no_dialect(path: str) -> None:
    assert prediction_of(path) is None
