"""Compiled forms in several workers have a budget together; what has no room stays in its host, and says why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.ensemble import ExtraTreesRegressor

from tests.e2e.harness import Server, serving, write_version

MB = 1 << 20
DICE = np.random.default_rng(0)
ROWS, VALUES = DICE.random((6000, 4)), DICE.random(6000)
QUESTION = ROWS[:3].tolist()


def forest(seed: int) -> ExtraTreesRegressor:
    """Return a forest of 60,000 leaves: a session takes 10 MB, more than a host in two workers."""
    return ExtraTreesRegressor(10, random_state=seed).fit(ROWS, VALUES)


FORESTS = {seed: forest(seed) for seed in (1, 2)}


def assert_answers(server: Server, model: str, seed: int) -> None:
    reply = server.predict(model, QUESTION)
    assert reply.status_code == 200, reply.text
    np.testing.assert_allclose(reply.json()["predictions"], FORESTS[seed].predict(ROWS[:3]), rtol=1e-5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers with memory for one of two forests, each of which counts for an active version and a standby."""
    directory = tmp_path_factory.mktemp("memory")
    write_version(directory / "store" / "first", 1, FORESTS[1])
    settings = {"SERVING_SERVER__WORKERS": "2", "SERVING_ENGINE__WORKERS_MB": "60"}
    with serving(directory, wait_ready=True, **settings) as running:
        yield running


def compilation_of(server: Server, model: str, version: int) -> Any:
    return server.version(model, version)["compilation"]


def test_a_forest_that_has_room_is_compiled_and_says_what_it_takes(server: Server) -> None:
    server.wait_active("first", 1)
    assert server.model("first")["active"]["engine"] == "onnx"
    size = server.version("first", 1)["memory_bytes"]
    assert size == compilation_of(server, "first", 1)["bounds"]["session_bytes"]
    assert compilation_of(server, "first", 1)["graph_bytes"] < size < 15 * MB
    assert 30 * MB < 4 * size <= 60 * MB, "one fits, and two do not"
    assert_answers(server, "first", 1)


def test_workers_are_forked_from_a_process_that_has_onnxruntime(server: Server) -> None:
    """Imported by each worker, it would take 14 MB more in each."""
    worker = psutil.Process(server.get("/workers")["workers"][0]["pid"])
    nursery = worker.parent()
    assert nursery is not None
    assert any("onnxruntime" in each.path for each in nursery.memory_maps())


def test_the_next_version_of_a_model_is_compiled_like_the_one_before(server: Server) -> None:
    for version, seed in ((2, 2), (3, 1)):
        server.drop("first", version, FORESTS[seed])
        server.wait_active("first", version)
        assert server.model("first")["active"]["engine"] == "onnx"
        assert_answers(server, "first", seed)


def test_a_second_forest_is_hosted_and_the_reason_has_the_numbers(server: Server) -> None:
    server.drop("second", 1, FORESTS[2])
    server.wait_active("second", 1)
    active = server.model("second")["active"]
    assert active["engine"] == "sklearn"
    found = compilation_of(server, "second", 1)
    assert (found["engine"], found["lacks_memory"]) == (None, True)
    assert "MB in each of 2 workers" in found["reason"]
    assert "of the 60 MB there are; raise engine.workers_mb" in found["reason"]
    assert active["note"] == found["reason"]
    assert [one["reason"] for one in server.log() if one["event"] == "graph_refused"] == [
        found["reason"].removeprefix("its graph has no room in the workers: ")
    ]
    assert_answers(server, "second", 2)


def test_room_is_given_back_when_a_model_is_unloaded(server: Server) -> None:
    assert server.operate("POST", "/v2/repository/models/first/unload").status_code == 200
    server.wait_state("first", 3, "RETIRED")
    server.drop("second", 2, FORESTS[1])
    server.wait_active("second", 2)
    assert server.model("second")["active"]["engine"] == "onnx"
    assert server.model("second")["active"]["note"] is None
    assert_answers(server, "second", 1)


def test_a_restart_with_more_memory_compiles_without_another_proof(server: Server) -> None:
    """And one with less hosts what was compiled."""
    server.stop()
    server.environment["SERVING_ENGINE__WORKERS_MB"] = "0"
    server.start(wait_ready=True)
    server.wait_active("second", 2)
    assert server.model("second")["active"]["engine"] == "sklearn"
    assert_answers(server, "second", 1)
    server.stop()
    server.environment["SERVING_ENGINE__WORKERS_MB"] = "4096"
    server.start(wait_ready=True)
    server.wait_active("second", 2)
    assert server.model("second")["active"]["engine"] == "onnx"
    assert "evaluation_recalled" in {one["event"] for one in server.log()}
    assert_answers(server, "second", 1)
