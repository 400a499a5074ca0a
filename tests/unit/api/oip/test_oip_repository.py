"""The model repository extension: index, load, unload."""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import Response

from serving.domain.decision import LoadModel, RefreshStore, UnloadModel
from serving.domain.errors import StateUnavailable
from serving.domain.state import State
from serving.domain.status import ModelStatus, TargetStatus
from tests.fakes import ADMIN, call, make_app, make_client, make_model_status, make_status, run

LOAD = "/v2/repository/models/iris/load"


def post(path: str, app: FastAPI | None = None, **options: Any) -> Response:
    return call(app or make_app(), "POST", path, headers=ADMIN, **options)


def settled(state: State | None = None, reason: str | None = "because", **changes: Any) -> ModelStatus:
    """A model with nothing under way; `state` and `reason` are its newest version's."""
    model = make_model_status()
    is_refused = state in (State.REJECTED, State.FAILED, State.QUARANTINED)
    gates = model.versions[2].gates if is_refused else ()
    newest = model.versions[0].model_copy(update={"state": state, "reason": reason, "gates": gates})
    versions = model.versions[1:] if state is None else (newest, *model.versions[1:])
    return model.model_copy(update={"target": None, "versions": versions, **changes})


def test_the_index_has_every_version_and_why_it_is_not_ready() -> None:
    assert post("/v2/repository/index").json() == [
        {"name": "iris", "version": "4", "state": "LOADING", "reason": "VALIDATING"},
        {"name": "iris", "version": "3", "state": "READY", "reason": ""},
        {"name": "iris", "version": "2", "state": "UNAVAILABLE", "reason": "golden: row 3: expected 1, got 2"},
    ]
    assert [entry["version"] for entry in post("/v2/repository/index", json={"ready": True}).json()] == ["3"]


def test_a_load_looks_at_the_store_and_waits_for_the_verdict() -> None:
    app = make_app()

    async def scenario() -> int:
        async with make_client(app) as client:
            asked = asyncio.create_task(client.post(LOAD, headers=ADMIN))
            while not app.state.services.operator.calls:
                await asyncio.sleep(0)
            assert not asked.done()
            app.state.status = make_status(settled(State.ACTIVE))
            return (await asked).status_code

    assert run(scenario()) == 200
    assert app.state.services.operator.calls == [
        (RefreshStore(), "admin@127.0.0.1"),
        (LoadModel("iris"), "admin@127.0.0.1"),
    ]


@pytest.mark.parametrize("state", [State.REJECTED, State.FAILED, State.QUARANTINED])
def test_a_load_says_why_the_newest_version_was_refused(state: State) -> None:
    response = post(LOAD, make_app(status=make_status(settled(state))))
    assert response.status_code == 400
    expected = f"failed to load 'iris', version '4' is {state}: golden: row 3: expected 1, got 2"
    assert response.json() == {"error": expected}


def test_a_load_of_a_pinned_model_is_about_the_version_it_is_pinned_to() -> None:
    assert post(LOAD, make_app(status=make_status(settled(State.REJECTED, pinned="3")))).status_code == 200


def test_a_load_that_takes_too_long_is_504() -> None:
    app = make_app(candidate={"timeout_seconds": 0.01})
    assert post(LOAD, app).status_code == 504


def test_a_load_that_cannot_be_is_refused() -> None:
    known = make_app(status=make_status(settled(State.ACTIVE)))
    assert post("/v2/repository/models/irsi/load").status_code == 404
    assert post("/v2/repository/models/..%2e/load").status_code == 404
    assert post(LOAD, known, json={"parameters": {"config": "{}"}}).status_code == 400
    assert post(LOAD, known, content=b"{").status_code == 400
    known.state.services.operator.error = StateUnavailable("the disk is full")
    response = post(LOAD, known)
    assert (response.status_code, response.json()) == (503, {"error": "the disk is full"})
    known.state.status = make_status(models=MappingProxyType({}))
    known.state.services.operator.error = None
    assert post(LOAD, known).status_code == 404


@pytest.mark.parametrize("body", [{}, {"parameters": {"unload_dependents": False}}])
def test_an_unload_is_the_operators_decision(body: dict[str, Any]) -> None:
    app = make_app()
    response = post("/v2/repository/models/iris/unload", app, json=body)
    assert (response.status_code, response.content) == (200, b"")
    assert app.state.services.operator.calls == [(UnloadModel("iris"), "admin@127.0.0.1")]
    assert post("/v2/repository/models/irsi/unload").status_code == 404
    assert post("/v2/repository/models/iris/unload", content=b"{").status_code == 400


def test_a_load_waits_for_a_version_that_has_been_loaded_before() -> None:
    """What was retired when the model was unloaded stays so until there is room for another candidate."""
    target = TargetStatus(version="3", state=State.RETIRED)
    app = make_app(status=make_status(settled(target=target, active=None)), candidate={"timeout_seconds": 0.01})
    assert post(LOAD, app).status_code == 504


@pytest.mark.parametrize(
    "changes",
    [
        {"state": State.DRAINING, "active": None},
        {"state": State.DISCOVERED, "reason": None},
        {"state": State.DISCOVERED, "reason": None, "pinned": "4"},
        {"state": State.WARMING},
    ],
)
def test_a_load_waits_for_what_is_drained_or_has_only_just_been_found(changes: dict[str, Any]) -> None:
    app = make_app(status=make_status(settled(**changes)), candidate={"timeout_seconds": 0.01})
    assert post(LOAD, app).status_code == 504


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"state": State.DISCOVERED, "active": None}, "version '4' is DISCOVERED: because"),
        ({"state": State.RETIRED, "active": None}, "version '4' is RETIRED: because"),
        ({"state": State.ACTIVE, "pinned": "2"}, "version '2' is REJECTED: golden: row 3: expected 1, got 2"),
        ({"state": State.ACTIVE, "pinned": "9"}, "version '9', to which it is pinned, is not in the store"),
    ],
)
def test_a_load_that_leaves_nothing_that_was_asked_for_is_refused(changes: dict[str, Any], error: str) -> None:
    response = post(LOAD, make_app(status=make_status(settled(**changes))))
    assert (response.status_code, response.json()) == (400, {"error": f"failed to load 'iris', {error}"})


@pytest.mark.parametrize(
    "changes", [{"state": State.DISCOVERED}, {"state": State.DRAINING}, {"state": State.DISCOVERED, "pinned": "3"}]
)
def test_a_load_is_over_when_the_active_version_goes_on(changes: dict[str, Any]) -> None:
    assert post(LOAD, make_app(status=make_status(settled(**changes)))).status_code == 200


@pytest.mark.parametrize("path", ["/v2/repository/index", LOAD, "/v2/repository/models/iris/unload"])
def test_all_of_it_needs_the_admin_token(path: str) -> None:
    response = call(make_app(), "POST", path)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert list(response.json()) == ["error"]
    assert call(make_app(security={}), "POST", path).status_code == 403
