"""Request ids and the access log."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from serving.api.edge import PredictionRouter
from serving.domain.errors import ModelFailed
from serving.settings import Settings
from serving.telemetry.logging import REQUEST_ID
from tests.fakes import (
    ADMIN,
    FakeEngine,
    call,
    exchange,
    make_app,
    make_reference,
    make_servable,
    make_services,
    part,
    predict,
    run,
)

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
    assert lines[0]["duration_ms"] >= 0
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
        state.services = make_services(app, Settings.model_validate({"server": next(generations)}))
        yield

    app.router.lifespan_context = lifespan
    for rows in (1, 2):
        with TestClient(app) as client:
            assert client.post("/predict", json={"instances": [[1, 2, 3, 4]] * rows}).status_code == 200
            assert client.post("/predict", json={"instances": [[1, 2, 3, 4]] * (rows + 1)}).status_code == 413
            assert 'status="200",version="3"} 1.0' in client.get("/metrics").text


def test_headers_say_what_a_browser_may_make_of_an_answer() -> None:
    app = make_app()
    for path in ("/models", "/models/none", "/nope", "/metrics", "/health/live", "/openapi.json", "/docs", "/redoc"):
        headers = call(app, "GET", path).headers
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
        is_page = path in ("/docs", "/redoc")
        assert (headers.get("x-frame-options"), "content-security-policy" in headers) == (
            "DENY" if is_page else None,
            is_page,
        )
    for body in (ROW, {}):
        headers = predict(app, body).headers
        assert headers.get_list("x-content-type-options") == ["nosniff"]
        assert "cache-control" not in headers


def test_the_page_and_all_it_loads_come_from_here() -> None:
    """No other server is asked, nor allowed to be, and no script stands in the page itself."""
    app = make_app()
    response = call(app, "GET", "/docs")
    rules = dict(rule.strip().split(" ", 1) for rule in response.headers["content-security-policy"].split(";"))
    assert rules["script-src"] == "'self'"
    assert "http" not in response.headers["content-security-policy"]
    assert not re.search(r"<script[^>]*>[^<]", response.text)
    places = re.findall(r"<(?:script|link)[^>]*?(?:src|href)=\"([^\"]+)", response.text)
    assert sorted(places) == ["data:,", "docs/start.js", "docs/swagger-ui-bundle.js", "docs/swagger-ui.css"]
    for place in places[1:]:
        kind = "text/css" if place.endswith("css") else "text/javascript"
        found = call(app, "GET", f"/{place}")
        assert (found.status_code, found.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
        assert "sourceMappingURL" not in found.text[-200:]
    assert "SwaggerUIBundle" in call(app, "GET", "/docs/swagger-ui-bundle.js").text


def test_pages_that_are_no_more_show_the_one_there_is() -> None:
    app = make_app()
    assert call(app, "GET", "/redoc").text == call(app, "GET", "/docs").text
    assert call(app, "GET", "/docs/oauth2-redirect").headers["location"] == "/docs"


def test_the_documentation_can_be_turned_off() -> None:
    app = make_app(server={"docs": False})
    for path in ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"):
        response = call(app, "GET", path)
        assert (response.status_code, response.json()["detail"]) == (404, "there is nothing under this path")
    assert "GET /docs" not in call(app, "GET", "/nope").json()["detail"]
    assert call(app, "GET", "/models").status_code == 200


def test_an_admin_port_takes_the_operators_part_away_from_the_other_one() -> None:
    app = make_app(server={"admin_port": 8001})
    front, admin_front = PredictionRouter(app), PredictionRouter(app, is_for_operators=True)
    theirs = [
        *(("POST", "/refresh"), ("POST", "/models/iris/pin"), ("DELETE", "/models/iris/pin"), ("GET", "/metrics")),
        *(("POST", "/models/iris/rollback"), ("POST", "/models/iris/versions/2/release"), ("GET", "/docs")),
        *(("GET", "/models/iris/rollout"), ("POST", "/models/iris/rollout")),
        *(("GET", "/models/iris/history"), ("GET", "/redoc"), ("GET", "/openapi.json"), ("GET", "/models/x/pin")),
    ]
    for method, path in theirs:
        body = {"version": "2"} if path.endswith("/pin") else {"action": "hold"} if path.endswith("/rollout") else None
        for one in (app, front):
            assert call(one, method, path, json=body, headers=ADMIN).status_code == 404, path
        expected = 405 if path == "/models/x/pin" else 200
        assert call(admin_front, method, path, json=body, headers=ADMIN).status_code == expected, path
    hidden = call(app, "POST", "/v2/repository/index", headers=ADMIN)
    assert (hidden.status_code, hidden.json()) == (404, {"error": "there is nothing under this path"})
    for one in (front, admin_front):
        for path in ("/health/live", "/health/ready", "/models", "/models/iris"):
            assert call(one, "GET", path).status_code == 200
        assert predict(one, ROW).status_code == 200


def test_the_depth_of_a_body_is_a_setting() -> None:
    nested = b'{"instances": [[' + b"[" * 5 + b"]" * 5 + b"]]}"
    for depth, status in ((6, 400), (20, 422)):
        app = make_app(server={"max_json_depth": depth})
        assert predict(app, nested).status_code == status
        assert predict(app, nested + b" " * 200_000).status_code == status
        assert call(app, "POST", "/models/iris/pin", content=nested, headers=ADMIN).status_code == status
