"""What the service says of its models: the shapes of the design, word for word."""

from __future__ import annotations

import pytest

from serving.domain.status import StoreStatus
from tests.fakes import NUMBERS, call, make_app, make_model_status, make_reference, make_rollout_status, make_status

NOON = "2026-11-20T12:00:00Z"
SUMMARY = {
    "name": "iris",
    "active": {
        "version": "3",
        "digest": "sha256:33",
        "engine": "onnx",
        "environment": "own",
        "state": "ACTIVE",
        "activated_at": NOON,
        "note": None,
    },
    "target": {"version": "4", "state": "VALIDATING"},
    "pinned": None,
    "labels": {},
    "unloaded": False,
    "problem": None,
    "last_failure": {"version": "2", "gate": "golden", "reason": "row 3: expected 1, got 2", "at": NOON},
    "warnings": [
        {"version": "3", "gate": "environment", "evidence": "trained with scikit-learn 1.8.0, served by 1.9.1"}
    ],
    "quarantined": [{"version": "1", "path": "iris/1"}],
}


def test_what_is_active_is_told_for_every_model_by_name() -> None:
    status = make_status(make_model_status("wine", active=None), make_model_status("iris"))
    models = call(make_app(status=status), "GET", "/models/active").json()["models"]
    assert models == [SUMMARY, {**SUMMARY, "name": "wine", "active": None}]


def test_what_is_active_is_told_for_one_model() -> None:
    assert call(make_app(), "GET", "/models/iris/active").json() == SUMMARY


def test_a_model_is_told_with_its_signature_and_all_its_versions() -> None:
    model = call(make_app(), "GET", "/models/iris").json()
    assert {key: model[key] for key in SUMMARY} == SUMMARY
    assert model["signature"] == NUMBERS.model_dump(mode="json")
    assert [version["version"] for version in model["versions"]] == ["4", "3", "2"]
    assert model["versions"][2]["gates"][1] == {
        "gate": "golden",
        "verdict": "refused",
        "evidence": "row 3: expected 1, got 2",
        "duration_seconds": 0.2,
    }


def test_a_version_is_told_with_its_gates() -> None:
    version = call(make_app(), "GET", "/models/iris/versions/2").json()
    assert (version["state"], version["reason"], version["since"]) == ("REJECTED", "golden", NOON)
    assert [gate["gate"] for gate in version["gates"]] == ["load", "golden"]


def test_all_models_are_told_without_what_is_long_and_with_the_state_of_the_store() -> None:
    status = make_status(make_model_status(), store=StoreStatus(reason="not mounted", problems=("two names clash",)))
    answer = call(make_app(status=status), "GET", "/models").json()
    assert answer["store"]["is_available"] is False
    assert answer["store"]["reason"] == "not mounted"
    assert answer["store"]["problems"] == ["two names clash"]
    (model,) = answer["models"]
    assert {key: model[key] for key in SUMMARY} == SUMMARY
    assert model["versions"][0] == {
        "version": "4",
        "state": "VALIDATING",
        "since": NOON,
        "reason": None,
        "retry_at": None,
        "is_loaded": False,
        "is_quarantined": False,
    }


def test_a_service_without_models_has_empty_lists() -> None:
    app = make_app(make_reference(), make_status())
    assert call(app, "GET", "/models/active").json()["models"] == []
    assert call(app, "GET", "/models").json()["models"] == []


@pytest.mark.parametrize("path", ["", "/active", "/versions/1", "/history"])
def test_an_unknown_model_is_404(path: str) -> None:
    response = call(make_app(), "GET", f"/models/nope{path}")
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert (response.json()["type"], response.json()["model"]) == ("urn:serving:problem:unknown-model", "nope")
    assert "'nope'" in response.json()["detail"]


@pytest.mark.parametrize("version", ["9", "%2e%2e", "%00", "x" * 300])
def test_an_unknown_version_is_404_whatever_it_is_called(version: str) -> None:
    response = call(make_app(), "GET", f"/models/iris/versions/{version}")
    assert response.status_code == 404
    assert response.json()["model"] == "iris"
    assert ("version" in response.json()) is (version == "9")
    assert len(response.json()["detail"]) < 300


def test_the_history_comes_in_pages_newest_first() -> None:
    app = make_app()
    first = call(app, "GET", "/models/iris/history").json()
    assert first["model"] == "iris"
    assert [entry["id"] for entry in first["history"]] == list(range(250, 150, -1))
    assert first["before"] == 151
    assert first["history"][0] == {
        "id": 250,
        "at": NOON,
        "version": "3",
        "digest": None,
        "before": None,
        "after": None,
        "actor": "system",
        "event": "transition",
        "reason": None,
        "duration_seconds": None,
    }
    last = call(app, "GET", "/models/iris/history", params={"limit": 200, "before": first["before"]}).json()
    assert [entry["id"] for entry in last["history"]] == list(range(150, 0, -1))
    assert last["before"] is None


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "limit=many", "before=0", "before=-1", f"before={2**64}"])
def test_a_page_that_cannot_be_is_422(query: str) -> None:
    response = call(make_app(), "GET", f"/models/iris/history?{query}")
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert response.json()["detail"].startswith(f"query {query.split('=', maxsplit=1)[0]}: ")


def test_a_rollout_is_told_with_its_counts_and_its_curve() -> None:
    app = make_app(status=make_status(make_model_status().model_copy(update={"rollout": make_rollout_status()})))
    answer = call(app, "GET", "/models/iris/rollout").json()
    assert answer == make_rollout_status().model_dump(mode="json")
    assert answer["running"]["new"] == {"answers": 130, "bad": 2}
    assert call(app, "GET", "/models/iris").json()["rollout"] == answer
    (listed,) = call(app, "GET", "/models").json()["models"]
    assert listed["rollout"] == {
        "version": "4",
        "phase": "canary",
        "share": 10.0,
        "is_held": False,
        "is_stopped": False,
        "verdict": "wait",
        "reason": "80 of 100 requests in this step",
    }


def test_without_a_rollout_the_settings_say_how_versions_take_over() -> None:
    app = make_app(models={"iris": {"rollout": {"strategy": "shadow"}}}, security={"read_token": "reads"})
    nothing = {"model": "iris", "strategy": "shadow", "running": None, "last": None, "is_stopped": False}
    reads = {"authorization": "Bearer reads"}
    assert call(app, "GET", "/models/iris/rollout", headers=reads).json() == nothing
    assert call(app, "GET", "/models/wine/rollout", headers=reads).status_code == 404
    assert call(app, "GET", "/models/iris/rollout").status_code == 401
