"""Compiled models served by a real process: what they answer, how they are swapped, and what a restart remembers."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import peculiar
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.e2e.harness import Server, serving, until, write_version
from tests.e2e.record import check
from tests.e2e.traffic import Traffic

X, Y = load_breast_cancer(return_X_y=True)
FOREST = RandomForestClassifier(20, random_state=0).fit(X, Y)
TABLE = pd.DataFrame({"kind": np.resize(["a", "b", "c"], 90), "size": np.linspace(0, 1, 90)})
MIXED = make_pipeline(
    make_column_transformer((OneHotEncoder(), ["kind"]), remainder=StandardScaler()), LogisticRegression()
).fit(TABLE, (TABLE["size"] > 0.5).map({True: "large", False: "small"}))


def line(value: float, kind: type[LinearRegression] = LinearRegression) -> LinearRegression:
    """Return a model of two features that answers `value` (to 1e-9) to (0, 0); compilable unless `kind` is foreign."""
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    return kind().fit(rows, [value] * 3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("compiled")
    store = directory / "store"
    write_version(store / "forest", 1, FOREST)
    write_version(store / "mixed", 1, MIXED)
    write_version(store / "neighbours", 1, KNeighborsClassifier().fit(np.tile(X, (4, 1)), np.tile(Y, 4)))
    with serving(directory, wait_ready=True) as server:
        yield server


@pytest.fixture(scope="module")
def demanding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that compiles or refuses, and keeps nothing warm; when it ran before, compiling was turned off."""
    directory = tmp_path_factory.mktemp("demanding")
    write_version(directory / "store" / "m", 1, line(1.0))
    settings = {"SERVING_ENGINE__COMPILE": "off", "SERVING_STORE__KEEP_WARM": "0"}
    with serving(directory, wait_ready=True, **settings) as server:
        assert server.model("m")["active"]["engine"] == "sklearn"
        server.stop()
        server.environment["SERVING_ENGINE__COMPILE"] = "require"
        yield server.start(wait_ready=True)


def test_a_compiled_model_answers_as_its_estimator_does_and_has_no_host(server: Server) -> None:
    active = {one["name"]: one["active"]["engine"] for one in server.get("/models/active")["models"]}
    assert active.items() >= {"forest": "onnx", "mixed": "onnx", "neighbours": "sklearn"}.items()
    rows = X[:64].tolist()
    response = server.predict("forest", rows)
    assert response.json()["predictions"] == FOREST.predict(X[:64]).tolist()
    assert response.headers["x-model-version"] == "1"
    url = server.url + "/models/forest/predict"
    probabilities = server.client.post(url, json={"instances": rows, "method": "predict_proba"}).json()["predictions"]
    np.testing.assert_allclose(probabilities, FOREST.predict_proba(X[:64]), rtol=1e-6)
    until(lambda: len(server.hosts()) == 1, "no host being left but that of the model which is slower compiled")


def test_the_proof_is_there_to_be_read(server: Server) -> None:
    compilation = server.version("forest", 1)["compilation"]
    assert compilation["engine"] == "onnx"
    assert {"random", "thresholds", "extremes"} <= {one["kind"] for one in compilation["rows"]}
    assert compilation["row_seconds"][0] > compilation["row_seconds"][1]
    gates = {one["gate"]: one for one in server.version("forest", 1)["gates"]}
    assert gates["compile"]["verdict"] == "passed"
    hosted = server.version("neighbours", 1)["compilation"]
    assert hosted["engine"] is None
    assert hosted["reason"].startswith("not faster")


def test_rows_of_several_kinds_are_answered_and_unknown_ones_refused(server: Server) -> None:
    response = server.predict("mixed", [["a", 0.9], ["c", 0.1]])
    assert response.json()["predictions"] == ["large", "small"]
    refused = server.predict("mixed", [["a", 0.9], ["never seen", 0.1]])
    assert refused.status_code == 422
    assert "row 1: 'kind' is 'never seen', which the model does not know" in refused.json()["detail"]


def test_many_rows_are_answered_off_the_loop(server: Server) -> None:
    rows = np.tile(X, (10, 1))
    assert server.predict("forest", rows.tolist()).json()["predictions"] == FOREST.predict(rows).tolist()


def test_metrics_count_compiled_answers(server: Server) -> None:
    server.predict("forest", X[:3].tolist())
    metrics = server.client.get(server.url + "/metrics").text
    assert 'serving_requests_total{model="forest",status="200",version="1"}' in metrics


def test_compiled_and_hosted_versions_take_turns_under_load(server: Server) -> None:
    """Invariants 1 and 4 where the kind of servable changes with the version."""
    server.drop("turns", 1, line(1.0))
    server.wait_active("turns", 1)
    with Traffic(server.url, "turns") as traffic:
        for version in range(2, 10):
            server.drop("turns", version, line(version, LinearRegression if version % 2 else peculiar.Foreign))
            until(lambda version=version: traffic.record.last_versions() == {str(version)}, f"answers of {version}")
    for reply in traffic.replies:
        assert reply.status == 200, reply
        assert reply.value == pytest.approx(float(reply.version), abs=1e-9)
    assert {reply.version for reply in traffic.replies} == {str(version) for version in range(1, 10)}


def test_a_restart_compiles_nothing_again_and_a_damaged_memory_is_no_reason_not_to_serve(server: Server) -> None:
    for model, value in (("kept", 1.0), ("damaged", 2.0)):
        server.drop(model, 1, line(value))
        server.wait_active(model, 1)
    answer = server.predict("kept").json()
    first = {model: server.version(model, 1)["compilation"] for model in ("kept", "damaged")}
    assert first["kept"]["engine"] == "onnx"
    _, _, digest = server.version("damaged", 1)["digest"].rpartition(":")
    server.kill()
    (memory,) = (server.state / "cache" / "evaluations").glob(f"{digest}@*")
    memory.write_bytes(memory.read_bytes()[:-5])
    offset = server.log_path.stat().st_size
    server.start(wait_ready=True)
    recalled = {event["model"] for event in server.log(offset) if event["event"] == "evaluation_recalled"}
    assert "kept" in recalled
    assert server.version("kept", 1)["compilation"] == first["kept"]
    assert server.predict("kept").json() == answer
    assert "damaged" not in recalled
    again = server.version("damaged", 1)["compilation"]
    assert again["engine"] == "onnx"
    assert again["row_seconds"] != first["damaged"]["row_seconds"], "it was not compiled again"
    until(lambda: len(server.hosts()) == 1, "no host being left but that of the model which is slower compiled")


def test_compiling_can_be_turned_off_and_required(demanding: Server) -> None:
    """It was turned off in the run before; the fixture has seen to that."""
    assert demanding.model("m")["active"]["engine"] == "onnx"
    demanding.drop("m", 2, line(2.0, peculiar.Foreign))
    refused = demanding.wait_state("m", 2, "REJECTED")
    assert "engine.compile = require" in refused["reason"]
    assert demanding.active("m") == "1"


def test_a_compiler_that_is_killed_leaves_the_model_in_its_host(server: Server) -> None:
    """It is not the model's fault, so it is not remembered either."""
    slow = RandomForestClassifier(120, random_state=0).fit(
        np.tile(X, (4, 1)), np.random.default_rng(0).random(2276) > 0.5
    )
    write_version(server.store / "slow", 1, slow)

    def compiler() -> Any:
        return [child for host in server.hosts() for child in host.children()]

    until(compiler, "compiling")[0].send_signal(signal.SIGKILL)
    server.wait_active("slow", 1)
    compilation = server.version("slow", 1)["compilation"]
    assert compilation["engine"] is None
    assert compilation["reason"] == "the process died with SIGKILL"
    assert not compilation["is_final"]
    assert server.predict("slow", X[:1].tolist()).status_code == 200


def test_retired_graphs_are_given_back(demanding: Server) -> None:
    demanding.drop("graphs", 1, line(1.0))
    demanding.wait_active("graphs", 1)
    demanding.drop("graphs", 2, line(2.0))
    demanding.wait_active("graphs", 2)
    demanding.wait_state("graphs", 1, "RETIRED")
    assert demanding.predict("graphs", version="1").status_code == 404
    with Traffic(demanding.url, "graphs") as traffic:
        until(lambda: len(traffic.replies) > 20, "some answers")
    check(traffic.replies)
