"""Unloading a model and loading it again; and what a restart, with nothing active yet, must not let in."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

import joblib
import numpy as np
import peculiar

from tests.e2e.harness import constant, serving, until

UNLOAD, LOAD = ("/v2/repository/models/m/unload", "/v2/repository/models/m/load")
LEASED = 'serving_leases{model="m",version="1"} 1.0'


def other_features(value: float) -> peculiar.Constant:
    return peculiar.Constant(value).fit(np.zeros((2, 3)))


def test_a_load_answers_when_the_model_does(tmp_path: Path) -> None:
    """Even where a request still holds what was unloaded, or a file has only just been copied."""
    with serving(tmp_path) as server:
        server.drop("m", 1, constant(1, peculiar.Slow))
        server.wait_active("m", 1)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            in_flight = pool.submit(server.predict, "m", [[1.0, 77.0]])
            until(lambda: LEASED in server.client.get(server.url + "/metrics").text, "a request in flight")
            assert server.operate("POST", UNLOAD).status_code == 200
            assert server.operate("POST", LOAD).status_code == 200
            assert server.active("m") == "1"
            assert in_flight.result().json()["predictions"] == [1.0]
        joblib.dump(constant(2), server.store / "n.joblib")
        assert server.operate("POST", "/v2/repository/models/n/load").status_code == 200
        assert server.predict("n").json()["predictions"] == [2.0]


def test_a_model_is_unloaded_until_it_is_loaded_and_its_contract_outlives_both(tmp_path: Path) -> None:
    """Requests in flight are answered; the decision holds against newer versions and over a restart."""
    with serving(tmp_path) as server:
        server.drop("m", 1, constant(1, peculiar.Slow))
        server.drop("n", 1, constant(1))
        server.wait_active("m", 1)
        server.wait_active("n", 1)
        server.drop("n", 2, other_features(2))
        server.wait_state("n", 2, "REJECTED")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            in_flight = pool.submit(server.predict, "m", [[1.0, 77.0]])
            until(lambda: LEASED in server.client.get(server.url + "/metrics").text, "a request in flight")
            assert server.operate("POST", UNLOAD).status_code == 200
            refused = server.predict("m")
            assert refused.status_code == 503
            assert refused.json()["detail"] == f"'m' is unloaded; POST {LOAD} loads it again"
            assert in_flight.result().json()["predictions"] == [1.0]
        server.wait_state("m", 1, "RETIRED")
        assert len(server.hosts()) == 1, "the other model's"
        server.drop("m", 2, other_features(2))
        assert server.operate("POST", "/refresh").status_code == 200

        server.stop()
        server.start(wait_ready=True)
        assert server.model("m")["unloaded"] is True
        assert server.model("m")["active"] is None
        assert {one["state"] for one in server.model("m")["versions"]} == {"DISCOVERED"}
        assert server.get("/v2/models/m/ready") == {"name": "m", "ready": False}

        loaded = server.operate("POST", LOAD)
        assert loaded.status_code == 400
        assert "version '2' is REJECTED: contract: not compatible with the active version 1" in loaded.json()["error"]
        assert (server.active("m"), server.active("n")) == ("1", "1")
        assert server.model("n")["versions"][0]["state"] == "REJECTED"
        events = [one["event"] for one in server.get("/models/m/history")["history"] if one["event"] != "transition"]
        assert events == ["load", "unload"]
