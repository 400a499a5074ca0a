"""The services of an application: complete when they are made, and never changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.datastructures import State

import serving
from serving.api.services import QuickState, Services, services_of
from tests.fakes import make_app


def test_no_service_is_replaced_or_added() -> None:
    services: Any = services_of(make_app())
    for field in dataclasses.fields(Services):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(services, field.name, None)
    with pytest.raises((AttributeError, TypeError)):
        services.another = 1


def test_an_application_holds_what_answers_the_status_and_its_services_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    settings = serving.Settings.model_validate(
        {"store": {"path": tmp_path / "store"}, "state": {"path": tmp_path / "state"}}
    )
    app = serving.create_app(settings)
    assert app.state._state == {}
    with TestClient(app) as client:
        assert set(app.state._state) == {"active", "prepared", "status", "services"}
        assert services_of(app).settings is settings
        assert client.get("/health/live").status_code == 200


def test_the_state_behaves_like_that_of_starlette() -> None:
    def use(state: Any) -> list[Any]:
        state.first, state["second"] = 1, 2
        seen = [state.first, state["first"], state.second, sorted(state), len(state), hasattr(state, "third")]
        del state.first, state["second"]
        return [*seen, list(state)]

    assert use(QuickState()) == use(State())


def test_a_value_of_the_state_is_found_without_the_detour_of_starlette() -> None:
    state = serving.create_app(serving.Settings()).state
    state.status = 1
    assert vars(state) == {"status": 1}
