"""Rollouts, seen from where control acts: what is counted goes in, and what answers comes out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from serving.domain.decision import (
    DecisionRefused,
    ModelDecision,
    PinVersion,
    ReleaseVersion,
    RollBackModel,
    SteerRollout,
    UnloadModel,
    UnpinModel,
)
from serving.domain.errors import StateUnavailable
from serving.domain.judge import RolloutVerdict
from serving.domain.plan import Drained, Split
from serving.domain.rollout import PastRollout, RolloutAction, RolloutEnd, RolloutPhase, RunningRollout
from serving.domain.state import State
from serving.lifecycle.operations import Operations
from serving.settings import RolloutSettings
from tests.unit.lifecycle.control import Control, artifact, identity

QUICK = RolloutSettings(
    strategy="canary", steps=(20.0, 50.0), step_seconds=10.0, min_requests=20, bake_seconds=60.0, holdback=5.0
)
ACTOR = "admin@127.0.0.1"


class Trial(Control):
    """A model whose version 1 answers, and whose version 2 may be on its way."""

    def __init__(self, directory: Path, **rollout: Any) -> None:
        super().__init__(directory)
        self.rollout = QUICK.model_copy(update=rollout)
        store: Any = None  # no decision here is about it
        self.operations = Operations(
            *(store, self.table, self.table._exclusion, self.history, self.journal), self.table.rollouts
        )

    def begin(self) -> Trial:
        """Have version 2 begin to take over from version 1."""
        self.drop("1")
        self.serve("1")
        self.drop("2", "1")
        self.serve("2")
        return self

    def count(self, new: int = 0, new_bad: int = 0, old: int = 0, old_bad: int = 0) -> None:
        """Have requests answered under the present split: so many well and so many badly."""
        split = self.split
        assert split is not None
        for is_new, is_bad, times in (
            *((True, False, new), (True, True, new_bad)),
            *((False, False, old), (False, True, old_bad)),
        ):
            for _ in range(times):
                self.metrics.count_in_split("m", split.number, None, is_new=is_new, is_bad=is_bad)

    def wait(self, seconds: float = 1.0) -> None:
        """Let time pass, and control look."""
        self.now += seconds
        self.turn()

    def pass_step(self) -> None:
        """Have enough good answers for a step counted, and its time pass."""
        self.count(new=600, old=600)
        self.wait(self.rollout.step_seconds + 1)

    def fail(self) -> None:
        """Have the new version go bad, and control look."""
        self.count(new_bad=30, old=200)
        self.wait()

    def decide(self, decision: ModelDecision) -> DecisionRefused | None:
        """Carry out an operator's decision, and take a turn."""
        refusal = self.operations.decide(decision, ACTOR)
        self.turn()
        return refusal

    def steer(self, action: RolloutAction, version: str | None = None) -> str | None:
        """Have an operator steer; returns the refusal."""
        refusal = self.decide(SteerRollout("m", action, version))
        return None if refusal is None else refusal.reason

    def drain(self) -> None:
        """Answer the last request of everything that is to be unloaded."""
        unloaded, self.plane.unloaded = self.plane.unloaded, []
        for key in unloaded:
            self.tell(Drained(key))

    def restart(self, directory: Path, *, ends_well: bool = True) -> Trial:
        """Return another control on the same directory, which has looked at the store once."""
        self.history.flush()
        if ends_well:
            self.history.close()
        again = Trial(directory)
        again.rollout = self.rollout
        active = again.history.served.active.get("m")
        if active is not None:
            again.table.restore(artifact(active[0]), again.now)
        return again

    @property
    def split(self) -> Split | None:
        route = self.plane.route("m")
        return None if route is None else route.split

    @property
    def share(self) -> float | None:
        """The part that the new version has in the plan."""
        return None if self.split is None else self.split.share

    @property
    def running(self) -> RunningRollout:
        status = self.table.rollouts.status(self.model)
        assert status is not None
        assert status.running is not None
        return status.running

    @property
    def last(self) -> PastRollout:
        status = self.table.rollouts.status(self.model)
        assert status is not None
        assert status.last is not None
        return status.last

    @property
    def is_stopped(self) -> bool:
        return self.table.rollouts.is_stopped("m")


@pytest.fixture(autouse=True)
def _closed_databases(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test has left open, as when a server is killed."""
    made: list[Trial] = []
    begin = Trial.__init__

    def note(trial: Trial, *arguments: Any, **settings: Any) -> None:
        made.append(trial)
        begin(trial, *arguments, **settings)

    monkeypatch.setattr(Trial, "__init__", note)
    yield
    for one in made:
        one.history._file.close()


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    found = Trial(tmp_path).begin()
    yield found
    found.history.close()


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as written:
        yield written


# --- the way up -------------------------------------------------------------------------------------------------------


def test_a_newer_version_gets_the_first_share_and_the_old_one_stays_active(trial: Trial) -> None:
    assert (trial.active, trial.state("1"), trial.state("2")) == ("1", State.ACTIVE, State.CANARY)
    assert trial.split == Split(number=trial.split.number, new=identity("2"), old=identity("1"), share=0.2)
    assert (trial.running.phase, trial.running.step, trial.running.steps) == (RolloutPhase.CANARY, 1, 2)
    assert trial.model.is_settled, "a rollout holds no readiness up"


def test_the_first_version_takes_over_at_once(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.drop("1")
    trial.serve("1")
    assert (trial.active, trial.split) == ("1", None)


def test_with_the_strategy_swap_a_version_takes_over_at_once_and_nothing_is_shown(tmp_path: Path) -> None:
    trial = Trial(tmp_path, strategy="swap").begin()
    assert (trial.active, trial.split, trial.table.rollouts.status(trial.model)) == ("2", None, None)


def test_a_step_needs_its_time_its_requests_and_a_proof(trial: Trial) -> None:
    trial.wait(11)
    assert (trial.share, trial.running.verdict) == (0.2, RolloutVerdict.WAIT)
    assert trial.running.reason == "0 of 20 requests in this step"
    trial.count(new=19, old=80)
    trial.wait()
    assert trial.share == 0.2
    trial.count(new=1)
    trial.wait()
    assert (trial.share, trial.running.verdict) == (0.2, RolloutVerdict.INCONCLUSIVE)
    trial.count(new=600)
    trial.wait()
    assert (trial.share, trial.running.step) == (0.5, 2)
    trial.count(new=600)
    trial.wait()
    assert trial.share == 0.5, "the time of the second step is its own"
    assert trial.running.reason == "1 of 10 s in this step"


def test_after_the_last_step_it_is_active_and_the_old_one_keeps_a_part_for_a_while(trial: Trial) -> None:
    trial.pass_step()
    trial.pass_step()
    assert (trial.active, trial.state("2"), trial.state("1")) == ("2", State.ACTIVE, State.READY)
    assert (trial.running.phase, trial.share) == (RolloutPhase.BAKE, 0.95)
    trial.wait(59)
    assert trial.share == 0.95
    trial.wait(2)
    assert (trial.active, trial.split, trial.last.end) == ("2", None, RolloutEnd.PROMOTED)
    assert trial.last.new.answers == 1200
    assert trial.table.rollouts.next_due() == float("inf"), "nobody looks any more"


@pytest.mark.parametrize("rollout", [{"holdback": 0.0}, {"bake_seconds": 0.0}])
def test_without_a_holdback_the_rollout_ends_with_the_takeover(tmp_path: Path, rollout: dict[str, float]) -> None:
    trial = Trial(tmp_path, **rollout).begin()
    trial.pass_step()
    trial.pass_step()
    assert (trial.active, trial.split, trial.last.end) == ("2", None, RolloutEnd.PROMOTED)


def test_with_observe_it_judges_and_nothing_happens(tmp_path: Path, logs: list[Any]) -> None:
    trial = Trial(tmp_path, observe=True).begin()
    trial.pass_step()
    assert (trial.share, trial.running.verdict) == (0.2, RolloutVerdict.PROMOTE)
    trial.fail()
    trial.fail()
    assert (trial.share, trial.running.verdict, trial.state("2")) == (0.2, RolloutVerdict.ROLLBACK, State.CANARY)
    effects = [log["effect"] for log in logs if log["event"] == "rollout_judged"]
    assert effects == ["none: rollout.observe is set"] * 2


@pytest.mark.parametrize(
    ("choice", "share", "state"),
    [("hold", 0.2, State.CANARY), ("promote", 0.5, State.CANARY), ("rollback", None, State.DRAINING)],
)
def test_a_step_that_proves_nothing_does_what_is_set(
    tmp_path: Path, choice: str, share: float | None, state: State
) -> None:
    trial = Trial(tmp_path, on_inconclusive=choice).begin()
    trial.count(new=30, old=120)
    trial.wait(11)
    assert (trial.share, trial.state("2")) == (share, state)
    trial.wait(11)
    assert trial.share == share, "the next step needs its own requests"


# --- the way back -----------------------------------------------------------------------------------------------------


def test_a_version_that_is_worse_is_taken_back_and_in_quarantine_with_its_evidence(trial: Trial) -> None:
    trial.count(new_bad=10, old=40)
    trial.wait(0.6)
    assert (trial.active, trial.split, trial.loaded) == ("1", None, ["1"])
    assert trial.table._decisions.is_quarantined("m", "2", identity("2").digest)
    assert (trial.last.end, trial.last.version, trial.last.actor) == (RolloutEnd.ROLLED_BACK, "2", "judge")
    assert (trial.last.new.bad, trial.last.old.answers) == (10, 40)
    assert trial.last.e_value >= 100
    assert trial.model.last_failure is not None
    assert trial.model.last_failure.gate == "rollout"
    trial.drain()
    assert trial.state("2") is State.QUARANTINED
    assert trial.work == []


def test_a_version_that_gets_worse_while_it_is_active_is_taken_back_too(trial: Trial) -> None:
    trial.pass_step()
    trial.pass_step()
    trial.count(new_bad=400, new=400, old=40)
    trial.wait()
    assert (trial.active, trial.split, trial.last.end) == ("1", None, RolloutEnd.ROLLED_BACK)
    assert trial.state("1") is State.ACTIVE
    trial.drain()
    assert trial.state("2") is State.QUARANTINED


def test_what_both_do_badly_is_no_fault_of_the_new_version(trial: Trial) -> None:
    for _ in range(40):
        trial.count(new_bad=20, old_bad=80)
        trial.wait(0.6)
    assert trial.running.verdict is not RolloutVerdict.ROLLBACK


def test_two_in_a_row_stop_it_until_an_operator_resumes(trial: Trial, tmp_path: Path, logs: list[Any]) -> None:
    trial.fail()
    trial.drain()
    assert not trial.is_stopped
    trial.drop("3", "2", "1")
    trial.serve("3")
    assert trial.state("3") is State.CANARY
    trial.fail()
    trial.drain()
    assert trial.is_stopped
    assert [log["event"] for log in logs if log["log_level"] == "error"].count("rollouts_stopped") == 1
    trial.drop("4", "3", "2", "1")
    for _ in range(3):
        trial.wait(100)
        trial.mark()
    assert (trial.work, trial.active, trial.split) == ([], "1", None), "it is not evaluated, again and again"
    assert trial.model.is_settled
    assert trial.model.problem is not None
    assert trial.model.problem.startswith("2 new versions in a row were rolled back")
    trial = trial.restart(tmp_path)
    trial.drop("4", "3", "2", "1")
    trial.stage("1") if trial.work == ["stage 1"] else None
    trial.pass_gates("1")
    while trial.work:
        assert trial.work[0] in ("stage 3", "stage 2"), "only to compare the bytes with those in quarantine"
        trial.stage(trial.work[0][-1])
    assert trial.is_stopped
    assert trial.steer(RolloutAction.RESUME) is None
    assert (trial.is_stopped, trial.model.problem) == (False, None)
    trial.serve("4")
    assert trial.state("4") is State.CANARY
    assert trial.steer(RolloutAction.RESUME) is None
    trial.history.close()


def test_what_is_stopped_is_no_problem_where_versions_take_over_at_once(trial: Trial) -> None:
    trial.fail()
    trial.drain()
    trial.drop("3", "2", "1")
    trial.serve("3")
    trial.fail()
    trial.drain()
    assert trial.model.problem is not None
    trial.rollout = trial.rollout.model_copy(update={"strategy": "swap"})
    trial.drop("4", "3", "2", "1")
    trial.serve("4")
    assert (trial.active, trial.model.problem) == ("4", None)


def test_a_promotion_between_two_rollbacks_starts_the_count_anew(trial: Trial) -> None:
    trial.fail()
    trial.drain()
    trial.drop("3", "2", "1")
    trial.serve("3")
    trial.steer(RolloutAction.PROMOTE)
    trial.drop("4", "3", "2", "1")
    trial.serve("4")
    trial.fail()
    assert (trial.active, trial.is_stopped) == ("3", False)


def test_a_released_version_may_try_again_from_the_beginning(trial: Trial) -> None:
    trial.fail()
    trial.drain()
    assert trial.decide(ReleaseVersion("m", "2")) is None
    trial.serve("2")
    assert (trial.running.step, trial.running.new.bad, trial.running.e_value) == (1, 0, 1.0)


def test_a_rollback_that_cannot_be_written_holds_nevertheless(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state cannot be written while a version goes back: it goes back, and is in quarantine after a restart."""

    def full(*_: Any, **__: Any) -> None:
        raise StateUnavailable("no space left")

    database = trial.history._file._database
    with monkeypatch.context() as patched:
        patched.setattr(database, "write", full)
        trial.fail()
        trial.history.flush()
        assert (trial.active, trial.split, trial.last.end) == ("1", None, RolloutEnd.ROLLED_BACK)
        trial.drain()
        assert trial.state("2") is State.QUARANTINED
        assert trial.steer(RolloutAction.HOLD) is not None
    trial = trial.restart(tmp_path)
    assert trial.history.decisions.is_quarantined("m", "2", identity("2").digest)
    trial.history.close()


def test_a_rollback_before_the_state_could_be_read_holds_when_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StateUnavailable("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("serving.lifecycle.state_file.open_best", full)
        trial = Trial(tmp_path).begin()
        trial.fail()
        assert not trial.history.is_loaded
    for _ in range(2):
        trial.history.flush()
        assert trial.history.decisions.is_quarantined("m", "2", identity("2").digest)
    trial = trial.restart(tmp_path)
    assert trial.history.decisions.is_quarantined("m", "2", identity("2").digest)
    trial.history.close()


# --- operators --------------------------------------------------------------------------------------------------------


def test_a_held_rollout_stays_where_it_is_until_it_is_resumed(trial: Trial) -> None:
    assert trial.steer(RolloutAction.HOLD) is None
    assert trial.steer(RolloutAction.HOLD, "2") is None
    trial.pass_step()
    assert (trial.share, trial.running.is_held, trial.running.verdict) == (0.2, True, RolloutVerdict.PROMOTE)
    assert trial.steer(RolloutAction.RESUME) is None
    assert trial.steer(RolloutAction.RESUME) is None
    trial.wait()
    assert (trial.share, trial.running.is_held) == (0.5, False)


def test_a_held_rollout_is_not_taken_back_either(trial: Trial) -> None:
    trial.steer(RolloutAction.HOLD)
    trial.fail()
    assert (trial.state("2"), trial.running.verdict) == (State.CANARY, RolloutVerdict.ROLLBACK)
    trial.steer(RolloutAction.RESUME)
    trial.wait()
    assert trial.last.end is RolloutEnd.ROLLED_BACK


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_an_operator_promotes_in_any_step(trial: Trial, steps: int) -> None:
    for _ in range(steps):
        trial.pass_step()
    assert trial.steer(RolloutAction.PROMOTE, "2") is None
    assert (trial.active, trial.split, trial.state("2")) == ("2", None, State.ACTIVE)
    assert (trial.last.end, trial.last.actor) == (RolloutEnd.PROMOTED, ACTOR)
    assert trial.steer(RolloutAction.PROMOTE, "2") is None, "it is safe to repeat"


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_an_operator_rolls_back_in_any_step(trial: Trial, steps: int) -> None:
    for _ in range(steps):
        trial.pass_step()
    assert trial.steer(RolloutAction.ROLLBACK, "2") is None
    assert (trial.active, trial.split, trial.last.end) == ("1", None, RolloutEnd.ROLLED_BACK)
    assert trial.steer(RolloutAction.ROLLBACK, "2") is None, "it is safe to repeat"
    trial.drain()
    assert trial.state("2") is State.QUARANTINED
    assert not trial.is_stopped


def test_what_an_operator_takes_back_does_not_count_as_a_rollback_by_itself(trial: Trial) -> None:
    trial.steer(RolloutAction.ROLLBACK)
    trial.drain()
    trial.drop("3", "2", "1")
    trial.serve("3")
    trial.fail()
    assert not trial.is_stopped


@pytest.mark.parametrize(
    ("action", "refusal"),
    [
        (RolloutAction.HOLD, "no version of 'm' is on its way to take over"),
        (RolloutAction.RESUME, "no version of 'm' is on its way to take over"),
        (RolloutAction.PROMOTE, "no version of 'm' is on its way to take over"),
        (
            RolloutAction.ROLLBACK,
            "no version of 'm' is on its way to take over; 'serving rollback' leaves the active version",
        ),
    ],
)
def test_without_a_rollout_there_is_nothing_to_steer(tmp_path: Path, action: RolloutAction, refusal: str) -> None:
    trial = Trial(tmp_path)
    trial.drop("1")
    trial.serve("1")
    assert trial.steer(action) == refusal
    trial.history.close()


def test_a_word_about_another_version_changes_nothing(trial: Trial) -> None:
    for action in RolloutAction:
        assert trial.steer(action, "1") == "version '2' of 'm' is on its way, not '1'; nothing was changed"
    assert (trial.share, trial.running.is_held) == (0.2, False)


@pytest.mark.parametrize("action", [RolloutAction.HOLD, RolloutAction.ROLLBACK])
def test_a_word_that_cannot_be_kept_changes_nothing(
    trial: Trial, action: RolloutAction, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StateUnavailable("no space left")

    monkeypatch.setattr(trial.history._file._database, "write", full)
    assert trial.steer(action) == "no space left"
    assert (trial.share, trial.running.is_held, trial.state("2")) == (0.2, False, State.CANARY)
    monkeypatch.undo()


@pytest.mark.parametrize("version", [None, "2"])
@pytest.mark.parametrize("steps", [0, 2])
def test_a_plain_rollback_takes_back_the_version_on_its_way(trial: Trial, version: str | None, steps: int) -> None:
    """Who types 'serving rollback' while a new version misbehaves means that one, not the one that answers well."""
    for _ in range(steps):
        trial.pass_step()
    assert trial.decide(RollBackModel("m", version)) is None
    assert (trial.active, trial.split, trial.last.end) == ("1", None, RolloutEnd.ROLLED_BACK)
    assert not trial.history.decisions.is_quarantined("m", "1", identity("1").digest)


def test_a_pin_on_the_old_version_ends_the_rollout_and_no_other_begins(trial: Trial) -> None:
    assert trial.decide(PinVersion("m", "1")) is None
    assert (trial.active, trial.split, trial.state("2")) == ("1", None, State.READY)
    assert (trial.last.end, trial.last.reason) == (RolloutEnd.SUPERSEDED, "version '1' is pinned")
    assert trial.decide(UnpinModel("m")) is None
    assert (trial.share, trial.state("2")) == (0.2, State.CANARY)


@pytest.mark.parametrize("steps", [0, 2])
def test_a_pin_on_the_new_version_lets_it_answer_everything(trial: Trial, steps: int) -> None:
    for _ in range(steps):
        trial.pass_step()
    assert trial.decide(PinVersion("m", "2")) is None
    assert (trial.active, trial.split, trial.last.end) == ("2", None, RolloutEnd.PROMOTED)


@pytest.mark.parametrize("steps", [0, 2])
def test_an_unloaded_model_has_no_rollout(trial: Trial, steps: int) -> None:
    for _ in range(steps):
        trial.pass_step()
    assert trial.decide(UnloadModel("m")) is None
    assert (trial.active, trial.split, trial.loaded) == (None, None, [])
    trial.drain()
    assert {trial.state("1"), trial.state("2")} == {State.RETIRED}


# --- what happens beside it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 2])
def test_an_even_newer_version_begins_its_own_way(trial: Trial, steps: int) -> None:
    for _ in range(steps):
        trial.pass_step()
    trial.drop("3", "2", "1")
    assert trial.split is not None, "it goes on until the newer one has passed its gates"
    trial.serve("3")
    assert trial.split is not None
    assert (trial.split.new.version, trial.share) == ("3", 0.2)
    assert trial.split.old.version == ("2" if steps else "1")
    assert trial.last.end is (RolloutEnd.PROMOTED if steps else RolloutEnd.SUPERSEDED)


def test_a_new_version_whose_files_are_removed_goes(trial: Trial) -> None:
    trial.drop("1")
    assert (trial.active, trial.split, trial.last.end) == ("1", None, RolloutEnd.SUPERSEDED)


def test_when_the_old_version_cannot_answer_any_more_the_new_one_takes_over(trial: Trial) -> None:
    trial.record("1").is_copy_lost = True
    trial.mark()
    assert (trial.active, trial.split, trial.last.end) == ("2", None, RolloutEnd.PROMOTED)


def test_when_the_new_version_cannot_answer_any_more_the_old_one_answers_alone(trial: Trial) -> None:
    trial.record("2").is_copy_lost = True
    trial.mark()
    assert (trial.active, trial.split) == ("1", None)


def test_when_the_old_one_is_lost_during_the_bake_the_new_one_answers_alone(trial: Trial) -> None:
    trial.pass_step()
    trial.pass_step()
    trial.record("1").is_copy_lost = True
    trial.mark()
    assert (trial.active, trial.split, trial.last.end) == ("2", None, RolloutEnd.PROMOTED)


def test_no_standby_is_kept_beside_a_rollout_when_none_is_to_be(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.table._input._keep_warm = 0
    trial.begin()
    assert trial.loaded == ["1", "2"]
    trial.pass_step()
    trial.pass_step()
    assert (trial.loaded, trial.share) == (["2", "1"], 0.95)
    trial.wait(61)
    assert (trial.loaded, trial.split) == (["2"], None)
    trial.history.close()


def test_other_bytes_under_the_name_of_the_active_version_are_tried_step_by_step(trial: Trial) -> None:
    trial.steer(RolloutAction.PROMOTE)
    assert trial.active == "2"


def test_a_defect_in_one_look_does_not_end_all_looking(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, logs: list[Any]
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patched:
        patched.setattr("serving.lifecycle.rollout_run.RolloutRun.take", fail)
        trial.wait()
    assert [log["event"] for log in logs if log["log_level"] == "error"] == ["rollout_stuck"]
    trial.fail()
    assert trial.last.end is RolloutEnd.ROLLED_BACK


# --- restarts ---------------------------------------------------------------------------------------------------------


def come_back(trial: Trial) -> None:
    """Have what is in the store loaded, as after a start."""
    trial.drop("2", "1")
    while trial.work:
        kind, version = trial.work[0].split()
        trial.stage(version) if kind == "stage" else trial.pass_gates(version)


@pytest.mark.parametrize("steps", [0, 1])
def test_a_restart_goes_on_in_the_same_step_on_the_same_evidence(trial: Trial, tmp_path: Path, steps: int) -> None:
    for _ in range(steps):
        trial.pass_step()
    trial.count(new=10, new_bad=1, old=40)
    trial.wait(6)
    before = trial.running
    trial = trial.restart(tmp_path)
    come_back(trial)
    assert trial.active == "1"
    assert (trial.running.step, trial.running.phase) == (steps + 1, RolloutPhase.CANARY)
    assert (trial.running.new, trial.running.old) == (before.new, before.old)
    assert trial.running.e_value == pytest.approx(before.e_value)
    assert trial.running.since == before.since
    trial.fail()
    assert trial.last.end is RolloutEnd.ROLLED_BACK
    trial.history.close()


def test_a_held_rollout_is_held_after_a_restart(trial: Trial, tmp_path: Path) -> None:
    trial.steer(RolloutAction.HOLD)
    trial = trial.restart(tmp_path)
    come_back(trial)
    assert trial.running.is_held
    trial.history.close()


def test_a_restart_after_the_takeover_leaves_the_new_version_and_says_how_it_ended(
    trial: Trial, tmp_path: Path
) -> None:
    """The version before is not loaded any more: nothing is left to compare with."""
    trial.pass_step()
    trial.pass_step()
    trial.count(new=5)
    trial.wait(6)
    trial = trial.restart(tmp_path)
    come_back(trial)
    assert (trial.active, trial.split) == ("2", None)
    assert (trial.last.version, trial.last.end) == ("2", RolloutEnd.PROMOTED)
    assert trial.history.rollouts.get("m").running is None
    trial.history.close()


def test_a_restart_while_another_version_takes_over_ends_the_rollout_of_the_first(trial: Trial, tmp_path: Path) -> None:
    trial = trial.restart(tmp_path)
    trial.rollout = trial.rollout.model_copy(update={"strategy": "swap"})
    trial.drop("3", "1")
    while trial.work:
        kind, version = trial.work[0].split()
        trial.stage(version) if kind == "stage" else trial.pass_gates(version)
    assert trial.active == "3"
    assert (trial.last.version, trial.last.end) == ("2", RolloutEnd.SUPERSEDED)
    assert trial.history.rollouts.get("m").running is None
    trial.history.close()


def test_after_a_restart_a_version_in_quarantine_stays_there_with_its_evidence(trial: Trial, tmp_path: Path) -> None:
    trial.fail()
    before = trial.last
    trial = trial.restart(tmp_path)
    come_back(trial)
    assert (trial.active, trial.split, trial.state("2")) == ("1", None, State.QUARANTINED)
    assert trial.last == before
    trial.history.close()


def test_the_quarantine_and_its_evidence_are_written_together(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is killed right after the quarantine was written knows why, and that it was one of two in a row."""
    monkeypatch.setattr(trial.history, "flush", lambda: None)
    trial.fail()
    again = Trial(tmp_path)
    assert again.history.decisions.is_quarantined("m", "2", identity("2").digest)
    remembered = again.history.rollouts.get("m")
    assert (remembered.running, remembered.rollbacks) == (None, 1)
    assert remembered.last is not None
    assert remembered.last.end is RolloutEnd.ROLLED_BACK
    again.history.close()
