"""Request ids and the access log."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from serving.domain.errors import ModelFailed
from serving.settings import Settings
from serving.telemetry.logging import REQUEST_ID
from serving.telemetry.metrics import Metrics
from tests.fakes import FakeEngine, call, exchange, make_app, make_reference, make_servable, part, predict, run

ROW = {"input": [5.1, 3.5, 1.4, 0.2]}
PATHS = ["/models/iris/predict", "/models", "/nope"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("given", ["a", "A.b_c-9", "x" * 128])
def test_a_proper_request_id_is_kept(path: str, given: str) -> None:
    response = call(make_app(), "POST", path, json=ROW, headers={"x-request-id": given})
    assert response.headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("given", ["", " ", "x" * 129, "a b", "a\x00", "a;b", "ä", "a\n", '"'])
def test_any_other_request_id_is_replaced(path: str, given: str) -> None:
    answer = run(exchange(make_app(), part(b"", is_last=True), path=path, x_request_id=given))
    (found,) = [value.decode() for name, value in answer.messages[0]["headers"] if name == b"x-request-id"]
    assert found != given
    assert len(found) < 40


def test_request_ids_are_made_when_there_are_none_and_are_all_different() -> None:
    app = make_app()
    found = {predict(app, ROW).headers["x-request-id"] for _ in range(50)}
    assert len(found) == 50
    assert predict(make_app(), ROW).headers["x-request-id"].split("-")[0] not in {one.split("-")[0] for one in found}


def test_a_log_line_written_during_a_request_knows_its_id_and_none_after_it() -> None:
    seen: list[str | None] = []

    class Engine(FakeEngine):
        async def predict(self, *args: Any) -> Any:
            seen.append(REQUEST_ID.get())
            return await super().predict(*args)

    app = make_app(make_reference(iris=make_servable("iris", "3", Engine())))
    predict(app, ROW, **{"x-request-id": "mine"})
    assert seen == ["mine"]

    async def scenario() -> str | None:
        await exchange(app, part(b"{}", is_last=True))
        return REQUEST_ID.get()

    assert run(scenario()) is None


def access_lines(app: FastAPI, *bodies: Any) -> list[dict[str, Any]]:
    with capture_logs() as logs:
        for body in bodies:
            predict(app, body)
    return [dict(line) for line in logs if line["event"] == "request"]


def test_requests_that_go_well_are_logged_as_often_as_is_asked_for() -> None:
    assert access_lines(make_app(), *[ROW] * 50) == []
    lines = access_lines(make_app(log={"access_sample": 1.0}), *[ROW] * 50)
    assert len(lines) == 50
    assert lines[0]["method"] == "POST"
    assert (lines[0]["path"], lines[0]["status"], lines[0]["client"]) == ("/models/iris/predict", 200, "127.0.0.1")
    assert 0 <= lines[0]["duration_ms"] < 1000
    assert 5 < len(access_lines(make_app(log={"access_sample": 0.5}), *[ROW] * 100)) < 95


def test_requests_that_go_wrong_are_always_logged_and_loudly_when_it_is_our_fault() -> None:
    engine = FakeEngine()
    app = make_app(make_reference(iris=make_servable("iris", "3", engine)))
    (line,) = access_lines(app, b"[")
    assert (line["status"], line["log_level"]) == (400, "info")
    engine.error = ModelFailed("bad luck")
    (line,) = access_lines(app, ROW)
    assert (line["status"], line["log_level"]) == (500, "error")
    with capture_logs() as logs:
        call(app, "GET", "/nope/" + "x" * 5000)
    assert (logs[0]["status"], len(logs[0]["path"])) == (404, 200)


def test_a_client_that_has_gone_is_logged_as_such() -> None:
    with capture_logs() as logs:
        run(exchange(make_app(), {"type": "http.disconnect"}))
    assert [line["status"] for line in logs] == [499]


def test_an_answer_that_breaks_off_is_not_answered_twice() -> None:
    app = make_app()

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("secret")

    app.mount("/broken", broken)
    answer = run(exchange(app, path="/broken/x"))
    assert [message["type"] for message in answer.messages] == ["http.response.start"]


def test_settings_made_by_the_lifespan_count_and_so_do_those_of_the_next_one() -> None:
    generations = iter([{"max_rows": 1}, {"max_rows": 2}])
    app = make_app()
    state = app.state

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        state.settings = Settings.model_validate({"server": next(generations)})
        state.metrics = Metrics("0")
        yield

    app.router.lifespan_context = lifespan
    for rows in (1, 2):
        with TestClient(app) as client:
            assert client.post("/predict", json={"instances": [[1, 2, 3, 4]] * rows}).status_code == 200
            assert client.post("/predict", json={"instances": [[1, 2, 3, 4]] * (rows + 1)}).status_code == 413
            assert 'status="200",version="3"} 1.0' in client.get("/metrics").text
