"""Each decision of an operator: what it changes, what it leaves in the history, and when it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from serving.domain.decision import (
    AcceptStateLoss,
    Decision,
    DecisionDone,
    DecisionOutcome,
    DecisionRefused,
    LoadModel,
    PinVersion,
    RefreshStore,
    RefusalCause,
    ReleaseVersion,
    RemoveLabel,
    RollBackModel,
    SetLabel,
    UnloadModel,
    UnpinModel,
)
from serving.domain.errors import StateUnavailable
from serving.domain.event_page import HistoryQuery
from serving.domain.listing import Entry, FileStamp
from serving.domain.report import CandidateReport, GateResult, Verdict
from serving.domain.state import State
from serving.domain.status import ModelSummary
from serving.domain.version import Format
from serving.lifecycle.environment_watch import EnvironmentWatch
from serving.lifecycle.exclusion import Exclusion
from serving.lifecycle.history import History
from serving.lifecycle.inbox import PendingDecision
from serving.lifecycle.journal import Journal
from serving.lifecycle.operations import Operations
from serving.lifecycle.records import ModelRecord, VersionRecord
from serving.telemetry.metrics import Metrics
from tests.fakes import make_model_status, make_status

ACTOR = "admin@127.0.0.1"
REFUSED = CandidateReport(gates=(GateResult(gate="golden", verdict=Verdict.REFUSED, evidence="row 3 differs"),))


class Scene:
    """A model `m` with version 3 active, 2 loaded beside it and 1 in the store only; what is carried out is counted."""

    def __init__(self, path: Path) -> None:
        self.history = History(path, "basis", 100)
        self.history.open()
        decisions, verdicts = self.history.decisions, self.history.verdicts
        self.journal = Journal(self.history.events, verdicts, Metrics("0"))
        environments = EnvironmentWatch(lambda: "", verdicts, 1.0)
        self.exclusion = Exclusion(self.journal, decisions, verdicts, self.history.served, environments)
        self.model = ModelRecord("m")
        for version, state in (("3", State.ACTIVE), ("2", State.READY), ("1", State.DISCOVERED)):
            self.model.listed[version] = make_record(version, state)
        self.active, self.standby, self.listed = self.model.listed.values()
        self.model.active, self.model.standbys = self.active, [self.standby]
        self.advanced: list[str] = []
        self.looks = 0
        table = SimpleNamespace(models={"m": self.model}, advance=lambda model, _now: self.advanced.append(model.name))
        poller = SimpleNamespace(hurry=self._hurry)
        rollouts = cast("Any", None)
        self.operations = Operations(
            cast("Any", poller), cast("Any", table), self.exclusion, self.history, self.journal, rollouts
        )

    def decide(self, decision: Decision) -> DecisionRefused | None:
        return self.operations.decide(decision, ACTOR)

    def refuse(self, decision: Decision) -> DecisionRefused:
        """Decide what is refused; nothing has changed then."""
        before = self.decisions()
        refusal = self.decide(decision)
        assert refusal is not None
        assert self.decisions() == before
        assert self.advanced == []
        assert self.entries() == []
        return refusal

    def decisions(self) -> tuple[Any, ...]:
        decided = self.history.decisions
        refusals = {*self.history.verdicts.refusals}
        return {**decided.pins}, {*decided.unloaded}, {*decided.quarantine}, {**decided.labels}, refusals

    def entries(self) -> list[tuple[str | None, str, str, str | None]]:
        """Return what the history says, oldest first."""
        self.history.flush()
        read = self.history.events.read_entries(HistoryQuery("m", limit=100))
        return [(one.version, one.event, one.actor, one.reason) for one in reversed(read)]

    def refuse_bytes(self, record: VersionRecord) -> None:
        """A gate has refused these bytes."""
        self.history.verdicts.note_refusal(record.id, REFUSED, None)
        record.report, record.state = REFUSED, State.REJECTED

    def _hurry(self) -> None:
        self.looks += 1


def make_record(version: str, state: State) -> VersionRecord:
    stamp = FileStamp("model.joblib", int(version), 1, 0, 0)
    entry = Entry("m", version, f"m/{version}", "model.joblib", Format.JOBLIB, (stamp,))
    return VersionRecord("m", version, (stamp,), 0.0, entry=entry, digest=f"sha256:{version}", state=state)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.history.close()


ABOUT_A_MODEL: tuple[Decision, ...] = (
    PinVersion("x", "1"),
    UnpinModel("x"),
    RollBackModel("x"),
    ReleaseVersion("x", "1"),
    UnloadModel("x"),
    LoadModel("x"),
    SetLabel("x", "best", "1"),
    RemoveLabel("x", "best"),
)


@pytest.mark.parametrize("decision", ABOUT_A_MODEL)
def test_every_decision_about_an_unknown_model_is_refused(scene: Scene, decision: Decision) -> None:
    reason = "no model named 'x'; GET /models lists the ones there are"
    assert scene.refuse(decision) == DecisionRefused(RefusalCause.UNKNOWN_MODEL, reason)


DURABLE: tuple[Decision, ...] = (
    PinVersion("m", "1"),
    UnpinModel("m"),
    RollBackModel("m"),
    ReleaseVersion("m", "2"),
    UnloadModel("m"),
)


@pytest.mark.parametrize("decision", DURABLE)
def test_a_decision_that_cannot_be_kept_is_refused(
    scene: Scene, decision: Decision, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(decision, UnpinModel):
        scene.history.decisions.pin("m", "2")
    monkeypatch.setattr(scene.history._file._database, "write", _fail)
    before = scene.decisions()
    assert scene.decide(decision) == DecisionRefused(RefusalCause.NOT_DURABLE, "the disk is full")
    assert scene.decisions() == before
    assert scene.advanced == []


def _fail(*_: Any, **__: Any) -> None:
    raise StateUnavailable("the disk is full")


# --- pin and unpin ----------------------------------------------------------------------------------------------------


def test_a_pin_is_kept_told_and_carried_out(scene: Scene) -> None:
    assert scene.decide(PinVersion("m", "1")) is None
    assert scene.history.decisions.pins == {"m": "1"}
    assert scene.entries() == [("1", "pin", ACTOR, None)]
    assert scene.advanced == ["m"]
    assert scene.decide(PinVersion("m", "1")) is None
    assert len(scene.entries()) == 1, "it was pinned to that already"


def test_a_pin_of_a_version_that_is_not_there_says_which_are(scene: Scene) -> None:
    reason = "'m' has no version '9' (it has 3, 2, 1)"
    assert scene.refuse(PinVersion("m", "9")) == DecisionRefused(RefusalCause.UNKNOWN_VERSION, reason)
    scene.model.listed = {}
    assert "(it has none)" in scene.refuse(PinVersion("m", "9")).reason
    scene.model.listed = {str(version): make_record(str(version), State.DISCOVERED) for version in range(112, 100, -1)}
    assert "109, 108, 107, 106, 105, 104, 103 and 2 more)" in scene.refuse(PinVersion("m", "9")).reason


def test_a_pin_of_what_is_loaded_or_kept_needs_no_file(scene: Scene) -> None:
    del scene.model.listed["2"]
    scene.model.kept = make_record("0", State.DISCOVERED)
    assert scene.decide(PinVersion("m", "2")) is None
    assert scene.decide(PinVersion("m", "0")) is None


def test_a_pin_of_what_may_not_answer_is_refused(scene: Scene) -> None:
    scene.history.decisions.quarantine_version(scene.listed.id)
    scene.refuse_bytes(scene.standby)
    scene.model.standbys = []
    advice = "POST /models/m/versions/{}/release lets it be tried again"
    reason = "version '1' cannot be pinned: in quarantine; " + advice.format(1)
    assert scene.refuse(PinVersion("m", "1")) == DecisionRefused(RefusalCause.NOT_POSSIBLE, reason)
    reason = "version '2' cannot be pinned: golden: row 3 differs; " + advice.format(2)
    assert scene.refuse(PinVersion("m", "2")) == DecisionRefused(RefusalCause.NOT_POSSIBLE, reason)


def test_a_version_that_recent_rows_speak_against_can_be_pinned(scene: Scene) -> None:
    result = GateResult(gate="replay", verdict=Verdict.REFUSED, evidence="3 of 1000 recent rows are not answered")
    scene.history.verdicts.note_refusal(scene.listed.id, CandidateReport(gates=(result,)), None)
    assert scene.decide(PinVersion("m", "1")) is None
    assert scene.exclusion.why_excluded(scene.model, scene.listed) is None


def test_a_pin_of_a_version_whose_copy_is_lost_is_refused(scene: Scene) -> None:
    scene.standby.is_copy_lost, scene.standby.host_problem = True, "its copy has changed"
    reason = "version '2' cannot be pinned: its copy has changed"
    assert scene.refuse(PinVersion("m", "2")) == DecisionRefused(RefusalCause.NOT_POSSIBLE, reason)


def test_a_pin_of_what_a_lone_file_may_hold_is_refused_until_it_is_read(scene: Scene) -> None:
    name = "20261120T120000Z"
    scene.history.lone_names.known["m", "sha256:9"] = name
    assert scene.refuse(PinVersion("m", name)).cause is RefusalCause.UNKNOWN_VERSION, "every file has been read"
    assert scene.listed.entry is not None
    scene.listed.entry, scene.listed.digest = replace(scene.listed.entry, is_lone=True), None
    refusal = scene.refuse(PinVersion("m", name))
    assert refusal.cause is RefusalCause.NOT_POSSIBLE
    assert refusal.reason.startswith(f"it is not known yet whether the file of 'm' is version '{name}'")


def test_an_unpin_lifts_the_pin_and_says_which(scene: Scene) -> None:
    assert scene.decide(UnpinModel("m")) is None
    assert scene.entries() == [], "there was none"
    scene.history.decisions.pin("m", "2")
    assert scene.decide(UnpinModel("m")) is None
    assert scene.history.decisions.pins == {}
    assert scene.entries() == [("2", "unpin", ACTOR, None)]
    assert scene.advanced == ["m", "m"]


# --- roll back and release --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", [None, "3"])
def test_a_rollback_puts_the_active_version_in_quarantine(scene: Scene, expected: str | None) -> None:
    assert scene.decide(RollBackModel("m", expected)) is None
    assert scene.history.decisions.quarantine == {("m", "3", "sha256:3")}
    assert scene.entries() == [("3", "rollback", ACTOR, "put in quarantine")]
    assert scene.advanced == ["m"]
    assert scene.decide(RollBackModel("m", expected)) is None
    assert len(scene.entries()) == 1, "it is in quarantine already"


def test_a_rollback_of_a_version_that_has_been_left_changes_nothing(scene: Scene) -> None:
    scene.history.decisions.quarantine_version(scene.listed.id)
    assert scene.decide(RollBackModel("m", "1")) is None
    assert scene.history.decisions.quarantine == {("m", "1", "sha256:1")}
    assert scene.entries() == []


def test_a_rollback_of_another_version_than_the_active_one_is_refused(scene: Scene) -> None:
    reason = "version '2' is not active, '3' is; nothing was changed"
    assert scene.refuse(RollBackModel("m", "2")) == DecisionRefused(RefusalCause.NOT_POSSIBLE, reason)


def test_a_rollback_without_an_active_version_is_refused(scene: Scene) -> None:
    scene.model.active = None
    reason = "'m' has no active version to leave"
    assert scene.refuse(RollBackModel("m")) == DecisionRefused(RefusalCause.NOT_POSSIBLE, reason)


def test_a_rollback_of_a_pinned_model_is_refused(scene: Scene) -> None:
    scene.history.decisions.pin("m", "3")
    reason = "'m' is pinned to '3'; unpin it first"
    assert scene.refuse(RollBackModel("m")) == DecisionRefused(RefusalCause.NOT_POSSIBLE, reason)


def test_a_rollback_needs_another_version_that_may_answer(scene: Scene) -> None:
    reason = "'m' has no other valid version than '3' to go back to"
    scene.standby.is_copy_lost = True
    scene.refuse_bytes(scene.listed)
    assert scene.refuse(RollBackModel("m")) == DecisionRefused(RefusalCause.NOT_POSSIBLE, reason)
    scene.standby.is_copy_lost = False
    assert scene.decide(RollBackModel("m")) is None


def test_while_decisions_are_lost_only_a_loaded_version_is_one_to_go_back_to(scene: Scene) -> None:
    scene.history.decisions.held, scene.model.standbys = "lost", []
    assert "no other valid version" in scene.refuse(RollBackModel("m")).reason
    scene.model.standbys = [scene.standby]
    assert "no other valid version" in scene.refuse(RollBackModel("m")).reason  # it is loaded for a label only
    scene.standby.was_active = True
    assert scene.decide(RollBackModel("m")) is None


def test_a_label_is_decided_once_and_moves(scene: Scene) -> None:
    for version in ("2", "2", "1"):
        assert scene.decide(SetLabel("m", "best", version)) is None
    assert scene.history.decisions.labels == {("m", "best"): "1"}
    assert scene.entries() == [
        ("2", "label", ACTOR, "label 'best'"),
        ("1", "label", ACTOR, "label 'best', which named version '2'"),
    ]
    assert scene.advanced == ["m"] * 3


def test_a_label_is_removed_once_with_what_it_answered_with(scene: Scene) -> None:
    assert scene.decide(SetLabel("m", "best", "2")) is None
    scene.history.served.note_labels("m", [("best", scene.standby.id)])
    for _ in range(2):
        assert scene.decide(RemoveLabel("m", "best")) is None
    assert (scene.history.decisions.labels, scene.history.served.labelled) == ({}, {"m": {}})
    assert scene.entries()[1:] == [("2", "unlabel", ACTOR, "label 'best'")]


def test_what_cannot_be_labelled_says_why(scene: Scene) -> None:
    unknown = scene.refuse(SetLabel("m", "best", "9"))
    assert (unknown.cause, unknown.reason) == (RefusalCause.UNKNOWN_VERSION, "'m' has no version '9' (it has 3, 2, 1)")
    assert "no label can be called that" in scene.refuse(SetLabel("m", "predict", "1")).reason
    scene.refuse_bytes(scene.listed)
    refused = scene.refuse(SetLabel("m", "best", "1"))
    assert (refused.cause, "cannot be labelled: golden: row 3 differs" in refused.reason) == (
        RefusalCause.NOT_POSSIBLE,
        True,
    )
    scene.history.decisions.quarantine_version(scene.standby.id)
    assert "in quarantine" in scene.refuse(SetLabel("m", "best", "2")).reason


def test_a_release_lifts_the_quarantine_and_forgets_the_verdict(scene: Scene) -> None:
    record = scene.listed
    scene.history.decisions.quarantine_version(record.id)
    scene.refuse_bytes(record)
    record.failures = record.host_deaths = 2
    record.not_before = 99.0
    assert scene.decide(ReleaseVersion("m", "1")) is None
    assert (scene.history.decisions.quarantine, scene.history.verdicts.refusals) == (set(), {})
    assert (record.failures, record.host_deaths, record.not_before) == (0, 0, 0.0)
    assert (record.state, record.report) == (State.DISCOVERED, None)
    assert scene.entries() == [("1", "release", ACTOR, None), ("1", "transition", ACTOR, "released")]
    assert scene.advanced == ["m"]


def test_a_release_of_a_version_with_a_problem_in_the_store_leaves_it_rejected(scene: Scene) -> None:
    assert scene.listed.entry is not None
    scene.listed.entry = replace(scene.listed.entry, problem="two model files")
    scene.listed.state = State.REJECTED
    assert scene.decide(ReleaseVersion("m", "1")) is None
    assert scene.listed.state is State.REJECTED


def test_a_release_of_a_loaded_version_leaves_its_state(scene: Scene) -> None:
    scene.history.decisions.quarantine_version(scene.active.id)
    assert scene.decide(ReleaseVersion("m", "3")) is None
    assert (scene.history.decisions.quarantine, scene.active.state) == (set(), State.ACTIVE)


def test_a_release_of_a_version_that_is_gone_needs_only_its_name(scene: Scene) -> None:
    scene.history.decisions.quarantine_version(scene.listed.id)
    del scene.model.listed["1"]
    assert scene.decide(ReleaseVersion("m", "1")) is None
    assert scene.history.decisions.quarantine == set()
    assert scene.entries() == [("1", "release", ACTOR, None)]


def test_a_release_of_a_version_that_nothing_is_known_of_is_refused(scene: Scene) -> None:
    reason = "'m' has no version '9' (it has 3, 2, 1)"
    assert scene.refuse(ReleaseVersion("m", "9")) == DecisionRefused(RefusalCause.UNKNOWN_VERSION, reason)


# --- unload and load --------------------------------------------------------------------------------------------------


def test_an_unload_is_kept_until_a_load(scene: Scene) -> None:
    assert scene.decide(LoadModel("m")) is None
    assert scene.entries() == [], "it was not unloaded"
    for _ in range(2):
        assert scene.decide(UnloadModel("m")) is None
        assert scene.history.decisions.unloaded == {"m"}
    scene.model.active = None
    for _ in range(2):
        assert scene.decide(LoadModel("m")) is None
        assert scene.history.decisions.unloaded == set()
    assert scene.entries() == [("3", "unload", ACTOR, None), (None, "load", ACTOR, None)]
    assert scene.advanced == ["m"] * 5


def test_an_unload_of_a_model_with_nothing_active_names_no_version(scene: Scene) -> None:
    scene.model.active = None
    assert scene.decide(UnloadModel("m")) is None
    assert scene.entries() == [(None, "unload", ACTOR, None)]


# --- about all models -------------------------------------------------------------------------------------------------


def test_a_refresh_makes_a_look_at_the_store_due(scene: Scene) -> None:
    assert scene.decide(RefreshStore()) is None
    assert scene.looks == 1
    assert scene.entries() == []


def test_a_loss_of_decisions_is_accepted_once(scene: Scene) -> None:
    assert scene.decide(AcceptStateLoss()) is None
    assert scene.entries() == [], "nothing has been lost"
    scene.history.decisions.held = "the database was damaged"
    assert scene.decide(AcceptStateLoss()) is None
    assert scene.history.decisions.held is None
    assert scene.entries() == [(None, "accept-state-loss", ACTOR, "the database was damaged")]
    assert scene.journal.dirty == {"m"}, "the turn looks at every model again"


# --- taking and answering ---------------------------------------------------------------------------------------------


def take(scene: Scene, decision: Decision) -> Future[DecisionOutcome]:
    pending = PendingDecision(decision, ACTOR, Future())
    scene.operations.take(pending)
    return pending.outcome


def names_and_pins(answered: Future[DecisionOutcome]) -> list[tuple[str, str | None]]:
    outcome = answered.result(0)
    assert isinstance(outcome, DecisionDone)
    return [(model.name, model.pinned) for model in outcome.models]


def test_what_has_been_carried_out_is_answered_when_the_turn_has_ended(scene: Scene) -> None:
    first, second = take(scene, PinVersion("m", "1")), take(scene, RefreshStore())
    assert scene.history.decisions.pins == {"m": "1"}
    assert not first.done()
    assert not second.done()
    known = [make_model_status(name).model_copy(update={"pinned": "1"}) for name in ("a", "m")]
    scene.operations.answer(make_status(*known))
    assert names_and_pins(first) == [("m", "1")]
    assert names_and_pins(second) == [("a", "1"), ("m", "1")]
    scene.operations.answer(make_status())  # each is answered once


@pytest.mark.parametrize("decision", [AcceptStateLoss(), UnpinModel("m")])
def test_an_answer_holds_summaries_only(scene: Scene, decision: Decision) -> None:
    taken = take(scene, decision)
    scene.operations.answer(make_status(make_model_status("m")))
    outcome = taken.result(0)
    assert isinstance(outcome, DecisionDone)
    assert [type(model) for model in outcome.models] == [ModelSummary]


def test_a_model_that_is_gone_when_the_turn_has_ended_is_answered_by_its_name(scene: Scene) -> None:
    taken = take(scene, UnloadModel("m"))
    scene.operations.answer(make_status())
    assert taken.result(0) == DecisionDone((ModelSummary(name="m", active=None, unloaded=True),))


def test_a_refusal_is_answered_at_once(scene: Scene) -> None:
    outcome = take(scene, RollBackModel("m", "2")).result(0)
    assert isinstance(outcome, DecisionRefused)
    scene.operations.answer(make_status())  # and not once more


def test_a_decision_whose_caller_has_gone_is_not_carried_out(scene: Scene) -> None:
    pending = PendingDecision(PinVersion("m", "1"), ACTOR, Future())
    assert pending.outcome.cancel()
    scene.operations.take(pending)
    scene.operations.answer(make_status())
    assert scene.history.decisions.pins == {}
    assert scene.advanced == []


def test_a_bug_in_a_decision_reaches_its_caller_and_nobody_else(scene: Scene) -> None:
    scene.model.listed = cast("Any", None)
    taken, other = take(scene, PinVersion("m", "1")), take(scene, RefreshStore())
    assert isinstance(taken.exception(0), AttributeError)
    scene.operations.answer(make_status())
    assert other.result(0) == DecisionDone(())
