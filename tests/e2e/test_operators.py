"""Pin, unpin, rollback, release, refresh: durable, idempotent, told in the history."""

from __future__ import annotations

import concurrent.futures
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from tests.e2e.harness import Server, constant, serving, until, write_version
from tests.e2e.record import check
from tests.e2e.traffic import Traffic
from tests.unit.store.files import write_manifest


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose tests bring a model each, by the fixture `m`."""
    with serving(tmp_path_factory.mktemp("operators")) as server:
        yield server


@pytest.fixture
def m(three: Server, request: pytest.FixtureRequest) -> str:
    """A model of which versions 1, 2 and 3 have become active one after another."""
    return bring_three(three, request.node.name.removeprefix("test_")[:90].replace("_", "-"))


def bring_three(server: Server, model: str) -> str:
    for version in (1, 2, 3):
        server.drop(model, version, constant(version))
        server.wait_active(model, version)
    return model


def test_rollback_is_a_swap_and_newer_drops_still_activate(three: Server, m: str) -> None:
    with Traffic(three.url, m) as traffic:
        answer = three.operate("POST", f"/models/{m}/rollback", {"version": "3"})
        assert answer.status_code == 200
        assert answer.json()["active"]["version"] == "2", "the standby answers before the call returns"
        again = three.operate("POST", f"/models/{m}/rollback", {"version": "3"})
        assert (again.status_code, again.json()["active"]["version"]) == (200, "2")
        assert three.operate("POST", f"/models/{m}/rollback", {"version": "1"}).status_code == 409
        three.wait_state(m, 3, "QUARANTINED")
        assert three.get(f"/models/{m}/active")["quarantined"] == [{"version": "3", "path": f"{m}/3"}]
        three.drop(m, 4, constant(4))
        three.wait_active(m, 4)
    check(traffic.replies, may_go_back=True)


def test_what_gates_warned_about_is_told(three: Server) -> None:
    three.drop("warned", 1, constant(1))
    three.wait_active("warned", 1)
    made = write_version(three.directory / "warned", 2, LinearRegression().fit(np.eye(3), [1.0, 2.0, 3.0]))
    write_manifest(made, breaking=True)
    made.rename(three.store / "warned" / "2")
    three.wait_active("warned", 2)
    warned = {one["gate"]: one for one in three.get("/models/warned/active")["warnings"]}
    assert warned["contract"]["version"] == "2"
    assert "declared breaking" in warned["contract"]["evidence"]


def test_rollback_to_nothing_is_refused(three: Server) -> None:
    three.drop("single", 1, constant(1))
    three.wait_active("single", 1)
    refused = three.operate("POST", "/models/single/rollback")
    assert refused.status_code == 409
    assert "no other valid version" in refused.json()["detail"]
    assert three.active("single") == "1"


@pytest.fixture(scope="module")
def restarted(three: Server) -> Server:
    """The server after a restart; before it, version 1 of `pinned` was pinned, and the others were rolled back to 2."""
    for model in ("pinned", "released", "told"):
        bring_three(three, model)
    assert three.operate("POST", "/models/pinned/pin", {"version": "1"}).status_code == 200
    three.wait_active("pinned", 1)
    assert three.operate("POST", "/models/pinned/pin", {"version": "1"}).status_code == 200
    three.drop("pinned", 9, constant(9))
    three.operate("POST", "/refresh")
    assert three.get("/models/pinned/active")["pinned"] == "1"
    for model in ("released", "told"):
        three.operate("POST", f"/models/{model}/rollback")
        three.wait_active(model, 2)
    three.stop()
    return three.start(wait_ready=True)


def test_a_pin_holds_against_newer_versions_and_over_restarts(restarted: Server) -> None:
    """Invariant 11: version 1 had been retired; the pin has loaded it again, and survives."""
    assert restarted.active("pinned") == "1"
    refused = restarted.operate("POST", "/models/pinned/rollback")
    assert refused.status_code == 409
    assert "unpin" in refused.json()["detail"]
    assert restarted.operate("DELETE", "/models/pinned/pin").status_code == 200
    restarted.wait_active("pinned", 9)
    assert restarted.operate("DELETE", "/models/pinned/pin").status_code == 200, "unpinning twice is harmless"


def test_what_cannot_be_pinned(three: Server, m: str) -> None:
    (three.directory / "5.joblib").write_bytes(b"no model")
    (three.directory / "5.joblib").rename(three.store / m / "5.joblib")
    three.wait_state(m, 5, "REJECTED")
    refused = three.operate("POST", f"/models/{m}/pin", {"version": "5"})
    assert refused.status_code == 409
    assert "format" in refused.json()["detail"]
    assert three.operate("POST", f"/models/{m}/pin", {"version": "77"}).status_code == 404
    assert three.operate("POST", "/models/nobody/pin", {"version": "1"}).status_code == 404
    assert three.operate("POST", f"/models/{m}/pin", {"wrong": "1"}).status_code == 422
    assert three.active(m) == "3"


def test_release_lets_a_version_come_back(restarted: Server) -> None:
    assert restarted.active("released") == "2", "quarantine survives a restart"
    assert restarted.operate("POST", "/models/released/versions/3/release").status_code == 200
    restarted.wait_active("released", 3)
    assert restarted.operate("POST", "/models/released/versions/3/release").status_code == 200


def test_the_history_tells_every_transition_with_actor_time_and_reason(restarted: Server) -> None:
    entries = restarted.get("/models/told/history?limit=500")["history"]
    story = [(one["version"], one["after"]) for one in reversed(entries) if one["after"]]
    expected = ["STAGING", "LOADING", "VALIDATING", "WARMING", "READY", "ACTIVE"]
    assert [after for version, after in story if version == "3"][:6] == expected
    rollback = next(one for one in entries if one["event"] == "rollback")
    assert rollback["version"] == "3"
    assert rollback["actor"].startswith("admin")
    assert all(one["at"] for one in entries)
    newest = restarted.get("/models/told/history?limit=2")["history"]
    assert len(newest) == 2
    older = restarted.get(f"/models/told/history?limit=2&before={newest[-1]['id']}")["history"]
    assert older[0]["id"] < newest[-1]["id"]
    assert restarted.client.get(restarted.url + "/models/nobody/history").status_code == 404


def test_concurrent_operators_are_serialised(three: Server, m: str) -> None:
    """Two rollbacks that both mean to leave version 3 leave it once."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(three.operate, "POST", f"/models/{m}/rollback", {"version": "3"}) for _ in range(8)]
        assert {call.result().status_code for call in calls} == {200}
    assert three.active(m) == "2"
    rollbacks = [one for one in three.get(f"/models/{m}/history?limit=500")["history"] if one["event"] == "rollback"]
    assert len(rollbacks) == 1


def test_admin_calls_need_the_token(three: Server, m: str) -> None:
    without = three.client.post(f"{three.url}/models/{m}/rollback")
    assert without.status_code == 401
    wrong = three.client.post(f"{three.url}/models/{m}/rollback", headers={"Authorization": "Bearer nö".encode()})
    assert wrong.status_code in (401, 403)
    assert three.active(m) == "3"


def test_without_a_token_admin_is_closed_and_says_how_to_open_it(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True, SERVING_SECURITY__ADMIN_TOKEN="") as server:
        closed = server.operate("POST", "/models/m/rollback")
        assert closed.status_code == 403
        assert "admin_token" in closed.json()["detail"]


def test_refresh_looks_at_once(tmp_path: Path) -> None:
    settings = {"SERVING_STORE__WATCH": "poll", "SERVING_STORE__POLL_SECONDS": "600"}
    with serving(tmp_path, **settings) as server:
        until(lambda: any(one.get("event") == "started" for one in server.log()), "the first look")
        server.drop("m", 1, constant(1))
        assert server.client.get(server.url + "/models/m").status_code == 404
        answer = server.operate("POST", "/refresh")
        assert answer.status_code == 200
        assert server.client.get(server.url + "/models/m").status_code == 200
        shutil.rmtree(server.store / "m")
