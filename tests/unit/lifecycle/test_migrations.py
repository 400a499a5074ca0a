"""Databases of earlier releases are taken over with all they hold, in one step; those of later ones are not touched.

The dumps in ``databases/`` are of files that earlier releases wrote, one for each version of the schema.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serving.domain.event_page import HistoryQuery
from serving.domain.provenance import Provenance
from serving.domain.report import Verdict
from serving.domain.signature import Feature, Signature
from serving.domain.state import State
from serving.domain.version import VersionId
from serving.failpoints import arm
from serving.lifecycle import database, migrations
from serving.lifecycle.history import History
from serving.lifecycle.migrations import SCHEMA_VERSION
from serving.lifecycle.served_versions import KnownStore, RememberedContract
from serving.lifecycle.state_file import DATABASE_NAME

DATABASES = Path(__file__).parent / "databases"
SIGNATURE = Signature(features=(Feature(name="a"), Feature(name="b")), methods=("predict",))
SIGNED = Provenance(version="2", key="ed25519:abc...", created_at=datetime(2026, 11, 20, tzinfo=UTC))
REFUSED = VersionId("iris", "3", "sha256:33")


def restore(name: str, directory: Path) -> Path:
    """Make the database of which ``databases/<name>.sql`` is the dump."""
    path = directory / DATABASE_NAME
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATABASES / f"{name}.sql").read_text())
    return path


@contextmanager
def started(directory: Path) -> Iterator[History]:
    history = History(directory, "basis", 1000)
    history.start()
    try:
        yield history
    finally:
        history.close()


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_every_kind_of_content_of_version_1_is_taken_over(tmp_path: Path) -> None:
    path = restore("version_1", tmp_path)
    for _ in range(2):  # as it was written, and as it is written now
        with started(tmp_path) as history:
            assert (history.problem, history.decisions.held) == (None, None)
            assert history.decisions.pins == {"iris": "2"}
            assert history.decisions.unloaded == {"wine"}
            assert history.decisions.quarantine == {("iris", "1", "sha256:01")}
            refusal = history.verdicts.refusals[REFUSED]
            assert (refusal.basis, refusal.against, refusal.at.year) == ("basis", "sha256:22", 2026)
            assert [one.verdict for one in refusal.report.gates] == [Verdict.PASSED, Verdict.REFUSED]
            assert refusal.report.refusal is not None
            assert refusal.report.refusal.gate == "contract"
            assert refusal.report.refusal.evidence == "it lacks the feature 'b': clients send it"
            assert (refusal.report.engine, refusal.report.libraries) == ("sklearn", {"scikit-learn": "1.9.0"})
            assert history.verdicts.accepted == {("iris", "2"): "sha256:22"}
            assert history.lone_names.known == {("churn", "sha256:cc"): "20261120T080000Z"}
            assert history.served.active == {"iris": ("2", "sha256:22"), "wine": ("1", "sha256:11")}
            assert history.served.contracts == {"iris": RememberedContract("2", "sha256:22", SIGNATURE)}
            assert history.served.provenance == {"iris": SIGNED}
            assert history.served.store == KnownStore("/models", 66306)
            check_events(history, count=3)
        assert version_of(path) == SCHEMA_VERSION


def check_events(history: History, count: int) -> None:
    *newer, oldest = history.events.read_entries(HistoryQuery("iris", limit=10))
    assert len(newer) == count - 1
    assert (oldest.id, oldest.at) == (1, datetime(2026, 11, 20, 8, 0, 1, tzinfo=UTC))
    assert (oldest.version, oldest.digest, oldest.before, oldest.after) == ("2", "sha256:22", State.READY, State.ACTIVE)
    assert (oldest.actor, oldest.event, oldest.reason) == ("system", "transition", "first active version")
    assert oldest.duration_seconds == 0.5


def test_every_kind_of_content_of_version_0_is_taken_over(tmp_path: Path) -> None:
    """It had no seal, no count of decisions and no store; a refusal's report had fewer fields."""
    path = restore("version_0", tmp_path)
    for _ in range(2):
        with started(tmp_path) as history:
            assert (history.problem, history.decisions.held) == (None, None)
            assert history.decisions.pins == {"iris": "2"}
            assert history.decisions.unloaded == {"wine"}
            assert history.decisions.quarantine == {("iris", "1", "sha256:01")}
            assert history.verdicts.refusals.keys() == {REFUSED}
            assert history.verdicts.accepted == {("iris", "2"): "sha256:22"}
            assert history.lone_names.known == {("churn", "sha256:cc"): "20261120T080000Z"}
            assert history.served.active == {"iris": ("2", "sha256:22")}
            assert history.served.contracts["iris"].signature.methods == ("predict",)
            assert history.served.provenance == {"iris": SIGNED}
            check_events(history, count=1)
        assert version_of(path) == SCHEMA_VERSION


def test_lost_decisions_are_still_lost_after_an_update(tmp_path: Path) -> None:
    restore("version_1_held", tmp_path)
    with started(tmp_path) as history:
        assert (history.decisions.held or "").endswith("pins and quarantines are lost")
        assert history.served.active == {"iris": ("2", "sha256:22")}
        history.decisions.accept_loss()
    with started(tmp_path) as history:
        assert history.problem is None


def test_a_released_step_makes_what_it_made_when_it_was_released(tmp_path: Path) -> None:
    """If it were changed, there would be two schemas of one version."""
    names = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY 1, 2"
    (tmp_path / "old").mkdir()
    path = restore("version_1", tmp_path / "old")
    with closing(sqlite3.connect(path)) as old, closing(sqlite3.connect(":memory:")) as new:
        migrations.MIGRATIONS[0](new)
        tables = new.execute(names).fetchall()
        assert tables == old.execute(names).fetchall()
        for kind, name, _ in tables:
            query = f"PRAGMA {kind}_info({name})"
            assert new.execute(query).fetchall() == old.execute(query).fetchall()


# --- steps to come ---------------------------------------------------------------------------------------------------


def add_column(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE pins ADD COLUMN why TEXT")


def change_values(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE pins SET why = 'it was pinned'")


LATER_STEPS = (add_column, change_values)
LATER_VERSION = SCHEMA_VERSION + len(LATER_STEPS)


def release_later_steps(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, *LATER_STEPS))
    patch.setattr(database, "SCHEMA_VERSION", LATER_VERSION)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A state of this release: the database and its copy, with a pin and a quarantine."""
    with started(tmp_path) as history:
        history.decisions.pin("m", "1")
        history.decisions.quarantine_version(VersionId("m", "2", "sha256:bad"))
        history.lone_names.recognise(VersionId("m", "1", "sha256:one"), ())
    return tmp_path


@pytest.fixture
def updated(written: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state of this release, and a later one that is about to open it."""
    release_later_steps(monkeypatch)
    return written


def has_everything(history: History) -> bool:
    return (
        history.problem is None
        and history.decisions.pins == {"m": "1"}
        and history.decisions.quarantine == {("m", "2", "sha256:bad")}
        and history.lone_names.known == {("m", "sha256:one"): "1"}
    )


def reasons(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [why for (why,) in connection.execute("SELECT why FROM pins")]


def test_steps_are_taken_one_after_another_and_the_copy_follows(updated: Path) -> None:
    path = updated / DATABASE_NAME
    with started(updated) as history:
        assert has_everything(history)
        history.flush()
        for file in (path, updated / f"{DATABASE_NAME}.copy"):
            assert (version_of(file), reasons(file)) == (LATER_VERSION, ["it was pinned"])


SCRIPT = """
import os, signal, sys
from pathlib import Path
import pytest
from serving.failpoints import arm
from serving.lifecycle.history import History
from tests.unit.lifecycle.test_migrations import release_later_steps
left = int(sys.argv[2])
def strike():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
arm("state-migrated", strike)
release_later_steps(pytest.MonkeyPatch())
History(Path(sys.argv[1]), "basis", 1000).start()
"""


@pytest.mark.parametrize("steps", [1, 2])
def test_kill_9_between_two_steps_takes_none_and_loses_nothing(
    written: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This release still opens the file, and so does the later one."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, written, str(steps)], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    path = written / DATABASE_NAME
    assert version_of(path) == SCHEMA_VERSION
    with started(written) as history:
        assert has_everything(history)
    release_later_steps(monkeypatch)
    with started(written) as history:
        assert has_everything(history)
    assert (version_of(path), reasons(path)) == (LATER_VERSION, ["it was pinned"])


def test_a_step_that_fails_is_undone_and_tried_again(updated: Path) -> None:
    """The disk was full: what was active goes on meanwhile."""

    def fail() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    arm("state-migrated", fail)
    history = History(updated, "basis", 1000)
    try:
        history.start()
    finally:
        arm("state-migrated", None)
    assert "disk is full: pins and quarantines are not known" in (history.decisions.held or "")
    assert version_of(updated / DATABASE_NAME) == SCHEMA_VERSION
    history.flush()
    assert has_everything(history)
    history.close()


def test_an_older_file_that_is_damaged_is_not_sealed_anew(updated: Path) -> None:
    """Its copy is older, too: it is put in its place and brought up to date."""
    path = updated / DATABASE_NAME
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM quarantine")
        connection.commit()
    with started(updated) as history:
        assert "it was replaced by its copy of" in (history.problem or "")
        assert history.decisions.quarantine == {("m", "2", "sha256:bad")}
        assert history.decisions.pins == {"m": "1"}
    assert (version_of(path), reasons(path)) == (LATER_VERSION, ["it was pinned"])


def test_what_a_later_release_has_written_is_neither_damaged_nor_replaced(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where a copy of this release's own is beside it."""
    copy = written / f"{DATABASE_NAME}.copy"
    shutil.copyfile(copy, tmp_path / "kept")
    with monkeypatch.context() as patch:
        release_later_steps(patch)
        with started(written):
            pass
    (tmp_path / "kept").replace(copy)
    before = (written / DATABASE_NAME).read_bytes()
    seen = f"its version is {LATER_VERSION}, this release knows {SCHEMA_VERSION}"
    with pytest.raises(
        database.StateTooNew, match=f"{seen}.*: start that release, or give this one another state.path"
    ):
        History(written, "basis", 1000).start()
    assert (written / DATABASE_NAME).read_bytes() == before
    assert not [*written.glob("*.damaged-*")]
