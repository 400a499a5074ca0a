"""GET / says what the server is and where to go; a slash at the end of a path changes nothing."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from serving.api.edge import PredictionRouter
from serving.api.paths import is_probe
from tests.fakes import ADMIN, call, make_app

ROW = {"input": [5.1, 3.5, 1.4, 0.2]}


def test_the_root_names_the_service_and_paths_that_answer() -> None:
    app = make_app()
    response = call(app, "GET", "/")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    answer = response.json()
    assert (answer["name"], answer["version"]) == ("serving", "0")
    assert answer["predict"] == "POST /models/{model}/predict"
    for link in ("models", "active", "ready", "docs", "openapi"):
        assert call(app, "GET", answer[link]).status_code == 200


def test_the_root_names_no_documentation_where_there_is_none() -> None:
    for settings in ({"docs": False}, {"admin_port": 8001}):
        answer = call(make_app(server=settings), "GET", "/").json()
        assert (answer["docs"], answer["openapi"]) == (None, None)


def test_the_root_of_the_admin_port_names_the_documentation() -> None:
    app = make_app(server={"admin_port": 8001})
    assert call(PredictionRouter(app, is_for_operators=True), "GET", "/").json()["docs"] == "/docs"


def test_the_root_needs_the_token_that_reading_needs() -> None:
    app = make_app(security={"read_token": "r" * 20})
    assert call(app, "GET", "/").status_code == 401
    assert call(app, "GET", "/", headers={"Authorization": "Bearer " + "r" * 20}).status_code == 200


def test_the_root_of_a_mounted_service_names_paths_below_the_mount() -> None:
    inner = make_app()
    outer = Starlette(routes=[Mount("/ml", inner)])
    answer = call(outer, "GET", "/ml/").json()  # type: ignore[arg-type]
    assert (answer["models"], answer["docs"]) == ("/ml/models", "/ml/docs")
    assert call(outer, "GET", "/ml/models/").status_code == 200  # type: ignore[arg-type]
    assert call(outer, "POST", "/ml/models/iris/predict/", json=ROW).json()["version"] == "3"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path",
    ["/models/iris/predict/", "/models/iris/predict//", "/models/iris/versions/3/predict/", "/predict/"],
)
def test_a_prediction_with_a_slash_at_the_end_is_answered_at_once(path: str) -> None:
    response = call(make_app(), "POST", path, json=ROW)
    assert (response.status_code, response.json()["version"]) == (200, "3")


@pytest.mark.parametrize("path", ["/models/", "/models/iris/", "/health/ready/", "/metrics/", "/v2/", "/ping/"])
def test_a_page_with_a_slash_at_the_end_is_the_page(path: str) -> None:
    assert call(make_app(), "GET", path).status_code == 200


@pytest.mark.parametrize("path", ["/docs/", "/redoc/"])
def test_a_page_that_loads_files_beside_it_is_redirected_to_its_path_without_the_slash(path: str) -> None:
    response = call(make_app(), "GET", path)
    assert (response.status_code, response.headers["location"]) == (307, "/docs")


def test_an_operators_call_with_a_slash_at_the_end_is_carried_out_for_operators_only() -> None:
    app = make_app()
    assert call(app, "POST", "/models/iris/pin/", json={"version": "3"}).status_code == 401
    assert call(app, "POST", "/models/iris/pin/", json={"version": "3"}, headers=ADMIN).status_code == 200


def test_other_protocols_take_a_slash_at_the_end_and_keep_their_errors() -> None:
    app = make_app()
    assert call(app, "POST", "/v1/models/iris:predict/", json={"instances": [ROW["input"]]}).status_code == 200
    assert "error" in call(app, "POST", "/v2/models/nope/infer/", json={}).json()


def test_a_probe_with_a_slash_at_the_end_is_one() -> None:
    assert is_probe(b"GET", b"/health/ready/")
    assert not is_probe(b"GET", b"/models/")
