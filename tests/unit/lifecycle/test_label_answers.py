"""Labels: their versions are loaded and stay, they move in one plan, and what answered answers after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.domain.plan import Drained
from serving.domain.state import State
from serving.lifecycle.candidate import CandidateFailed, CandidateStaged, CopyDamaged
from serving.lifecycle.evaluation_request import Comparison
from serving.lifecycle.evaluation_runs import EvaluationRuns
from tests.unit.lifecycle.control import Control, artifact, identity


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """A model whose version 3 is active, 2 on standby, and 1 in the store only."""
    made = Control(tmp_path)
    for versions in (("1",), ("2", "1"), ("3", "2", "1")):
        made.drop(*versions)
        made.serve(versions[0])
    made.tell(Drained(identity("1")))
    yield made
    made.history.close()


def label(control: Control, name: str, version: str) -> None:
    control.history.decisions.set_label("m", name, version)
    control.mark()


def unlabel(control: Control, name: str) -> None:
    control.history.decisions.remove_label("m", name)
    control.history.served.forget_label("m", name)
    control.mark()


def answers(control: Control) -> dict[str, str | None]:
    """Return the version that answers for each label, as the plane has it."""
    route = control.plane.route("m")
    assert route is not None
    return {name: None if key is None else key.version for name, key in route.labels}


def restarted(control: Control, tmp_path: Path, *listed: str) -> Control:
    """Return control after a restart: the cache has what answered, the store has these versions."""
    control.history.flush()
    control.history.close()
    after = Control(tmp_path)
    served = after.history.served
    for name, version, _ in served.list_answers("m", after.history.decisions.labels_of("m")):
        after.table.restore(artifact(version), after.now, name)
    if listed:
        after.drop(*listed)
    else:
        after.turn()
    return after


def test_a_version_that_is_not_loaded_is_loaded_for_its_label_and_not_activated(control: Control) -> None:
    label(control, "old", "1")
    assert answers(control) == {"old": None}
    assert control.work == ["stage 1"]
    control.serve("1")
    assert answers(control) == {"old": "1"}
    assert (control.active, control.loaded) == ("3", ["3", "2", "1"])


def test_a_label_on_a_loaded_version_answers_at_once(control: Control) -> None:
    before = control.plane.plan.generation
    label(control, "old", "2")
    assert answers(control) == {"old": "2"}
    assert control.plane.plan.generation == before + 1


def test_a_version_with_a_label_stays_when_newer_ones_come_and_goes_when_the_label_does(control: Control) -> None:
    label(control, "old", "2")
    control.drop("4", "3", "2", "1")
    control.serve("4")
    control.drop("5", "4", "3", "2", "1")
    control.serve("5")
    assert (control.active, control.loaded) == ("5", ["5", "4", "2"])
    unlabel(control, "old")
    assert (answers(control), control.loaded) == ({}, ["5", "4"])
    assert control.state("2") is State.DRAINING


def test_a_label_that_moves_answers_with_the_version_before_until_the_new_one_is_loaded(control: Control) -> None:
    label(control, "best", "2")
    control.drop("4", "3", "2", "1")
    control.serve("4")
    label(control, "best", "1")
    assert answers(control) == {"best": "2"}
    control.stage("1")
    assert (answers(control), control.loaded) == ({"best": "2"}, ["4", "3", "2"])
    before = control.plane.plan.generation
    control.pass_gates("1")
    assert (answers(control), control.loaded) == ({"best": "1"}, ["4", "3", "1"])
    assert control.plane.plan.generation == before + 1, "the old version leaves the plan in which the label moves"
    assert control.state("2") is State.DRAINING


def test_a_version_that_cannot_be_had_is_said_and_what_answered_before_goes_on(control: Control) -> None:
    label(control, "best", "2")
    control.drop("4", "3", "2", "1")
    control.serve("4")
    label(control, "best", "1")
    control.stage("1")
    control.refuse("1")
    assert answers(control) == {"best": "2"}
    assert control.model.problem == "label 'best' names '1', which cannot be served: golden: seen; '2' goes on"
    label(control, "best", "2")
    assert control.model.problem is None


def test_a_version_that_fails_is_tried_again_for_its_label(control: Control) -> None:
    label(control, "old", "1")
    control.stage("1")
    control.finish(CandidateFailed("no memory"))
    assert "label 'old' names '1', which has failed" in str(control.model.problem)
    assert control.work == []
    control.now += 1000.0
    control.turn()
    assert control.work == ["evaluate 1"]


def test_a_version_whose_files_are_removed_goes_on_answering_for_its_label(control: Control) -> None:
    label(control, "old", "2")
    control.drop("3")
    assert (answers(control), control.model.problem) == ({"old": "2"}, None)
    control.drop("4", "3")
    control.serve("4")
    assert answers(control) == {"old": "2"}


def test_a_version_in_quarantine_answers_for_no_label_until_it_is_released(control: Control) -> None:
    label(control, "best", "3")
    control.history.decisions.quarantine_version(identity("3"))
    control.mark()
    assert (control.active, answers(control)) == ("2", {"best": None})
    assert (
        control.model.problem == "label 'best' names '3', which cannot be served: in quarantine; nothing answers for it"
    )
    control.tell(Drained(identity("3")))
    control.history.decisions.release("m", "3", identity("3").digest)
    control.mark()
    control.serve("3")
    assert answers(control) == {"best": "3"}


def test_a_model_that_is_unloaded_takes_its_labels_with_it_and_brings_them_back(control: Control) -> None:
    label(control, "old", "2")
    control.drop("3")  # only the cache has version 2 now
    control.history.decisions.unload("m")
    control.mark()
    assert (control.loaded, answers(control)) == ([], {"old": None})
    for version in ("3", "2"):
        control.tell(Drained(identity(version)))
    assert identity("2").digest in control.table.digests_in_use(), "its copy in the cache is needed"
    control.history.decisions.load("m")
    control.mark()
    control.serve("3")
    control.pass_gates("2")
    assert (control.active, answers(control)) == ("3", {"old": "2"})


def test_what_a_label_answered_with_answers_after_a_restart_whatever_the_store_has(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 24."""
    label(control, "old", "2")
    after = restarted(control, tmp_path)
    with monkeypatch.context() as full:
        full.setattr(EvaluationRuns, "has_room", False)  # other models take all there is
        after.pass_gates("3")
        assert (after.work, after.model.is_settled) == ([], False), "readiness waits for it"
    after.turn()
    after.pass_gates("2")
    assert (after.active, answers(after), after.work) == ("3", {"old": "2"}, [])
    assert after.model.is_settled
    after.history.close()


def test_a_label_that_was_moving_at_a_restart_answers_as_before_until_the_new_version_is_loaded(
    control: Control, tmp_path: Path
) -> None:
    label(control, "best", "2")
    label(control, "best", "1")
    after = restarted(control, tmp_path, "3", "1")
    after.pass_gates("3")
    after.finish(CandidateStaged(artifact("3")))
    after.pass_gates("2")
    assert answers(after) == {"best": "2"}
    after.serve("1")
    assert (after.active, answers(after)) == ("3", {"best": "1"})
    after.history.close()


def test_what_answered_before_a_restart_is_compared_with_nothing(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contract of another version that an operator has pinned, for example, would keep it out."""
    label(control, "new", "3")
    control.history.decisions.pin("m", "2")
    control.mark()
    assert (control.active, answers(control)) == ("2", {"new": "3"})
    after = restarted(control, tmp_path)
    after.pass_gates("2")
    compared: list[Comparison] = []
    monkeypatch.setattr(after.runner, "evaluate", lambda trial: compared.append(trial.comparison))
    assert after.work == [None]
    assert compared == [Comparison(answered_digest=identity("3").digest)]
    after.history.close()


def test_a_copy_that_is_damaged_at_a_restart_is_copied_again(control: Control, tmp_path: Path) -> None:
    label(control, "old", "2")
    after = restarted(control, tmp_path, "3", "2")
    after.pass_gates("3")
    after.finish(CandidateStaged(artifact("3")))
    after.finish(CopyDamaged("it has other bytes"))
    after.serve("2")
    assert answers(after) == {"old": "2"}
    after.history.close()


def test_a_copy_that_is_damaged_and_not_in_the_store_is_gone(control: Control, tmp_path: Path) -> None:
    label(control, "old", "2")
    after = restarted(control, tmp_path, "3")
    after.pass_gates("3")
    after.finish(CandidateStaged(artifact("3")))
    after.finish(CopyDamaged("it has other bytes"))
    after.now += 1000.0
    after.turn()
    assert (after.work, answers(after)) == ([], {"old": None})
    assert after.model.problem == "label 'old' names '2', which is not in the store; nothing answers for it"
    after.history.close()


def test_what_answered_from_the_cache_is_not_loaded_again_when_its_label_has_moved(
    control: Control, tmp_path: Path
) -> None:
    label(control, "old", "2")
    after = restarted(control, tmp_path, "3")
    after.pass_gates("3")
    after.stage("3")
    after.pass_gates("2")
    label(after, "old", "3")
    for versions in (("4", "3"), ("5", "4", "3")):
        after.drop(*versions)
        after.serve(versions[0])
    after.tell(Drained(identity("2")))
    assert (after.work, answers(after), after.loaded) == ([], {"old": "3"}, ["5", "4", "3"])
    after.history.close()


def test_a_label_that_was_removed_loads_nothing_at_a_restart(control: Control, tmp_path: Path) -> None:
    label(control, "old", "2")
    unlabel(control, "old")
    after = restarted(control, tmp_path, "3", "2")
    after.pass_gates("3")
    after.finish(CandidateStaged(artifact("3")))
    assert (after.work, after.history.served.labelled) == ([], {})
    after.history.close()


def test_a_model_that_is_gone_takes_what_its_labels_answered_with_along(control: Control, tmp_path: Path) -> None:
    label(control, "old", "2")
    control.history.decisions.unload("m")
    control.drop()
    for version in ("3", "2"):
        control.tell(Drained(identity(version)))
    assert (control.table.models, control.history.served.labelled) == ({}, {})
    control.history.flush()
    control.history.close()
    after = Control(tmp_path)
    assert after.history.served.labelled == {}
    after.history.close()


def test_the_cache_keeps_what_labels_are_to_answer_with(control: Control) -> None:
    label(control, "old", "2")
    kept = {identity("3").digest, identity("2").digest}
    assert control.history.served.list_digests() == kept <= control.table.digests_in_use()
    label(control, "old", "3")
    assert control.history.served.list_digests() == {identity("3").digest}


def test_while_decisions_are_lost_a_label_loads_its_version_and_activates_none(
    control: Control, tmp_path: Path
) -> None:
    after = restarted(control, tmp_path, "4", "3")
    after.history.decisions.held = "lost"
    after.pass_gates("3")
    label(after, "next", "4")
    after.serve("4")
    assert (after.active, answers(after)) == ("3", {"next": "4"})
    after.history.decisions.held = None
    after.mark()
    assert after.active == "4"
    after.history.close()
