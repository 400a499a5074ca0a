"""What keeps versions from being candidates stays data: a gate and evidence, whatever the evidence says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.domain.listing import Entry, FileStamp
from serving.domain.report import CandidateReport, GateName, GateResult, Verdict
from serving.domain.state import State
from serving.domain.status import Failure
from serving.domain.version import Format, VersionId
from serving.lifecycle.environment_watch import EnvironmentWatch
from serving.lifecycle.exclusion import Exclusion, Obstacle
from serving.lifecycle.history import History
from serving.lifecycle.journal import Journal
from serving.lifecycle.records import ModelRecord, VersionRecord
from serving.telemetry.metrics import Metrics

EVIDENCE = "golden: 3 of 4 rows differ: 'a': 1.0"
REPORT = CandidateReport(gates=(GateResult(gate=GateName.GOLDEN, verdict=Verdict.REFUSED, evidence=EVIDENCE),))


class Scene:
    """A model `m` of which the store lists version 2."""

    def __init__(self, directory: Path) -> None:
        self.history = History(directory, "basis", 100)
        self.history.start()
        decisions, verdicts = self.history.decisions, self.history.verdicts
        journal = Journal(self.history.events, verdicts, Metrics("0"))
        self.fingerprint = "of no environments"
        environments = EnvironmentWatch(lambda: self.fingerprint, verdicts, 1.0)
        self.exclusion = Exclusion(journal, decisions, verdicts, self.history.served, environments)
        stamp = FileStamp("model.joblib", 1, 1, 0, 0)
        entry = Entry("m", "2", "m/2", "model.joblib", Format.JOBLIB, (stamp,))
        self.record = VersionRecord("m", "2", entry.fingerprint, 0.0, entry=entry)
        self.model = ModelRecord("m", listed={"2": self.record})


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.history.close()


def shown(record: VersionRecord) -> tuple[State, str | None]:
    status = record.status(is_quarantined=False)
    return status.state, status.reason


def test_a_refusal_from_before_a_restart_keeps_its_gate_and_its_evidence(tmp_path: Path) -> None:
    before = Scene(tmp_path)
    before.history.verdicts.note_refusal(VersionId("m", "2", "sha256:22"), REPORT, None)
    before.history.close()
    after = Scene(tmp_path)
    after.record.digest = "sha256:22"
    assert after.exclusion.why_excluded(after.model, after.record) == Obstacle(EVIDENCE, "golden")
    after.exclusion.mark(after.model)
    failure = after.model.last_failure
    assert isinstance(failure, Failure)
    assert (failure.gate, failure.reason) == ("golden", EVIDENCE)
    assert shown(after.record) == (State.REJECTED, f"golden: {EVIDENCE}")
    assert after.record.report == REPORT
    after.history.close()


def test_before_its_bytes_are_known_a_version_is_refused_to_operators_only(scene: Scene) -> None:
    """Its name was refused or in quarantine: whether its bytes are, is known when they have been read."""
    scene.history.verdicts.note_refusal(VersionId("m", "2", "sha256:22"), REPORT, None)
    assert scene.exclusion.why_excluded(scene.model, scene.record) is None
    assert scene.exclusion.why_not_chosen(scene.model, scene.record) == Obstacle(EVIDENCE, "golden")
    scene.history.decisions.quarantine_version(VersionId("m", "2", "sha256:33"))
    assert scene.exclusion.why_excluded(scene.model, scene.record) is None
    assert scene.exclusion.why_not_chosen(scene.model, scene.record) == Obstacle("in quarantine")


def test_a_version_that_waits_because_decisions_are_lost_says_so_until_that_is_accepted(scene: Scene) -> None:
    scene.history.decisions.held = "they are lost"
    scene.exclusion.mark(scene.model)
    assert shown(scene.record) == (
        *(State.DISCOVERED, "operators' decisions have been lost; it waits until that is accepted"),
    )
    scene.history.decisions.accept_loss()
    scene.exclusion.mark(scene.model)
    assert shown(scene.record) == (State.DISCOVERED, None)


def test_a_pin_that_cannot_be_served_says_why(scene: Scene) -> None:
    decisions, model = scene.history.decisions, scene.model
    assert scene.exclusion.find_problem(model) is None
    decisions.pin("m", "9")
    assert scene.exclusion.find_problem(model) == "pinned to '9', which is not in the store; nothing is active yet"
    decisions.pin("m", "2")
    assert scene.exclusion.find_problem(model) is None, "it is on its way"
    scene.history.verdicts.note_refusal(VersionId("m", "2", "sha256:22"), REPORT, None)
    problem = f"pinned to '2', which cannot be served: golden: {EVIDENCE}; nothing is active yet"
    assert scene.exclusion.find_problem(model) == problem
    decisions.unload("m")
    assert scene.exclusion.find_problem(model) is None


def test_nothing_is_activated_while_decisions_are_lost(scene: Scene) -> None:
    scene.history.decisions.held = "they are lost"
    problem = "nothing is activated: they are lost; 'serving accept-state-loss' goes on without them"
    assert scene.exclusion.find_problem(scene.model) == problem
