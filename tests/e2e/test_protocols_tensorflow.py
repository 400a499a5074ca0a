"""TensorFlow Serving's requests, as its documentation shows them, through swaps."""

from __future__ import annotations

import threading
from operator import itemgetter
from pathlib import Path

import httpx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from tests.e2e.harness import Server, constant, serving, until, write_version

SWAPS = 2


def test_curls_requests_see_versions_only_go_up_through_swaps(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, constant(1))
    rows, labels = load_iris(return_X_y=True)
    names = load_iris().target_names[labels]
    write_version(tmp_path / "store" / "iris", 1, LogisticRegression(max_iter=500).fit(rows, names))
    with serving(tmp_path, wait_ready=True, SERVING_STORE__KEEP_WARM="1") as server:
        server.wait_active("m", 1)
        seen: list[tuple[int, float, str]] = []
        stopping = threading.Event()

        def ask() -> None:
            with httpx.Client(timeout=30) as client:
                while not stopping.is_set():
                    response = _curl(client, f"{server.url}/v1/models/m:predict", '{"instances": [[0.0, 0.0]]}')
                    body = response.json()
                    version = response.headers.get("x-model-version", "")
                    seen.append((response.status_code, body.get("predictions", [-1.0])[0], version))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            until(lambda: seen, "an answer of version 1")
            for version in range(2, SWAPS + 2):
                server.drop("m", version, constant(version))
                until(lambda version=version: seen[-1][2] == str(version), f"an answer of version {version}")
        finally:
            stopping.set()
            asking.join(30)
        assert {status for status, _, _ in seen} == {200}
        assert [value for _, value, _ in seen] == sorted(value for _, value, _ in seen)
        assert all(value == float(version) for _, value, version in seen)
        assert {version for _, _, version in seen} == {str(version) for version in range(1, SWAPS + 2)}
        for label, expected in (("stable", SWAPS + 1), ("previous", SWAPS)):
            url = f"{server.url}/v1/models/m/labels/{label}:predict"
            assert _curl(server.client, url, '{"inputs": [[0, 0]]}').json() == {"outputs": [float(expected)]}
        states = server.get(f"/v1/models/m/versions/{SWAPS + 1}")["model_version_status"]
        assert [one["state"] for one in states] == ["AVAILABLE"]
        server.operate("POST", "/models/m/pin", {"version": str(SWAPS)})
        server.wait_active("m", SWAPS)
        pinned = _curl(server.client, f"{server.url}/v1/models/m/labels/{SWAPS}:predict", '{"inputs": [[0, 0]]}')
        _ask_to_classify(server)
        assert pinned.json() == {"outputs": [float(SWAPS)]}


def _ask_to_classify(server: Server) -> None:
    example = '{"examples": [{"x0": 5.1, "x1": 3.5, "x2": 1.4}], "context": {"x3": 0.2}}'
    (scores,) = _curl(server.client, f"{server.url}/v1/models/iris:classify", example).json()["results"]
    assert max(scores, key=itemgetter(1))[0] == "setosa"
    definitions = server.get("/v1/models/iris/metadata")["metadata"]["signature_def"]["signature_def"]
    assert definitions["serving_default"]["outputs"]["predict"]["dtype"] == "DT_STRING"


def _curl(client: httpx.Client, url: str, body: str) -> httpx.Response:
    """Send what ``curl -d`` does, which says that it is a form."""
    return client.post(url, content=body, headers={"content-type": "application/x-www-form-urlencoded"})
