"""What survives: decisions at once, the story soon after, and nothing half."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serving.domain.errors import StateUnavailable
from serving.domain.event_page import HistoryQuery
from serving.domain.provenance import Provenance
from serving.domain.report import CandidateReport, GateResult, Verdict
from serving.domain.signature import Feature, Signature
from serving.domain.state import State
from serving.domain.status import HistoryEntry
from serving.domain.version import VersionId
from serving.lifecycle import database
from serving.lifecycle.history import History
from serving.lifecycle.served_versions import RememberedContract
from serving.lifecycle.state_file import DATABASE_NAME

ID = VersionId("m", "1", "sha256:aa")
REFUSED = CandidateReport(gates=(GateResult(gate="load", verdict=Verdict.REFUSED, evidence="broken"),))
SIGNATURE = Signature(features=(Feature(name="a"),), methods=("predict",))
SIGNED = Provenance(version="1", key="ed25519:abc...", created_at=datetime(2026, 11, 20, tzinfo=UTC))


def opened(path: Path, basis: str = "libraries", max_rows: int = 1000) -> History:
    history = History(path, basis, max_rows)
    history.open()
    return history


def entry(reason: str) -> HistoryEntry:
    return HistoryEntry(
        at=datetime(2026, 11, 20, tzinfo=UTC),
        version="1",
        digest=ID.digest,
        before=State.READY,
        after=State.ACTIVE,
        actor="system",
        event="transition",
        reason=reason,
        duration_seconds=0.5,
    )


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """Invariant 11: pins, quarantine, verdicts, names and the story."""
    first = opened(tmp_path)
    first.decisions.pin("m", "1")
    first.decisions.quarantine_version(ID)
    first.verdicts.note_refusal(ID, REFUSED, against="sha256:bb")
    first.verdicts.note_accepted(ID)
    first.lone_names.recognise(ID, ())
    first.served.note_active(ID, SIGNATURE, SIGNED)
    first.decisions.set_label("m", "best", "2")
    first.served.note_labels("m", [("best", ID), ("new", None)])
    first.decisions.set_label("m", "gone", "1")
    first.served.note_labels("m", [("gone", ID)])
    first.decisions.remove_label("m", "gone")
    first.decisions.unload("m")
    first.decisions.unload("n")
    first.decisions.load("n")
    first.events.note(entry("why"), "m")
    first.close()
    second = opened(tmp_path)
    assert second.decisions.pins == {"m": "1"}
    assert second.decisions.quarantine == {("m", "1", ID.digest)}
    assert second.decisions.labels == {("m", "best"): "2"}
    assert second.served.labelled == {"m": {"best": ("1", ID.digest)}}
    assert second.verdicts.refusals[ID].report == REFUSED
    assert second.verdicts.refusals[ID].against == "sha256:bb"
    assert second.verdicts.accepted == {("m", "1"): ID.digest}
    assert second.lone_names.known == {("m", ID.digest): "1"}
    assert second.served.active == {"m": ("1", ID.digest)}
    assert second.served.provenance == {"m": SIGNED}
    assert second.served.contracts == {"m": RememberedContract("1", ID.digest, SIGNATURE)}
    assert second.decisions.unloaded == {"m"}
    (told,) = second.events.read_entries(HistoryQuery("m", limit=10))
    assert told.model == "m"
    assert told.model_dump(exclude={"id", "model"}) == entry("why").model_dump(exclude={"id"})
    second.close()


def test_a_refusal_is_of_a_version_and_not_of_its_bytes_under_every_name(tmp_path: Path) -> None:
    """A copy under another name is refused for its name: the genuine version must not fall with it."""
    history = opened(tmp_path)
    copy = VersionId("m", "7", ID.digest)
    history.verdicts.note_refusal(copy, REFUSED, against=None)
    assert history.verdicts.refusals.keys() == {copy}
    history.verdicts.note_refusal(ID, REFUSED, against=None)
    history.decisions.release("m", "7", ID.digest)
    history.close()
    again = opened(tmp_path)
    assert again.verdicts.refusals.keys() == {ID}
    again.close()


def test_who_signed_what_is_active_is_forgotten_when_an_unsigned_version_takes_over(tmp_path: Path) -> None:
    history = opened(tmp_path)
    history.served.note_active(ID, SIGNATURE, SIGNED)
    history.served.note_active(VersionId("m", "2", "sha256:bb"), SIGNATURE, None)
    assert history.served.provenance == {}
    history.close()
    again = opened(tmp_path)
    assert again.served.provenance == {}
    again.close()


def test_a_verdict_reached_with_other_libraries_or_settings_does_not_count(tmp_path: Path) -> None:
    first = opened(tmp_path, basis="scikit-learn 1.9.1")
    first.verdicts.note_refusal(ID, REFUSED, against=None)
    first.close()
    second = opened(tmp_path, basis="scikit-learn 1.9.2")
    assert second.verdicts.refusals == {}
    second.close()


def test_a_decision_is_on_disk_before_the_call_returns(tmp_path: Path) -> None:
    """A process that dies right after the call, without closing anything, has kept it."""
    script = (
        "import os, sys; from pathlib import Path; from serving.lifecycle.history import History\n"
        "history = History(Path(sys.argv[1]), 'b', 10); history.open(); history.decisions.pin('m', '7'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True)
    history = opened(tmp_path)
    assert history.decisions.pins == {"m": "7"}
    history.close()


def test_a_decision_that_cannot_be_kept_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).mkdir()  # nothing can be opened there
    failures = []
    history = History(tmp_path, "b", 10, on_failure=lambda: failures.append(1))
    history.open()
    assert history.problem is not None
    with pytest.raises(StateUnavailable):
        history.decisions.pin("m", "1")
    with pytest.raises(StateUnavailable):
        history.decisions.quarantine_version(ID)
    assert history.decisions.pins == {}
    assert history.decisions.quarantine == set()
    assert failures


def test_what_could_not_be_read_at_the_start_is_read_when_it_can(tmp_path: Path) -> None:
    """A pin must not be forgotten because the disk was late."""
    before = opened(tmp_path)
    before.decisions.pin("m", "1")
    before.close()
    real = tmp_path / DATABASE_NAME
    real.rename(tmp_path / "elsewhere")
    real.mkdir()
    late = opened(tmp_path)
    late.lone_names.recognise(ID, ())
    late.flush()
    assert late.decisions.pins == {}
    real.rmdir()
    (tmp_path / "elsewhere").rename(real)
    late.flush()
    assert late.decisions.pins == {"m": "1"}
    assert late.lone_names.known == {("m", ID.digest): "1"}
    late.close()


def test_what_could_not_be_written_is_written_when_it_can(tmp_path: Path) -> None:
    blocked = tmp_path / DATABASE_NAME
    blocked.mkdir()
    history = opened(tmp_path)
    history.events.note(entry("while blocked"), "m")
    history.flush()
    assert history.problem is not None
    blocked.rmdir()
    history.flush()
    assert history.problem is None
    assert [one.reason for one in history.events.read_entries(HistoryQuery("m", limit=10))] == ["while blocked"]
    history.close()


def test_another_process_holding_the_database_makes_a_call_fail_and_not_hang_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    history = opened(tmp_path)
    other = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StateUnavailable, match="locked"):
        history.decisions.pin("m", "1")
    other.execute("ROLLBACK")
    other.close()
    history.decisions.pin("m", "1")
    history.close()


def test_the_story_is_bounded_and_can_be_paged(tmp_path: Path) -> None:
    history = opened(tmp_path, max_rows=5)
    for number in range(12):
        history.events.note(entry(str(number)), "m")
        history.flush()
    newest = history.events.read_entries(HistoryQuery("m", limit=3))
    assert [one.reason for one in newest] == ["11", "10", "9"]
    older = history.events.read_entries(HistoryQuery("m", limit=3, before_id=newest[-1].id))
    assert [one.reason for one in older] == ["8", "7"]
    assert history.events.read_entries(HistoryQuery("other", limit=3)) == ()
    history.close()


def test_release_forgets_quarantine_and_verdict(tmp_path: Path) -> None:
    history = opened(tmp_path)
    history.decisions.quarantine_version(ID)
    history.verdicts.note_refusal(ID, REFUSED, None)
    history.decisions.release("m", "1", ID.digest)
    history.close()
    again = opened(tmp_path)
    assert again.decisions.quarantine == set()
    assert again.verdicts.refusals == {}
    again.close()
