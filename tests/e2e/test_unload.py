"""Unloading a model and loading it again; and what a restart, with nothing active yet, must not let in."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator

import joblib
import numpy as np
import peculiar
import pytest

from tests.e2e.frozen import frozen
from tests.e2e.harness import Server, constant, serving, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose tests bring models of their own."""
    with serving(tmp_path_factory.mktemp("unload")) as running:
        yield running


def other_features(value: float) -> peculiar.Constant:
    return peculiar.Constant(value).fit(np.zeros((2, 3)))


def unload(model: str) -> str:
    return f"/v2/repository/models/{model}/unload"


def load(model: str) -> str:
    return f"/v2/repository/models/{model}/load"


def wait_leased(server: Server, model: str) -> None:
    leased = f'serving_leases{{model="{model}",version="1"}} 1.0'
    until(lambda: leased in server.client.get(server.url + "/metrics").text, "a request in flight")


def test_a_load_answers_when_the_model_does(server: Server) -> None:
    """Even where a request still holds what was unloaded, or a file has only just been copied."""
    server.drop("held", 1, constant(1, peculiar.Slow))
    server.wait_active("held", 1)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with frozen(server.hosts()):
            in_flight = pool.submit(server.predict, "held", [[1.0, 77.0]])
            wait_leased(server, "held")
            assert server.operate("POST", unload("held")).status_code == 200
        assert server.operate("POST", load("held")).status_code == 200
        assert server.active("held") == "1"
        assert in_flight.result().json()["predictions"] == [1.0]
    joblib.dump(constant(2), server.directory / "copied.joblib")
    (server.directory / "copied.joblib").rename(server.store / "copied.joblib")
    assert server.operate("POST", load("copied")).status_code == 200
    assert server.predict("copied").json()["predictions"] == [2.0]


def test_a_model_is_unloaded_until_it_is_loaded_and_its_contract_outlives_both(server: Server) -> None:
    """Requests in flight are answered; the decision holds against newer versions and over a restart."""
    others = server.hosts()
    server.drop("m", 1, constant(1))
    server.drop("n", 1, constant(1))
    server.wait_active("m", 1)
    server.wait_active("n", 1)
    server.drop("n", 2, other_features(2))
    server.wait_state("n", 2, "REJECTED")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with frozen(server.hosts()):
            in_flight = pool.submit(server.predict, "m")
            wait_leased(server, "m")
            assert server.operate("POST", unload("m")).status_code == 200
            refused = server.predict("m")
            assert refused.status_code == 503
            assert refused.json()["detail"] == f"'m' is unloaded; POST {load('m')} loads it again"
        assert in_flight.result().json()["predictions"] == [1.0]
    server.wait_state("m", 1, "RETIRED")
    until(lambda: len([host for host in server.hosts() if host not in others]) == 1, "no host but the other model's")
    server.drop("m", 2, other_features(2))
    assert server.operate("POST", "/refresh").status_code == 200

    server.stop()
    server.start(wait_ready=True)
    assert server.model("m")["unloaded"] is True
    assert server.model("m")["active"] is None
    assert {one["state"] for one in server.model("m")["versions"]} == {"DISCOVERED"}
    assert server.get("/v2/models/m/ready") == {"name": "m", "ready": False}

    loaded = server.operate("POST", load("m"))
    assert loaded.status_code == 400
    assert "version '2' is REJECTED: contract: not compatible with the active version 1" in loaded.json()["error"]
    assert (server.active("m"), server.active("n")) == ("1", "1")
    server.wait_state("n", 2, "REJECTED")
    events = [one["event"] for one in server.get("/models/m/history")["history"] if one["event"] != "transition"]
    assert events == ["load", "unload"]
