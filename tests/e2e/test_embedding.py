"""Models inside somebody's own FastAPI application: the example of the documentation, run as it is."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import serving
from tests.e2e.harness import until, write_version

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "iris_app.py"
FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


def example() -> Any:
    specification = importlib.util.spec_from_file_location("iris_app", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["iris_app"] = module
    specification.loader.exec_module(module)
    return module


def test_the_example_answers_with_the_newest_version_and_stops_cleanly(tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True)
    store = tmp_path / "store"
    write_version(store / "iris", 1, LogisticRegression(max_iter=300).fit(X, y))
    environment = {**os.environ, "SERVING_STORE__PATH": str(store), "SERVING_STATE__PATH": str(tmp_path / "state")}
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "iris_app:app", "--port", "0", "--app-dir", EXAMPLE.parent],
        env=environment,
        cwd=tmp_path,
        stderr=log,
    )
    try:
        url = until(lambda: _url(tmp_path / "log"), "listening")
        with httpx.Client(base_url=url, timeout=60) as client:

            def ask() -> httpx.Response:
                return client.post("/species", json=FLOWER)

            until(lambda: ask().status_code == 200, "an answer")
            assert ask().json() == {"species": "setosa", "version": "1"}
            write_version(store / "iris", 2, LogisticRegression(max_iter=300, C=0.5).fit(X, y))
            until(lambda: ask().json()["version"] == "2", "version 2")
            body = json.dumps(FLOWER).replace("0.2", "1e999")
            wrong = client.post("/species", content=body, headers={"Content-Type": "application/json"})
            assert wrong.status_code == 422
            assert "x3" in wrong.json()["detail"]
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        process.kill()
        process.wait()
        log.close()
    assert "Traceback" not in (tmp_path / "log").read_text()


def _url(log: Path) -> str | None:
    words = log.read_text().split()
    return next((word for word in words if word.startswith("http://")), None)


def test_the_dependency_can_be_overridden_and_nothing_is_started_then() -> None:
    module = example()

    class Fake:
        version = "test"

        async def predict(self, rows: list[Any]) -> list[int]:
            return [2 for _ in rows]

    module.app.dependency_overrides[module.iris] = Fake
    answer = TestClient(module.app).post("/species", json=FLOWER)
    assert answer.json() == {"species": "virginica", "version": "test"}


def test_what_cannot_be_answered_is_a_response_and_not_a_crash(tmp_path: Path) -> None:
    app = FastAPI(
        lifespan=serving.lifespan(
            serving.Settings(store={"path": tmp_path / "store"}, state={"path": tmp_path / "state"})
        )
    )

    @app.get("/ask")
    async def ask(model: Annotated[serving.Model, Depends(serving.model("m"))]) -> Any:
        return await model.predict([["not a number", 0.0]])

    (tmp_path / "store").mkdir()
    with TestClient(app) as client:
        assert client.get("/ask").status_code == 404
        write_version(tmp_path / "store" / "m", 1, LogisticRegression().fit([[0.0, 0.0], [1.0, 1.0]], [0, 1]))
        until(lambda: client.get("/ask").status_code == 422, "the refusal")
        assert "row 0" in client.get("/ask").json()["detail"]
