"""The state machine of control with a plane that builds nothing: races and orders that processes show only by luck."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serving.domain.environment import Choice
from serving.domain.plan import Drained, HostGone
from serving.domain.state import State
from serving.lifecycle.candidate import (
    CandidateFailed,
    CandidateRefused,
    CandidateStaged,
    CandidateStopped,
    CandidateUnfinished,
    CopyDamaged,
    CopyLost,
)
from serving.lifecycle.evaluation_request import Comparison
from serving.lifecycle.records import ModelRecord
from tests.unit.lifecycle.control import QUIET_SECONDS, Control, Work, artifact, entry, identity, refused

NONE_FITS = refused("environment").model_copy(update={"environment": Choice(name=None, reason="none fits")})


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = Control(tmp_path)
    yield made
    made.history.close()


def test_a_version_answers_when_it_is_staged_evaluated_and_loaded(control: Control) -> None:
    control.drop("1")
    assert control.work == ["stage 1"]
    control.stage("1")
    assert control.work == ["evaluate 1"]
    assert control.active is None
    control.pass_gates("1")
    assert (control.active, control.state("1")) == ("1", State.ACTIVE)


def test_the_version_before_stays_loaded_and_the_one_before_that_is_unloaded(control: Control) -> None:
    control.drop("1")
    control.serve("1")
    control.drop("2", "1")
    control.serve("2")
    assert (control.active, control.loaded) == ("2", ["2", "1"])
    control.drop("3", "2", "1")
    control.serve("3")
    assert (control.active, control.loaded) == ("3", ["3", "2"])
    assert control.plane.unloaded == [identity("1")]
    assert control.state("1") is State.DRAINING
    control.tell(Drained(identity("1")))
    assert control.state("1") is State.RETIRED


def test_a_refusal_changes_nothing_that_answers(control: Control) -> None:
    control.drop("1")
    control.serve("1")
    control.drop("2", "1")
    control.stage("2")
    control.refuse("2")
    assert (control.active, control.loaded) == ("1", ["1"])
    assert control.state("2") is State.REJECTED
    assert control.work == []
    assert control.model.last_failure is not None


def test_a_version_without_an_environment_is_tried_again_when_one_appears(control: Control) -> None:
    control.drop("1")
    control.stage("1")
    control.finish(CandidateRefused(NONE_FITS))
    assert control.state("1") is State.REJECTED
    control.now += 10.0
    control.turn()
    assert control.work == []  # nothing has changed
    control.fingerprint = "with another one"
    control.turn()
    assert control.work == []  # looked at once a second
    control.now += 1.0
    control.turn()
    assert control.work == ["evaluate 1"]
    control.pass_gates("1")
    assert control.active == "1"


def test_an_environment_that_appears_while_a_version_is_refused_is_not_missed(control: Control) -> None:
    control.drop("1")
    control.stage("1")
    control.fingerprint = "with another one"
    control.finish(CandidateRefused(NONE_FITS))
    control.now += 1.0
    control.turn()
    assert control.work == ["evaluate 1"]
    control.finish(CandidateRefused(NONE_FITS))
    control.now += 10.0
    control.turn()
    assert control.work == []


def test_a_refusal_in_another_environment_is_tried_again_when_that_changes(control: Control) -> None:
    control.drop("1")
    control.stage("1")
    report = refused("golden").model_copy(update={"environment": Choice(name="sk15", reason="it fits")})
    control.finish(CandidateRefused(report))
    control.fingerprint = "with another one"
    control.now += 1.0
    control.turn()
    assert control.work == ["evaluate 1"]


def test_other_refusals_do_not_depend_on_environments(control: Control) -> None:
    control.drop("1")
    control.stage("1")
    control.refuse("1", "golden")
    control.fingerprint = "with another one"
    control.now += 10.0
    control.turn()
    assert control.work == []


def test_the_next_host_runs_in_the_environment_of_the_one_that_died(control: Control) -> None:
    control.drop("1")
    control.serve("1")
    record = control.record("1")
    assert record.report is not None
    record.report = record.report.model_copy(update={"environment": Choice(name="sk15", reason="it fits")})
    control.tell(HostGone(identity("1"), record.host, None, True))
    [respawn] = control.threads.waiting
    assert respawn.arguments[-1] is record.report


def test_a_newer_version_stops_the_one_under_way(control: Control) -> None:
    control.drop("1")
    control.stage("1")
    (work,) = control.threads.waiting
    candidate = work.arguments[0]
    assert not candidate.cancelled.is_set()
    control.drop("2", "1")
    assert candidate.cancelled.is_set()
    assert control.work == ["evaluate 1"], "one at a time: the next one starts when this one has ended"
    control.finish(CandidateStopped())
    assert control.work == ["stage 2"]


def test_what_passed_although_it_was_stopped_is_superseded_at_once(control: Control) -> None:
    """The stop came when the evaluation had ended already."""
    control.drop("1")
    control.stage("1")
    control.drop("2", "1")
    control.pass_gates("1")
    assert control.active == "1", "better than nothing"
    control.serve("2")
    assert control.active == "2"


def test_a_version_that_is_ready_and_not_chosen_can_be_asked_for_by_name(control: Control) -> None:
    """An operator has pinned another one when its evaluation had just ended."""
    control.drop("1")
    control.serve("1")
    control.drop("2", "1")
    control.stage("2")
    control.history.decisions.pin("m", "1")
    control.mark()
    control.pass_gates("2")
    assert (control.active, control.state("2")) == ("1", State.READY)
    assert control.loaded == ["1", "2"]


def test_a_version_whose_files_go_while_it_is_evaluated_does_not_answer(control: Control) -> None:
    control.drop("1")
    control.serve("1")
    control.drop("2", "1")
    control.stage("2")
    control.drop("1")
    control.finish(CandidateStopped())
    assert (control.active, control.work) == ("1", [])


def test_files_that_change_while_they_are_copied_are_copied_again(control: Control) -> None:
    control.drop("1")
    control.finish(CandidateUnfinished("changed while it was read"))
    assert control.work == []
    control.now = control.record("1").not_before
    control.turn()
    assert control.work == ["stage 1"]


def test_a_failure_from_outside_is_tried_again_later_and_less_and_less_often(control: Control) -> None:
    control.drop("1")
    control.finish(CandidateFailed("no space left"))
    assert control.state("1") is State.FAILED
    first = control.record("1").not_before
    control.now = first
    control.mark()
    assert control.work == ["stage 1"]
    control.finish(CandidateFailed("no space left"))
    assert control.record("1").failures == 2
    control.mark()
    assert control.work == []


def test_a_worker_that_crashes_is_a_failure_and_not_the_end(control: Control) -> None:
    control.drop("1")
    control.finish(RuntimeError("a defect"))
    assert control.state("1") is State.FAILED
    assert control.record("1").reason is not None
    assert "RuntimeError: a defect" in control.record("1").reason


def test_a_host_that_dies_twice_while_it_is_evaluated_is_a_verdict(control: Control) -> None:
    control.drop("1")
    control.stage("1")
    control.finish(CandidateFailed("the host died", is_host_death=True))
    assert control.state("1") is State.FAILED
    control.now = control.record("1").not_before
    control.mark()
    assert control.work == ["evaluate 1"], "once more"
    control.finish(CandidateFailed("the host died", is_host_death=True))
    assert control.state("1") is State.REJECTED


def test_a_damaged_copy_is_made_again(control: Control) -> None:
    control.drop("1")
    control.stage("1")
    control.finish(CopyDamaged("other bytes than were hashed"))
    control.now = control.record("1").not_before
    control.mark()
    assert control.work == ["stage 1"]


def test_a_host_that_dies_before_its_version_is_ready_is_replaced_as_soon_as_it_is(control: Control) -> None:
    control.drop("1")
    control.stage("1")
    control.tell(HostGone(identity("1"), 1, None, has_answered=False))
    assert control.work == ["evaluate 1"], "its evaluation has not ended"
    control.pass_gates("1")
    assert control.active == "1", "it is there, and requests wait for its host"
    assert control.work == ["respawn 1 as 2"]
    control.finish(None)
    assert control.work == []


def test_a_host_that_dies_before_its_own_respawn_is_told_is_replaced_again(control: Control) -> None:
    control.drop("1")
    control.serve("1")
    control.tell(HostGone(identity("1"), 1, None, has_answered=True))
    assert control.work == ["respawn 1 as 2"]
    control.tell(HostGone(identity("1"), 2, None, has_answered=True))
    assert control.work == ["respawn 1 as 2"], "one at a time"
    control.finish(None)
    control.mark()
    assert control.work == ["respawn 1 as 3"]


def test_the_host_of_a_version_that_leaves_is_not_replaced(control: Control) -> None:
    for versions in (("1",), ("2", "1"), ("3", "2", "1")):
        control.drop(*versions)
        control.serve(versions[0])
    assert control.state("1") is State.DRAINING
    control.tell(HostGone(identity("1"), 1, None, has_answered=True))
    assert control.work == []
    control.tell(Drained(identity("1")))
    assert control.state("1") is State.RETIRED


def drain_during_respawn(control: Control) -> Work:
    """Let version 1, whose host is being brought back, drain before that ends; return the work on its host."""
    control.drop("1")
    control.serve("1")
    control.drop("2", "1")
    control.serve("2")
    control.tell(HostGone(identity("1"), 1, None, has_answered=True))
    assert control.work == ["respawn 1 as 3"]
    respawn = control.threads.waiting.pop()
    control.drop("3", "2", "1")
    control.serve("3")
    return respawn


def test_a_respawn_that_ends_when_its_version_is_unloaded_changes_nothing(control: Control) -> None:
    respawn = drain_during_respawn(control)
    control.threads.waiting.append(respawn)  # it took longer than the next version
    assert control.state("1") is State.DRAINING
    control.finish("the version is not loaded any more")
    assert control.plane.outages == []
    control.tell(Drained(identity("1")))
    assert (control.state("1"), control.work) == (State.RETIRED, [])


def test_a_respawn_that_ends_when_its_version_is_loaded_again_says_nothing_of_the_new_host(control: Control) -> None:
    respawn = drain_during_respawn(control)
    control.tell(Drained(identity("1")))
    control.history.decisions.pin("m", "1")
    control.mark()
    control.serve("1")
    record = control.record("1")
    assert (control.active, record.host, record.host_problem, record.is_host_lost) == ("1", 5, None, False)
    control.tell(HostGone(identity("1"), 5, None, has_answered=True))
    assert control.work == [], "one at a time"
    control.threads.waiting.append(respawn)
    control.finish(None)
    assert record.host == 5
    assert control.work == ["respawn 1 as 6"]


def test_a_version_whose_copy_was_lost_is_loaded_again_from_the_store(control: Control) -> None:
    control.drop("1")
    control.serve("1")
    control.drop("2", "1")
    control.serve("2")
    control.tell(HostGone(identity("1"), 1, None, has_answered=True))
    control.finish(CopyLost("the copy is damaged, and the store cannot be read"))
    control.tell(Drained(identity("1")))
    assert control.state("1") is State.RETIRED
    control.history.decisions.quarantine_version(identity("2"))
    control.mark()
    control.serve("1")
    assert (control.active, control.work) == ("1", [])


def test_what_was_active_before_a_restart_can_be_loaded_after_it_was_unloaded_too_late(control: Control) -> None:
    """The operator's call came when its evaluation had just ended."""
    control.table.restore(artifact("1"), control.now)
    control.drop("2", "1")
    assert control.work == ["evaluate 1"]
    control.history.decisions.unload("m")
    control.mark()
    control.pass_gates("1")
    assert (control.active, control.loaded) == (None, [])
    control.tell(Drained(identity("1")))
    control.history.decisions.load("m")
    control.mark()
    assert control.work == ["evaluate 1"], "a restart changes nothing"
    control.pass_gates("1")
    assert control.active == "1"
    assert control.work == ["stage 2"]


def test_a_version_that_is_pinned_while_it_drains_is_loaded_when_it_is_free(control: Control) -> None:
    for versions in (("1",), ("2", "1"), ("3", "2", "1")):
        control.drop(*versions)
        control.serve(versions[0])
    control.history.decisions.pins["m"] = "1"
    control.mark()
    assert control.work == []
    control.tell(Drained(identity("1")))
    assert control.work == ["stage 1"]
    control.serve("1")
    assert (control.active, control.loaded) == ("1", ["1", "3"])


def test_the_same_bytes_under_new_times_are_not_loaded_again(control: Control) -> None:
    control.drop("1")
    control.serve("1")
    control.model.listed.clear()
    control.model.active.entry = None  # type: ignore[union-attr]
    control.drop("1")
    assert control.work == ["stage 1"]
    control.finish(CandidateStaged(artifact("1")))
    assert (control.active, control.work) == ("1", [])


def test_what_goes_wrong_with_a_model_that_waited_for_room_does_not_end_the_turn(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, advanced = control.table.advance, list[str]()

    def advance_or_fail(model: ModelRecord, now: float) -> None:
        if model.name == "o":
            raise RuntimeError("a defect")
        advanced.append(model.name)
        advance(model, now)

    listed = {name: (replace(entry("1"), model=name),) for name in "mno"}
    control.table.update(listed, control.now - QUIET_SECONDS)
    control.turn()
    assert control.work == ["stage 1"] * 2, "there is room for two, and the third one waits"
    monkeypatch.setattr(control.table, "advance", advance_or_fail)
    control.finish(CandidateFailed("no space left"))
    assert (advanced, control.work) == (["m", "n"], ["stage 1"])


def test_what_goes_wrong_with_one_model_leaves_the_turn_whole(control: Control) -> None:
    control.drop("1")
    control.stage("1")
    control.plane.loaded.clear()
    with pytest.raises(AssertionError, match="names what is not loaded"):
        control.table._activation.publish(_with_active(control))


def _with_active(control: Control) -> object:
    control.model.active = control.record("1")
    return control.model


# --- recent rows ------------------------------------------------------------------------------------------------------


def replayed(control: Control) -> str | None:
    """Return the version whose recent rows the candidate under evaluation answers."""
    call = control.threads.waiting[0].call
    comparison = next(
        cell.cell_contents for cell in call.__closure__ or () if isinstance(cell.cell_contents, Comparison)
    )
    return None if comparison.replayed is None else comparison.replayed.version


def test_a_newer_version_answers_the_recent_rows_of_the_active_one(control: Control) -> None:
    control.drop("2")
    control.stage("2")
    assert replayed(control) is None, "nothing is active"
    control.pass_gates("2")
    control.drop("3", "2")
    control.stage("3")
    assert replayed(control) == "2"


def test_an_older_version_and_a_pinned_one_were_chosen_by_an_operator(control: Control) -> None:
    control.drop("2", "1")
    control.serve("2")
    control.history.decisions.pin("m", "1")
    control.mark()
    control.stage("1")
    assert replayed(control) is None, "older"
    control.pass_gates("1")
    control.history.decisions.pin("m", "3")
    control.drop("3", "2", "1")
    control.stage("3")
    assert replayed(control) is None, "pinned"


def test_a_refusal_by_recent_rows_holds_against_the_active_version_only(control: Control) -> None:
    control.drop("1")
    control.serve("1")
    control.drop("2", "1")
    control.stage("2")
    control.refuse("2", "replay")
    control.mark()
    assert (control.work, control.active, control.state("2")) == ([], "1", State.REJECTED)
    exclusion = control.table._exclusion
    assert exclusion.is_refused(control.model, control.record("2"))
    control.drop("3", "2", "1")
    control.serve("3")
    assert control.active == "3"
    assert not exclusion.is_refused(control.model, control.record("2")), "it may be tried again"


def test_a_refusal_by_recent_rows_of_a_version_that_has_gone_meanwhile_does_not_hold(control: Control) -> None:
    control.drop("1")
    control.serve("1")
    control.drop("2", "1")
    control.stage("2")
    control.history.served.contracts.clear()
    control.model.active = None
    control.refuse("2", "replay")
    assert not control.table._exclusion.is_refused(control.model, control.record("2"))


def test_a_pin_outweighs_a_refusal_by_recent_rows(control: Control) -> None:
    control.drop("1")
    control.serve("1")
    control.drop("2", "1")
    control.stage("2")
    control.refuse("2", "replay")
    assert control.work == []
    control.history.decisions.pin("m", "2")
    control.mark()
    assert control.work == ["evaluate 2"]
    control.pass_gates("2")
    assert control.active == "2"
