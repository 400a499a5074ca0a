"""Operators' decisions from the event loop to the reconciler's thread and back, over a plane that builds nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.domain.decision import (
    AcceptStateLoss,
    Decision,
    DecisionDone,
    LoadModel,
    PinVersion,
    RefreshStore,
    ReleaseVersion,
    RollBackModel,
    UnloadModel,
    UnpinModel,
)
from serving.domain.errors import OperationRefused, UnknownModel, UnknownVersion
from serving.domain.event_page import HistoryQuery
from serving.domain.listing import Listing
from serving.domain.status import ModelSummary, Status, StoreStatus
from serving.lifecycle.exclusion import Exclusion
from serving.lifecycle.operations import Operations
from serving.lifecycle.operator import ReconcilerOperator
from serving.lifecycle.reconciler import Reconciler
from serving.lifecycle.upload_table import UploadTable
from tests.fakes import run
from tests.unit.lifecycle.control import Control, entry

ACTOR = "admin@127.0.0.1"


class Poller:
    """Stands for the store: the test says what it holds, and may hold up the look at it."""

    path = "/store"
    status = StoreStatus(is_available=True)

    def __init__(self, *versions: str) -> None:
        self.listing = Listing({"m": tuple(entry(version) for version in versions)})
        self.may_look = threading.Event()
        self.threads: set[str] = set()
        self._is_due = True

    def hurry(self) -> None:
        self.threads.add(threading.current_thread().name)
        self._is_due = True

    def is_due(self, _now: float) -> bool:
        return self._is_due

    def next_due(self) -> float:
        return time.monotonic() + 60

    def look(self) -> Listing:
        self._is_due = False
        assert self.may_look.wait(20)
        return self.listing

    def took_in(self, *_: Any, **__: Any) -> None:
        """Have nothing to tell of the store."""


class Scene:
    """A model `m`: version 2 answers, 1 is loaded beside it."""

    def __init__(self, directory: Path) -> None:
        self.control = control = Control(directory)
        for versions in (("1",), ("2", "1")):
            control.drop(*versions)
            control.serve(versions[0])
        history, journal = control.history, control.journal
        self.poller = Poller("2", "1")
        poller: Any = self.poller
        cache: Any = SimpleNamespace(evict=lambda _: None, artifacts=lambda _: ())
        exclusion = Exclusion(journal, history.decisions, history.verdicts, history.served, control.environments)
        operations = Operations(poller, control.table, exclusion, history, journal, control.table.rollouts)
        self.state = SimpleNamespace(status=Status())
        self.reconciler = Reconciler(
            *(self.state, poller, cache, control.table, exclusion, history, journal, operations, control.environments),
            UploadTable(),
        )
        self.operator = ReconcilerOperator(self.reconciler, history)
        self.reconciler.start()

    def decide(self, decision: Decision) -> tuple[ModelSummary, ...]:
        return run(self.operator.decide(decision, ACTOR))


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Scene]:
    """A scene in which the first look at the store has not ended."""
    made = Scene(tmp_path)
    yield made
    made.poller.may_look.set()
    made.reconciler.stop()


@pytest.fixture
def scene(waiting: Scene) -> Scene:
    waiting.poller.may_look.set()
    return waiting


def test_a_decision_is_answered_when_it_is_published(scene: Scene) -> None:
    (model,) = scene.decide(PinVersion("m", "1"))
    assert (model.pinned, scene.state.status.models["m"].pinned, scene.control.active) == ("1", "1", "1")
    assert model.active is not None
    assert model.active.version == "1"
    (model,) = scene.decide(UnpinModel("m"))
    assert (model.pinned, scene.control.active) == (None, "2")


def test_a_rollback_activates_the_standby_and_a_release_lifts_the_quarantine(scene: Scene) -> None:
    (model,) = scene.decide(RollBackModel("m", "2"))
    assert [one.version for one in model.quarantined] == ["2"]
    assert scene.control.active == "1"
    (model,) = scene.decide(ReleaseVersion("m", "2"))
    assert model.quarantined == ()


def test_an_unload_leaves_nothing_loaded_until_a_load(scene: Scene) -> None:
    (model,) = scene.decide(UnloadModel("m"))
    assert (model.unloaded, model.active, scene.control.loaded) == (True, None, [])
    (model,) = scene.decide(LoadModel("m"))
    assert not model.unloaded


def test_a_refresh_is_answered_when_the_store_has_been_looked_at(scene: Scene) -> None:
    scene.decide(RefreshStore())
    scene.poller.listing = Listing({**scene.poller.listing.models, "n": (entry("1"),)})
    assert [model.name for model in scene.decide(RefreshStore())] == ["m", "n"]
    assert [model.name for model in scene.decide(AcceptStateLoss())] == ["m", "n"]


def test_decisions_are_carried_out_on_the_reconcilers_thread(scene: Scene) -> None:
    scene.decide(RefreshStore())
    assert scene.poller.threads == {"serving-reconciler"}


def test_a_decision_waits_for_the_first_look_at_the_store(waiting: Scene) -> None:
    """Before that it would be about models that are not known yet."""
    waiting.poller.listing = Listing({**waiting.poller.listing.models, "n": (entry("1"),)})
    outcome = waiting.reconciler.decide(PinVersion("n", "1"), ACTOR)
    waiting.poller.may_look.set()
    assert isinstance(outcome.result(20), DecisionDone)


@pytest.mark.parametrize(
    ("decision", "error"),
    [
        (UnpinModel("x"), UnknownModel("no model named 'x'; GET /models lists the ones there are")),
        (PinVersion("m", "9"), UnknownVersion("'m' has no version '9' (it has 2, 1)")),
        (RollBackModel("m", "1"), OperationRefused("version '1' is not active, '2' is; nothing was changed")),
    ],
)
def test_a_refusal_is_raised_as_the_error_it_stands_for(scene: Scene, decision: Decision, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        scene.decide(decision)
    assert (type(raised.value), str(raised.value)) == (type(error), str(error))


def test_a_bug_reaches_the_caller_and_the_reconciler_goes_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene.poller, "hurry", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        scene.decide(RefreshStore())
    assert scene.decide(PinVersion("m", "1"))[0].pinned == "1"


def test_a_caller_that_gives_up_before_its_turn_has_decided_nothing(waiting: Scene) -> None:
    async def give_up() -> None:
        asked = asyncio.create_task(waiting.operator.decide(PinVersion("m", "1"), ACTOR))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    run(give_up())
    waiting.poller.may_look.set()
    (model,) = waiting.decide(UnpinModel("m"))
    assert model.pinned is None
    assert [one.event for one in run(waiting.operator.history(HistoryQuery("m"))) if one.actor == ACTOR] == []


def test_the_history_names_who_decided(scene: Scene) -> None:
    scene.decide(PinVersion("m", "1"))
    calls = [one for one in run(scene.operator.history(HistoryQuery("m"))) if one.event == "pin"]
    assert [(one.version, one.actor) for one in calls] == [("1", ACTOR)]
    assert run(scene.operator.history(HistoryQuery("x"))) == ()
