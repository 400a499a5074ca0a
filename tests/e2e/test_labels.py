"""Labels: names for versions, which stay loaded, and which an operator moves without a client noticing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.e2e.harness import Server, constant, serving, until
from tests.e2e.record import check
from tests.e2e.test_operators import bring_three
from tests.e2e.traffic import Traffic

ROWS = {"instances": [[0.0, 0.0]]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("labels")) as running:
        yield running


@pytest.fixture
def m(server: Server, request: pytest.FixtureRequest) -> str:
    """A model whose version 3 is active, 2 on standby, and 1 in the store only."""
    return bring_three(server, request.node.name.removeprefix("test_")[:90].replace("_", "-"))


def put(server: Server, model: str, label: str, version: str) -> None:
    answer = server.operate("PUT", f"/models/{model}/labels/{label}", {"version": version})
    assert (answer.status_code, answer.json()["labels"][label]) == (200, version)


def answering(server: Server, model: str, label: str) -> str | None:
    """Return the version that answers for a label."""
    answer = server.client.post(f"{server.url}/models/{model}/labels/{label}/predict", json=ROWS)
    return answer.json()["version"] if answer.status_code == 200 else None


def predictions(server: Server, model: str, place: str) -> list[float]:
    found: list[float] = server.client.post(f"{server.url}/models/{model}/{place}/predict", json=ROWS).json()[
        "predictions"
    ]
    return found


def wait_answering(server: Server, model: str, label: str, version: str) -> None:
    until(lambda: answering(server, model, label) == version, f"version {version} answering for {label}")


def test_a_label_moves_under_load_and_loses_no_request(server: Server, m: str) -> None:
    put(server, m, "best", "2")
    with Traffic(server.url, f"{m}/labels/best") as traffic:
        for version in ("1", "3", "1", "2"):
            put(server, m, "best", version)
            put(server, m, "best", version)
            wait_answering(server, m, "best", version)
            until(lambda version=version: traffic.replies[-1].version == version, f"clients having met {version}")
    check(traffic.replies, may_go_back=True)
    assert {reply.version for reply in traffic.replies} == {"1", "2", "3"}
    assert server.active(m) == "3"
    calls = [one for one in server.get(f"/models/{m}/history?limit=1000")["history"] if one["event"] == "label"]
    assert [one["version"] for one in calls] == ["2", "1", "3", "1", "2"], "a call that changes nothing leaves no entry"
    assert calls[0]["reason"] == "label 'best', which named version '1'"


def test_a_labelled_version_stays_loaded_until_its_label_is_removed(server: Server, m: str) -> None:
    put(server, m, "old", "1")
    wait_answering(server, m, "old", "1")
    for version in (4, 5):
        server.drop(m, version, constant(version))
        server.wait_active(m, version)
    server.wait_state(m, 3, "RETIRED")
    assert (answering(server, m, "old"), server.version(m, 4)["is_loaded"]) == ("1", True)
    assert server.model(m)["labels"] == {"old": "1"}
    for _ in range(2):
        assert server.operate("DELETE", f"/models/{m}/labels/old").status_code == 200
    server.wait_state(m, 1, "RETIRED")
    assert server.model(m)["labels"] == {}
    gone = server.client.post(f"{server.url}/models/{m}/labels/old/predict", json=ROWS)
    assert (gone.status_code, gone.json()["detail"]) == (404, f"'{m}' has no label 'old' (it has: none)")


def test_labels_are_asked_as_tensorflow_serving_is(server: Server, m: str) -> None:
    def ask(label: str) -> str | None:
        answer = server.client.post(f"{server.url}/v1/models/{m}/labels/{label}:predict", json=ROWS)
        return answer.headers.get("x-model-version") if answer.status_code == 200 else answer.json()["error"]

    assert (ask("stable"), ask("previous"), ask("3")) == ("3", "2", "3")
    put(server, m, "stable", "1")
    wait_answering(server, m, "stable", "1")
    assert ask("stable") == "1"

    def shown() -> list[tuple[str, str]]:
        states = server.get(f"/v1/models/{m}/labels/stable")["model_version_status"]
        return [(state["version"], state["state"]) for state in states]

    until(lambda: shown() == [("1", "AVAILABLE")], "the state that is shown")
    assert ask("unknown") == f"'{m}' has no label 'unknown' (it has: stable)"


def test_what_cannot_be_labelled_says_why(server: Server, m: str) -> None:
    def refused(model: str, label: str, version: str) -> tuple[int, str]:
        answer = server.operate("PUT", f"/models/{model}/labels/{label}", {"version": version})
        return answer.status_code, answer.json()["detail"]

    assert refused("nobody", "best", "1")[0] == 404
    assert refused(m, "best", "77") == (404, f"'{m}' has no version '77' (it has 3, 2, 1)")
    assert refused(m, ".best", "1")[0] == 422
    (server.store / m / "4.joblib").write_bytes(b"no model")
    server.wait_state(m, 4, "REJECTED")
    status, detail = refused(m, "best", "4")
    assert (status, "cannot be labelled: format" in detail) == (409, True)
    assert server.operate("DELETE", "/models/nobody/labels/best").status_code == 404


def test_a_version_in_quarantine_answers_for_no_label(server: Server, m: str) -> None:
    put(server, m, "best", "3")
    assert server.operate("POST", f"/models/{m}/rollback").status_code == 200
    server.wait_state(m, 3, "QUARANTINED")
    refused = server.client.post(f"{server.url}/models/{m}/labels/best/predict", json=ROWS)
    assert (refused.status_code, "names a version that is not loaded" in refused.json()["detail"]) == (503, True)
    assert "in quarantine; nothing answers for it" in server.model(m)["problem"]
    put(server, m, "best", "2")
    assert (answering(server, m, "best"), server.model(m)["problem"]) == ("2", None)


def test_a_label_answers_with_other_bytes_of_its_version_when_they_have_passed(server: Server, m: str) -> None:
    put(server, m, "old", "2")
    shutil.rmtree(server.store / m / "2")
    (server.store / m / "2.joblib").write_bytes(b"no model")
    until(lambda: "replaced by ones that are refused" in (server.model(m)["problem"] or ""), "a problem")
    assert predictions(server, m, "labels/old") == [2.0]
    (server.store / m / "2.joblib").unlink()
    server.drop(m, 2, constant(20))
    until(lambda: predictions(server, m, "labels/old") == [20.0], "other bytes answering")
    assert predictions(server, m, "versions/2") == [20.0]
    until(lambda: server.model(m)["problem"] is None, "the problem being taken back")


def test_a_label_answers_after_a_kill_with_what_it_answered_before(server: Server, m: str) -> None:
    put(server, m, "old", "1")
    wait_answering(server, m, "old", "1")
    put(server, m, "best", "2")
    shutil.rmtree(server.store / m / "1")
    until(lambda: server.version(m, 1)["is_loaded"] and not (server.store / m / "1").exists())
    server.kill()
    server.start(wait_ready=True)
    assert (server.active(m), answering(server, m, "old"), answering(server, m, "best")) == ("3", "1", "2")
    assert server.model(m)["labels"] == {"best": "2", "old": "1"}
    assert server.operate("POST", f"/v2/repository/models/{m}/unload").status_code == 200
    assert answering(server, m, "old") is None
    assert server.operate("POST", f"/v2/repository/models/{m}/load").status_code == 200
    wait_answering(server, m, "old", "1")
