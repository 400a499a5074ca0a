"""A prediction over HTTP: what comes back, and who computed it."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import orjson
import pytest
from fastapi import FastAPI

from serving.api.json_bodies.cutter import LARGE_BYTES
from serving.domain.errors import DeadlineExceeded, HostLost, ModelFailed
from serving.plane.active_reference import ActiveReference
from serving.plane.servable import Servable
from tests.fakes import (
    MIXED,
    TEXTS,
    FakeEngine,
    Rule,
    call,
    echo,
    exchange,
    make_app,
    make_client,
    make_model_reference,
    make_model_status,
    make_reference,
    make_servable,
    make_services,
    make_status,
    part,
    predict,
    run,
)

ROW = [5.1, 3.5, 1.4, 0.2]
ROWS = [ROW, [6.2, 2.9, 4.3, 1.3]]


def app_answering(rule: Rule) -> FastAPI:
    return make_app(make_reference(iris=make_servable("iris", "3", FakeEngine(rule))))


def test_rows_are_answered_in_order_by_the_active_version_and_the_answer_names_it() -> None:
    response = predict(make_app(), {"instances": ROWS})
    assert response.status_code == 200
    assert response.json() == {"model": "iris", "version": "3", "predictions": [0, 1]}
    assert response.headers["content-type"] == "application/json"
    assert (response.headers["x-model-name"], response.headers["x-model-version"]) == ("iris", "3")
    assert response.headers["x-request-id"]


def test_rows_may_be_objects_in_any_order() -> None:
    rows = [{"x3": 1.3, "x0": 6.2, "x1": 2.9, "x2": 4.3}]
    assert predict(make_app(), {"instances": rows}).json()["predictions"] == [1]


def test_one_row_is_answered_with_one_prediction() -> None:
    assert predict(make_app(), {"input": ROW}).json() == {"model": "iris", "version": "3", "prediction": 0}
    probabilities = predict(make_app(), {"input": ROW, "method": "predict_proba"}).json()
    assert probabilities["prediction"] == pytest.approx([0.98, 0.01, 0.01])


def test_a_method_is_asked_for_by_name_and_null_means_the_default_one() -> None:
    assert len(predict(make_app(), {"instances": ROWS, "method": "predict_proba"}).json()["predictions"][0]) == 3
    assert predict(make_app(), {"instances": ROWS, "method": None}).json()["predictions"] == [0, 1]


def test_a_method_the_model_does_not_offer_is_refused_with_those_it_does() -> None:
    response = predict(make_app(), {"instances": ROWS, "method": "transform"})
    assert response.status_code == 422
    assert "'transform'" in response.json()["detail"]
    assert "predict, predict_proba" in response.json()["detail"]


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        (np.array([[1.5, np.nan], [np.inf, -np.inf]]), [[1.5, None], [None, None]]),
        (np.array([0.1, 0.2], dtype=np.float32), [0.1, 0.2]),
        (np.array([True, False]), [True, False]),
        (np.arange(6, dtype=np.int32).reshape(3, 2).T, [[0, 2, 4], [1, 3, 5]]),
        (["setosa", "ä\u2028"], ["setosa", "ä\u2028"]),
        ([None, 7], [None, 7]),
        ((np.array([[0.5, 0.5], [1, 0]]), np.array([[1.0], [2.0]])), [[[0.5, 0.5], [1.0]], [[1.0, 0.0], [2.0]]]),
    ],
    ids=["not finite", "float32", "bools", "not contiguous", "texts", "nulls", "several outputs"],
)
def test_every_kind_of_answer_has_a_form_in_json(tensors: Any, expected: Any) -> None:
    app = app_answering(lambda _method, _batch: tensors)
    assert predict(app, {"instances": ROWS}).json()["predictions"] == expected


@pytest.mark.parametrize("rows", [9_000, 30_000])
def test_an_answer_with_many_rows_is_the_same_as_with_few(rows: int) -> None:
    values = np.arange(rows * 3, dtype=np.float64).reshape(rows, 3)
    app = app_answering(lambda _method, batch: values[: batch.rows])
    assert predict(app, {"instances": [ROW] * rows}).json()["predictions"] == values.tolist()
    app = app_answering(lambda _method, batch: ["a"] * batch.rows)
    assert predict(app, {"instances": [ROW] * rows}).json()["predictions"] == ["a"] * rows


def test_an_answer_json_has_no_form_for_is_the_models_failure() -> None:
    response = predict(app_answering(lambda _method, batch: [object()] * batch.rows), {"instances": ROWS})
    assert response.status_code == 500
    assert response.json()["title"] == "The model failed"


def test_texts_and_mixed_rows_reach_the_model_as_they_are() -> None:
    app = make_app(
        make_reference(
            texts=make_servable("texts", "1", FakeEngine(echo), TEXTS),
            mixed=make_servable("mixed", "1", FakeEngine(lambda _method, batch: batch.columns[1]), MIXED),  # type: ignore[index]
        )
    )
    assert (
        predict(app, {"input": 'a "quoted" \\ text'}, "/models/texts/predict").json()["prediction"].startswith('a "q')
    )
    rows = [[None, "Köln", True], {"is_new": None, "town": 'B"n', "age": 3}]
    assert predict(app, {"instances": rows[:1]}, "/models/mixed/predict").json()["predictions"] == ["Köln"]
    assert predict(app, {"instances": rows[1:]}, "/models/mixed/predict").json()["predictions"] == ['B"n']


# --- which version answers --------------------------------------------------------------------------------------------


def two_versions() -> tuple[FastAPI, Servable, Servable]:
    old, new = make_servable("iris", "2"), make_servable("iris", "3")
    return make_app(ActiveReference({"iris": make_model_reference(new, old)})), old, new


def test_a_version_that_is_loaded_can_be_asked_by_name() -> None:
    app, _, _ = two_versions()
    assert predict(app, {"input": ROW}, "/models/iris/versions/2/predict").json()["version"] == "2"
    assert predict(app, {"input": ROW}, "/models/iris/versions/3/predict").json()["version"] == "3"


def test_a_version_that_is_not_loaded_is_404_and_those_that_are_are_named() -> None:
    app, _, _ = two_versions()
    response = predict(app, {"input": ROW}, "/models/iris/versions/1/predict")
    assert response.status_code == 404
    assert (response.json()["model"], response.json()["version"]) == ("iris", "1")
    assert "2, 3" in response.json()["detail"]


def test_the_default_model_is_the_only_one() -> None:
    assert predict(make_app(), {"input": ROW}, "/predict").json()["model"] == "iris"


def test_the_default_model_is_the_one_that_is_set() -> None:
    reference = make_reference(iris=make_servable("iris", "3"), wine=make_servable("wine", "1"))
    app = make_app(reference, server={"default_model": "wine"})
    assert predict(app, {"input": ROW}, "/predict").json()["model"] == "wine"


def test_without_a_default_model_the_choice_is_explained() -> None:
    reference = make_reference(iris=make_servable("iris", "3"), wine=make_servable("wine", "1"))
    response = predict(make_app(reference), {"input": ROW}, "/predict")
    assert response.status_code == 404
    assert "2 models (iris, wine)" in response.json()["detail"]
    assert "server.default_model" in response.json()["detail"]


def test_a_swap_under_a_request_changes_nothing_for_it() -> None:
    """Invariants 1 and 4: the answer comes from the version it names, which stays until it has been given."""
    app, _, new = two_versions()
    engine = new.engine
    assert isinstance(engine, FakeEngine)

    async def scenario() -> tuple[dict[str, Any], dict[str, Any], int]:
        engine.gate = asyncio.Event()
        async with make_client(app) as client:
            first = asyncio.create_task(client.post("/models/iris/predict", json={"input": ROW}))
            while not engine.batches:
                await asyncio.sleep(0)
            app.state.active = make_reference(iris=make_servable("iris", "4"))
            second = await client.post("/models/iris/predict", json={"input": ROW})
            drained = asyncio.create_task(new.drain())
            await asyncio.sleep(0)
            assert not drained.done()
            engine.gate.set()
            before = (await first).json()
            await drained
            return before, second.json(), new.leases

    before, after, leases = run(scenario())
    assert (before["version"], after["version"], leases) == ("3", "4", 0)


class CountingState:
    """Passes for ``app.state`` and counts how often the active reference is read."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        self.reads += name == "active"
        return getattr(self._state, name)


@pytest.mark.parametrize("path", ["/models/iris/predict", "/models/iris/versions/3/predict", "/predict"])
def test_a_request_reads_the_active_reference_exactly_once(path: str) -> None:
    app = make_app()
    settings = app.state.services.settings
    app.state = counting = CountingState(app.state)  # type: ignore[assignment]
    counting.services = make_services(app, settings)
    assert predict(app, {"input": ROW}, path).status_code == 200
    assert counting.reads == 1


# --- when it does not work --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        (ModelFailed("ValueError: bad luck"), 500, "The model failed"),
        (DeadlineExceeded("no answer within 30 s"), 504, "The model did not answer in time"),
        (HostLost("the host died twice"), 503, "Nothing can answer right now"),
        (ZeroDivisionError("secret"), 500, "The server failed"),
    ],
)
def test_a_failure_names_the_version_that_failed_and_gives_the_lease_back(
    error: Exception, status: int, title: str
) -> None:
    engine = FakeEngine()
    engine.error = error
    servable = make_servable("iris", "3", engine)
    response = predict(make_app(make_reference(iris=servable)), {"input": ROW})
    assert (response.status_code, response.json()["title"]) == (status, title)
    assert response.headers["content-type"] == "application/problem+json"
    assert "secret" not in response.text
    assert (response.headers["x-model-name"], response.headers["x-model-version"]) == ("iris", "3")
    assert servable.leases == 0
    if status == 503:
        assert response.headers["retry-after"] == "1"


def test_rows_that_do_not_fit_name_the_row_the_feature_and_the_version() -> None:
    response = predict(make_app(), {"instances": [ROW, [1, 2, "3", 4]]})
    assert response.status_code == 422
    problem = response.json()
    assert problem["detail"].startswith("row 1, feature 'x2': expected a number")
    assert (problem["model"], problem["version"]) == ("iris", "3")
    assert response.headers["x-model-version"] == "3"


def test_more_requests_than_the_queue_holds_are_503_and_are_told_when_to_come_back() -> None:
    engine = FakeEngine()
    servable = make_servable("iris", "3", engine)
    app = make_app(make_reference(iris=servable), server={"max_queue": 2})

    async def scenario() -> list[int]:
        engine.gate = asyncio.Event()
        async with make_client(app) as client:
            held = [asyncio.create_task(client.post("/models/iris/predict", json={"input": ROW})) for _ in range(2)]
            while servable.leases < 2:
                await asyncio.sleep(0)
            refused = await client.post("/models/iris/predict", json={"input": ROW})
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["type"] == "urn:serving:problem:overloaded"
            engine.gate.set()
            return [refused.status_code, *[(await one).status_code for one in held], servable.leases]

    assert run(scenario()) == [503, 200, 200, 0]


def test_too_many_rows_are_413_and_the_setting_is_what_counts() -> None:
    app = make_app(server={"max_rows": 2})
    assert predict(app, {"instances": ROWS}).status_code == 200
    response = predict(app, {"instances": [*ROWS, ROW]})
    assert response.status_code == 413
    assert response.json()["detail"].startswith("3 rows in one request, at most 2")


def test_the_deadline_of_the_settings_reaches_the_engine() -> None:
    engine = FakeEngine()
    predict(
        make_app(make_reference(iris=make_servable("iris", "3", engine)), server={"predict_seconds": 2.5}),
        {"input": ROW},
    )
    assert engine.deadline_seconds == 2.5


def test_an_unknown_model_is_404_once_the_service_has_started_and_503_before() -> None:
    response = predict(make_app(), {"input": ROW}, "/models/nope/predict")
    assert (response.status_code, response.json()["type"]) == (404, "urn:serving:problem:unknown-model")
    assert response.json()["model"] == "nope"
    starting = make_app(ActiveReference(), make_status(has_started=False))
    response = predict(starting, {"input": ROW}, "/models/iris/predict")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "starting" in response.json()["detail"]


@pytest.mark.parametrize("reference", [ActiveReference(), make_reference(iris=None)], ids=["no reference", "empty"])
def test_a_model_without_an_active_version_is_503_and_says_where_to_look(reference: ActiveReference) -> None:
    app = make_app(reference, make_status(make_model_status(active=None)))
    response = predict(app, {"input": ROW})
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "GET /models/iris" in response.json()["detail"]


def test_without_any_model_the_default_one_is_503() -> None:
    assert predict(make_app(ActiveReference()), {"input": ROW}, "/predict").status_code == 503


@pytest.mark.parametrize("name", ["..", ".", "\x00", "x" * 300, "a\r\nb", "\ufffd", 'na"me', "\U0001f600", "iris "])
def test_names_that_are_no_names_are_404_in_valid_json(name: str) -> None:
    for path in (f"/models/{name}/predict", f"/models/iris/versions/{name}/predict"):
        answer = run(exchange(make_app(), part(orjson.dumps({"input": ROW}), is_last=True), path=path))
        assert (answer.status, answer.document["status"]) == (404, 404)
        assert not any(name.encode() in value for _, value in answer.messages[0]["headers"])


def test_the_route_of_the_framework_and_the_short_way_end_at_the_same_answer() -> None:
    """Under a mount point a request goes through FastAPI's routing instead."""
    outer = FastAPI()
    inner = make_app()
    outer.mount("/ml", inner)
    response = call(outer, "POST", "/ml/models/iris/versions/3/predict", json={"input": ROW})
    assert response.json() == {"model": "iris", "version": "3", "prediction": 0}
    assert len(response.headers.get_list("x-request-id")) == 1
    assert call(outer, "POST", "/ml/models/iris/predict", content="[").status_code == 400
    assert call(outer, "POST", "/ml/predict", json={"input": ROW}).json()["version"] == "3"


def test_a_mount_point_that_looks_like_one_of_our_paths_is_none() -> None:
    outer = FastAPI()
    outer.mount("/models/iris", make_app(make_reference(wine=make_servable("wine", "1"))))
    assert call(outer, "POST", "/models/iris/predict", json={"input": ROW}).json()["model"] == "wine"


def test_a_request_that_is_traced_takes_the_long_way_so_that_its_route_is_known() -> None:
    app = make_app()

    async def routed(**more: Any) -> bool:
        body, sent = orjson.dumps({"input": ROW}), []
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [], "query_string": b"", **more}

        async def receive() -> Any:
            return part(body, is_last=True)

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        assert sent[0]["status"] == 200
        return "route" in scope

    assert run(routed(**{"fastapi.telemetry": None}))
    assert not run(routed())


@pytest.mark.parametrize("padding", [0, LARGE_BYTES])
def test_a_body_that_cannot_be_read_is_refused_in_the_name_of_who_would_have_answered(padding: int) -> None:
    body = b"[" + b" " * padding
    app = make_app()
    refused = predict(app, body)
    assert (refused.status_code, refused.json()["version"]) == (400, "3")
    assert refused.headers["x-model-version"] == "3"
    assert predict(app, body, "/models/nope/predict").status_code == 404


def test_requests_are_counted_by_version_and_status() -> None:
    app = make_app()
    predict(app, {"instances": ROWS})
    predict(app, {"instances": [[1]]})
    predict(app, {"input": ROW}, "/models/nope/predict")
    predict(app, b"[")
    text = call(app, "GET", "/metrics").text
    assert 'serving_requests_total{model="iris",status="200",version="3"} 1.0' in text
    assert 'serving_requests_total{model="iris",status="422",version="3"} 1.0' in text
    assert 'serving_requests_total{model="",status="404",version=""} 1.0' in text
    assert 'serving_requests_total{model="iris",status="400",version="3"} 1.0' in text
    assert 'serving_rows_total{model="iris",version="3"} 2.0' in text
    assert "nope" not in text
