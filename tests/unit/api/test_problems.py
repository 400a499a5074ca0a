"""Every error is a problem document, and none says more than it should."""

from __future__ import annotations

import inspect
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import Response
from structlog.testing import capture_logs

from serving.api import problems
from serving.api.problems import INTERNAL, KINDS, kind_of, problem_of, refusal_of
from serving.domain import errors
from tests.fakes import call, make_app, run

EXPECTED = {
    errors.Misdirected: 421,
    errors.CrossSite: 403,
    errors.NotJson: 400,
    errors.Malformed: 400,
    errors.UnknownModel: 404,
    errors.UnknownVersion: 404,
    errors.NotAcceptable: 406,
    errors.OperationRefused: 409,
    errors.BodyTooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.InvalidInput: 422,
    errors.ModelFailed: 500,
    errors.NothingActive: 503,
    errors.Overloaded: 503,
    errors.HostLost: 503,
    errors.Unavailable: 503,
    errors.StateUnavailable: 503,
    errors.StoreUnavailable: 503,
    errors.DeadlineExceeded: 504,
    errors.UploadsOff: 403,
    errors.StoreFull: 507,
}


def problem(error: Exception, model: str | None = None, version: str | None = None) -> Response:
    """Return what the native interface answers."""
    return problem_of(refusal_of(error, model, version))


@pytest.mark.parametrize(("kind", "status"), EXPECTED.items())
def test_every_error_a_caller_can_meet_has_its_status_and_its_own_type(kind: type[Exception], status: int) -> None:
    response = problem(kind("one line"), "iris", "3")
    document = orjson.loads(response.body)
    assert (response.status_code, document["status"], kind_of(kind("x")).status) == (status, status, status)
    assert (document["detail"], document["model"], document["version"]) == ("one line", "iris", "3")
    assert document["type"].startswith("urn:serving:problem:")
    assert ("retry-after" in response.headers) is (status == 503)
    assert response.media_type == "application/problem+json"


def test_types_are_unique_and_all_other_errors_are_the_servers_own() -> None:
    slugs = [kind.slug for kind in KINDS.values()]
    assert len(slugs) == len(set(slugs))
    tree = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.ServingError)}
    callers = {errors.RequestRefused, errors.UploadRefused, *EXPECTED}
    for kind in tree - callers:
        assert kind_of(kind("x")) is INTERNAL


def test_the_seconds_to_wait_are_the_errors_own() -> None:
    assert problem(errors.Unavailable("later", 7)).headers["retry-after"] == "7"


def test_a_detail_is_one_line_of_bearable_length() -> None:
    document = orjson.loads(problem(errors.ModelFailed("ValueError: x\nTraceback (most recent call last):\n")).body)
    assert document["detail"] == "ValueError: x"
    assert len(orjson.loads(problem(errors.ModelFailed("x" * 10_000)).body)["detail"]) == 1000


@pytest.mark.parametrize("text", ["\ud800", "\x00\x1b[31m", 'a"b\\', "\u2028", "é" * 10])
def test_any_text_makes_a_valid_document(text: str) -> None:
    document = orjson.loads(problem(errors.InvalidInput(text), text, text).body)
    assert set(document) >= {"type", "title", "status", "detail", "model", "version"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/models/iris/predict", 405),
        ("PUT", "/models/iris/pin", 405),
        ("POST", "/health/live", 405),
        ("GET", "/predict", 405),
        ("POST", "/models//predict", 404),
        ("POST", "/models/a/b/predict", 404),
        ("BREW", "/models", 405),
    ],
)
def test_what_the_framework_refuses_is_a_problem_too(method: str, path: str, status: int) -> None:
    response = call(make_app(), method, path)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.json()["status"] == status
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert ("allow" in response.headers) is (status == 405)
    if status == 405:
        assert f"allowed: {response.headers['allow']}" in response.json()["detail"]


def app_raising(error: Exception) -> FastAPI:
    app = make_app()

    @app.get("/raise")
    async def _raise() -> None:
        raise error

    return app


def test_an_error_nobody_foresaw_is_500_without_a_word_of_it() -> None:
    error = RuntimeError("secret /etc/passwd")
    with capture_logs() as logs:
        response = call(app_raising(error), "GET", "/raise")
    assert (response.status_code, response.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert [line.get("exc_info") for line in logs] == [error, None]
    assert response.json()["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("status", [418, 499, 599])
def test_an_http_exception_of_any_status_is_a_problem(status: int) -> None:
    response = call(app_raising(HTTPException(status, "short", {"x-hint": "tea"})), "GET", "/raise")
    assert (response.status_code, response.json()["detail"], response.headers["x-hint"]) == (status, "short", "tea")


def test_an_error_outside_of_this_packages_middleware_is_a_problem_too() -> None:
    app = make_app()

    class Broken:
        def __init__(self, app: Any) -> None:
            pass

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            raise RuntimeError("secret")

    app.add_middleware(Broken)

    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # the framework answers, then raises it again
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/models")

    response = run(one())
    assert (response.status_code, response.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in response.text


PROBLEM, ERROR, CODED = {"type", "title", "status", "detail"}, {"error"}, {"error_code", "message"}


@pytest.mark.parametrize(
    ("method", "path", "status", "shape"),
    [
        ("GET", "/nope", 404, PROBLEM),
        ("DELETE", "/models/iris", 405, PROBLEM),
        ("GET", "/models/iris/predict", 405, PROBLEM),
        ("GET", "/v1", 404, ERROR),
        ("GET", "/v1/nope", 404, ERROR),
        ("GET", "/v1/models/nope", 404, ERROR),
        ("DELETE", "/v1/models/iris", 405, ERROR),
        ("GET", "/v1/models/iris:predict", 404, ERROR),
        ("GET", "/v2/nope", 404, ERROR),
        ("GET", "/v2/models/nope", 404, ERROR),
        ("DELETE", "/v2", 405, ERROR),
        ("GET", "/v2/models/iris/infer", 405, ERROR),
        ("POST", "/v2/repository/index", 401, ERROR),
        ("POST", "/ping", 405, CODED),
        ("POST", "/version", 405, CODED),
        ("GET", "/invocations", 405, CODED),
        ("GET", "/models/iris/invocations", 405, CODED),
    ],
)
def test_an_error_has_the_shape_that_the_clients_of_its_path_read(
    method: str, path: str, status: int, shape: set[str]
) -> None:
    response = call(make_app(), method, path)
    assert (response.status_code, set(response.json()) - {"model", "version", "request_id"}) == (status, shape)
    if status == 405:
        assert response.headers["allow"]
        assert "allowed:" in response.text


@pytest.mark.parametrize(
    ("path", "shape"), [("/models", PROBLEM), ("/v1/models/iris", ERROR), ("/v2", ERROR), ("/version", CODED)]
)
def test_a_refused_reader_is_answered_in_that_shape_too(path: str, shape: set[str]) -> None:
    response = call(make_app(security={"read_token": "reads"}), "GET", path)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert set(response.json()) - {"request_id"} == shape


@pytest.mark.parametrize(
    ("path", "shape"), [("/models", PROBLEM), ("/v1/models/iris", ERROR), ("/v2/health/ready", ERROR), ("/ping", CODED)]
)
def test_a_failure_nobody_foresaw_is_answered_in_that_shape_too(path: str, shape: set[str]) -> None:
    app = make_app()
    app.state.status = None
    response = call(app, "GET", path)
    assert (response.status_code, set(response.json()) - {"request_id"}) == (500, shape)
    assert "NoneType" not in response.text


def test_another_app_can_have_the_same_problems() -> None:
    app = FastAPI()
    problems.install(app)

    @app.get("/raise")
    async def _raise() -> None:
        raise errors.Overloaded("too much")

    response = call(app, "GET", "/raise")
    assert (response.status_code, response.json()["title"]) == (503, "Too many requests are waiting")
