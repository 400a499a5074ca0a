"""The budget of compiled forms at the planes: asked before each load, and given back."""

from __future__ import annotations

from typing import Any

import pytest

from serving.domain.compiled_form import Guard, RunBounds
from serving.domain.graph_budget import MB, GraphBudget
from serving.domain.plan import Compiled, Hosted, Load, Loaded, LoadFailed, NoRoom, Unload
from serving.domain.version import VersionId
from serving.supervisor.graph_memory import BudgetedPlanes
from tests.unit.domain.test_plan import BOUNDS, SIGNATURE
from tests.unit.lifecycle.fake_plane import FakePlane

BUDGET = GraphBudget(200 * MB, workers=2, standbys=0)
A, B = (VersionId(name, "1", f"sha256:{name}") for name in "ab")


def compiled(key: VersionId, size: int) -> Load:
    bounds: RunBounds = BOUNDS.model_copy(update={"session_bytes": size})
    return Load(key, Compiled(SIGNATURE, (), Guard(), bounds))


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane()


@pytest.fixture
def planes(plane: FakePlane) -> BudgetedPlanes:
    return BudgetedPlanes(plane, BUDGET)


def test_what_has_no_room_does_not_reach_the_planes(planes: BudgetedPlanes, plane: FakePlane) -> None:
    assert planes.load(compiled(A, 60 * MB)) == Loaded(A)
    refused = planes.load(compiled(B, 60 * MB))
    assert isinstance(refused, NoRoom)
    assert "other models take 120 MB of the 200 MB" in refused.reason
    assert plane.loaded == {A}


def test_a_version_that_is_unloaded_gives_its_room_back(planes: BudgetedPlanes) -> None:
    planes.load(compiled(A, 60 * MB))
    planes.unload(Unload(A))
    assert planes.load(compiled(B, 60 * MB)) == Loaded(B)


def test_a_version_that_cannot_be_loaded_takes_no_room(
    planes: BudgetedPlanes, plane: FakePlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.failure = "no worker could load it"
    assert isinstance(planes.load(compiled(A, 60 * MB)), LoadFailed)
    plane.failure = None

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(plane, "load", fail)
        with pytest.raises(ZeroDivisionError):
            planes.load(compiled(A, 60 * MB))
    assert planes.load(compiled(B, 60 * MB)) == Loaded(B)


def test_hosted_versions_need_no_room(planes: BudgetedPlanes) -> None:
    planes.load(compiled(A, 100 * MB))
    assert planes.load(Load(B, Hosted(SIGNATURE, "sklearn", 1))) == Loaded(B)
