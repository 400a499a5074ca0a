"""What is read over ``/v2``."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes import TOKEN, call, make_app, make_model_status, make_reference, make_status


def get(path: str, app: Any = None) -> tuple[int, Any]:
    response = call(app or make_app(), "GET", path)
    return response.status_code, response.json()


def test_every_route_is_documented() -> None:
    paths = {path for path in make_app().openapi()["paths"] if path.startswith("/v2")}
    model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    ends = ("", "/infer", "/ready", "/stats")
    assert paths == {
        *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats", "/v2/repository/index"),
        *(base + end for base in (model, version) for end in ends),
        *(f"/v2/repository/models/{{model}}/{call}" for call in ("load", "unload")),
    }


def test_the_server_says_what_it_speaks() -> None:
    extensions = ["binary_tensor_data", "model_repository", "statistics"]
    assert get("/v2") == (200, {"name": "serving", "version": "0", "extensions": extensions})


def test_probes_are_open_and_say_what_the_native_ones_say() -> None:
    assert get("/v2/health/live") == (200, {"live": True})
    closed = make_app(status=make_status(is_stopping=True), security={"read_token": TOKEN})
    assert get("/v2/health/ready", closed) == (503, {"ready": False})
    assert get("/v2/health/ready") == (200, {"ready": True})


@pytest.mark.parametrize("path", ["/v2/models/iris", "/v2/models/iris/versions/3"])
def test_a_model_says_what_it_takes_and_gives(path: str) -> None:
    response = call(make_app(), "GET", path)
    assert response.headers["x-model-version"] == "3"
    assert response.json() == {
        "name": "iris",
        "versions": ["3"],
        "platform": "sklearn",
        "inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, 4]}],
        "outputs": [
            {"name": "predict", "datatype": "INT64", "shape": [-1]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 3]},
        ],
    }


def test_ready_is_what_can_answer() -> None:
    assert get("/v2/models/iris/ready") == (200, {"name": "iris", "ready": True})
    assert get("/v2/models/iris/versions/3/ready") == (200, {"name": "iris", "ready": True})
    assert get("/v2/models/iris/versions/2/ready") == (503, {"name": "iris", "ready": False})
    nothing = make_app(make_reference(iris=None), make_status(make_model_status(active=None)))
    assert get("/v2/models/iris/ready", nothing) == (503, {"name": "iris", "ready": False})
    assert get("/v2/models/iris", nothing)[0] == 503


@pytest.mark.parametrize("end", ["", "/ready", "/stats", "/versions/9", "/versions/9/ready", "/versions/9/stats"])
def test_what_there_is_not_is_404_in_the_protocols_shape(end: str) -> None:
    names = ["iris"] if "versions" in end else ["irsi", "..%2e"]
    for name in names:
        status, document = get(f"/v2/models/{name}{end}")
        assert (status, list(document)) == (404, ["error"])


def test_statistics_count_what_was_answered_and_what_was_not() -> None:
    app = make_app()
    row = {"name": "a", "shape": [2, 4], "datatype": "FP64", "data": [1] * 8}
    assert call(app, "POST", "/v2/models/iris/infer", json={"inputs": [row]}).status_code == 200
    assert call(app, "POST", "/models/iris/predict", json={"instances": [[1]]}).status_code == 422
    for path in ("/v2/models/stats", "/v2/models/iris/stats", "/v2/models/iris/versions/3/stats"):
        (stats,) = get(path, app)[1]["model_stats"]
        assert (stats["name"], stats["version"], stats["inference_count"]) == ("iris", "3", 2)
        assert (stats["inference_stats"]["success"]["count"], stats["inference_stats"]["fail"]["count"]) == (1, 1)
        assert stats["inference_stats"]["success"]["ns"] > 0
