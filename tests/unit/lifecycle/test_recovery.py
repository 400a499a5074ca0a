"""What becomes of operators' decisions when the file that holds them does not hold them any more: never fewer."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from serving.domain.errors import StateUnavailable
from serving.domain.version import VersionId
from serving.failpoints import arm
from serving.lifecycle import database, state_file
from serving.lifecycle.database import Database, StateTooNew
from serving.lifecycle.history import History
from serving.lifecycle.migrations import SCHEMA_VERSION
from serving.lifecycle.recovery import MAX_SET_ASIDE, Found, open_best
from serving.lifecycle.served_versions import KnownStore
from serving.lifecycle.state_file import DATABASE_NAME

BAD = VersionId("m", "2", "sha256:bad")
GOOD = VersionId("m", "1", "sha256:good")


def started(directory: Path) -> History:
    found = History(directory, "basis", 1000)
    found.start()
    return found


def make_state(directory: Path) -> Path:
    """Make a state in which m/2 is in quarantine, m is pinned to 1, which was active and has a label, and n is
    unloaded; closed in order.
    """
    made = started(directory)
    made.served.note_active(GOOD, None, None)
    made.decisions.quarantine_version(BAD)
    made.decisions.pin("m", "1")
    made.decisions.unload("n")
    made.decisions.set_label("m", "best", "1")
    made.close()
    assert sorted(path.name for path in directory.iterdir()) == ["active.json", DATABASE_NAME, f"{DATABASE_NAME}.copy"]
    return directory


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_state(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def state(whole: Path, tmp_path: Path) -> Path:
    """A copy of such a state, to do with it what one likes."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


def main(state: Path) -> Path:
    return state / DATABASE_NAME


def copy(state: Path) -> Path:
    return state / f"{DATABASE_NAME}.copy"


def damaged(state: Path) -> list[Path]:
    return sorted(state.glob(f"{DATABASE_NAME}.damaged-*"))


def has_every_decision(found: History) -> bool:
    return (
        found.decisions.quarantine == {("m", "2", "sha256:bad")}
        and found.decisions.pins == {"m": "1"}
        and found.decisions.unloaded == {"n"}
        and found.decisions.labels == {("m", "best"): "1"}
        and found.served.active == {"m": ("1", "sha256:good")}
    )


# --- one file is damaged ---------------------------------------------------------------------------------------------


def overwrite(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_header(path: Path) -> None:
    os.truncate(path, 50)


def link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def replace_by_another(path: Path) -> None:
    """A sound database, but an empty one."""
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE pins (model TEXT PRIMARY KEY, version TEXT NOT NULL)")
    connection.commit()
    connection.close()


def edit_a_pin(path: Path) -> None:
    """SQLite finds nothing wrong with it."""
    connection = sqlite3.connect(path)
    connection.execute("UPDATE pins SET version = '9'")
    connection.commit()
    connection.close()


def edit_a_label(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE labels SET version = '9'")
    connection.commit()
    connection.close()


def forget_a_quarantine(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM quarantine")
    connection.commit()
    connection.close()


def lose_a_table(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE signed")
    connection.commit()
    connection.close()


def lose_the_version(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 0")
    connection.commit()
    connection.close()


DAMAGES: tuple[Callable[[Path], None], ...] = (
    *(overwrite, truncate, halve, cut_header, link_to_nowhere, replace_by_another, Path.unlink),
    *(edit_a_pin, edit_a_label, forget_a_quarantine, lose_a_table, lose_the_version),
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_replaced_by_its_copy(state: Path, damage: Callable[[Path], None]) -> None:
    damage(main(state))
    found = started(state)
    assert has_every_decision(found)
    assert found.decisions.held is None
    assert found.problem is not None
    assert "it was replaced by its copy of " in found.problem
    found.decisions.pin("m", "3")
    found.close()
    again = started(state)
    assert (again.decisions.pins, again.problem) == ({"m": "3"}, None)
    again.close()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_copy_costs_nothing(state: Path, damage: Callable[[Path], None]) -> None:
    damage(copy(state))
    found = started(state)
    assert has_every_decision(found)
    assert found.problem is None
    found.flush()
    overwrite(main(state))
    found.close()
    again = started(state)
    assert has_every_decision(again), "the copy was not renewed"
    again.close()


@pytest.mark.parametrize("damage", [one for one in DAMAGES if one is not Path.unlink])
def test_without_a_good_copy_nothing_is_activated_until_an_operator_says_so(
    state: Path, damage: Callable[[Path], None]
) -> None:
    """Also over restarts; what was active is known all the same."""
    copy(state).unlink()
    damage(main(state))
    for _ in range(2):
        found = started(state)
        assert found.decisions.held is not None
        assert (found.problem or "").startswith(found.decisions.held)
        assert found.served.active == {"m": ("1", "sha256:good")}
        assert (found.decisions.pins, found.decisions.quarantine) == ({}, set())
        found.close()
    found = started(state)
    found.decisions.accept_loss()
    assert (found.decisions.held, found.problem) == (None, None)
    found.close()
    again = started(state)
    assert again.decisions.held is None
    again.close()


def test_what_an_operator_has_unloaded_does_not_count_as_active_when_that_decision_is_lost(tmp_path: Path) -> None:
    """Until it is loaded again, and active again."""
    made = started(tmp_path)
    for id in (GOOD, VersionId("n", "1", "sha256:n"), VersionId("o", "1", "sha256:o")):
        made.served.note_active(id, None, None)
    made.decisions.unload("n")
    made.decisions.unload("o")
    made.flush()
    made.decisions.load("o")
    made.served.note_active(VersionId("o", "1", "sha256:o"), None, None)
    made.close()
    copy(tmp_path).unlink()
    overwrite(main(tmp_path))
    found = started(tmp_path)
    assert found.decisions.held is not None
    assert found.served.active == {"m": ("1", "sha256:good"), "o": ("1", "sha256:o")}
    found.close()


def test_a_state_that_is_taken_away_whole_is_a_first_one(state: Path) -> None:
    """As it is documented: that is how an operator begins anew."""
    shutil.rmtree(state)
    found = started(state)
    assert (found.decisions.held, found.problem, found.decisions.pins) == (None, None, {})
    found.close()


def test_a_database_that_is_taken_away_with_its_copy_is_a_first_one_too(state: Path) -> None:
    main(state).unlink()
    copy(state).unlink()
    found = started(state)
    assert (found.decisions.held, found.problem) == (None, None)
    found.close()


# --- pages, at random ------------------------------------------------------------------------------------------------


def spoil(path: Path, randomness: random.Random) -> None:
    """Change a few bytes anywhere in a file, or cut it anywhere."""
    raw = bytearray(path.read_bytes())
    if randomness.random() < 0.2:
        del raw[randomness.randrange(len(raw)) :]
    else:
        for _ in range(randomness.choice((1, 1, 3, 50))):
            raw[randomness.randrange(len(raw))] ^= randomness.randrange(1, 256)
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "kind", ["the database", "its log", "its copy", "the database and its copy", "all but its log"]
)
def test_random_damage_loses_no_decision_silently(tmp_path: Path, kind: str) -> None:
    """After any: every decision is known, or nothing but what was active may be activated. It never raises."""
    made = started(tmp_path / "made")
    made.served.note_active(GOOD, None, None)
    made.flush()
    made.decisions.quarantine_version(BAD)
    made.decisions.pin("m", "1")
    made.decisions.unload("n")
    made.decisions.set_label("m", "best", "1")
    for path in (tmp_path / "made").iterdir():  # as kill -9 leaves it: all decisions are in the log
        (tmp_path / "kept").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "kept")
    made.close()
    files = {
        "the database": [DATABASE_NAME],
        "its log": [f"{DATABASE_NAME}-wal"],
        "its copy": [f"{DATABASE_NAME}.copy"],
        "the database and its copy": [DATABASE_NAME, f"{DATABASE_NAME}.copy"],
        "all but its log": [DATABASE_NAME, f"{DATABASE_NAME}.copy", "active.json"],
    }[kind]
    lost = 0
    for seed in range(60):
        randomness = random.Random(seed)
        directory = tmp_path / "spoiled"
        shutil.copytree(tmp_path / "kept", directory)
        for name in files:
            spoil(directory / name, randomness)
        found = History(directory, "basis", 1000)
        try:
            found.start()
        except StateTooNew:  # the damage made its version greater: it does not start, and has touched nothing
            shutil.rmtree(directory)
            continue
        has_lost = found.decisions.held is not None
        assert has_lost or has_every_decision(found), (
            f"seed {seed}: {found.decisions.pins} {found.decisions.quarantine} {found.problem}"
        )
        if "active.json" not in files:
            assert found.served.active == {"m": ("1", "sha256:good")}, f"seed {seed}"
        found.close()
        lost += has_lost
        shutil.rmtree(directory)
    assert bool(lost) is (len(files) > 1), f"{lost} were lost"


def test_a_log_that_is_gone_is_noticed(tmp_path: Path) -> None:
    """SQLite takes the database without it for whole: an older one."""
    made = started(tmp_path / "made")
    made.decisions.pin("n", "1")
    made.close()
    made = started(tmp_path / "made")
    made.decisions.quarantine_version(BAD)
    shutil.copytree(tmp_path / "made", tmp_path / "kept")
    made.close()
    (tmp_path / "kept" / f"{DATABASE_NAME}-wal").unlink()
    found = started(tmp_path / "kept")
    assert found.decisions.quarantine == {("m", "2", "sha256:bad")}
    assert "lacks decisions" in (found.problem or "")
    found.close()


# --- what cannot be used, and may be again ---------------------------------------------------------------------------


@pytest.fixture(params=["a directory", "a FIFO", "a socket", "a link to a directory"])
def blocked(state: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    real = main(state).rename(state / "elsewhere")
    if request.param == "a directory":
        main(state).mkdir()
    elif request.param == "a FIFO":
        os.mkfifo(main(state))
    elif request.param == "a socket":
        monkeypatch.chdir(state)  # the name of a socket is short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(DATABASE_NAME)
    else:
        main(state).symlink_to(".")
    yield state
    assert real.parent == state


def test_what_is_no_file_is_left_alone_and_nothing_is_activated_meanwhile(blocked: Path) -> None:
    """Whoever put it there may take it away; the decisions count again at once."""
    found = started(blocked)
    assert found.decisions.held is not None
    assert found.served.active == {"m": ("1", "sha256:good")}
    with pytest.raises(StateUnavailable, match="not a file"):
        found.decisions.accept_loss()
    assert found.decisions.held is not None
    path = main(blocked)
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (blocked / "elsewhere").rename(path)
    found.flush()
    assert has_every_decision(found)
    assert (found.decisions.held, found.problem) == (None, None)
    found.close()


def test_a_file_that_cannot_be_read_is_not_an_empty_one(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise StateUnavailable(f"{path.name} cannot be used: Permission denied")

    monkeypatch.setattr(database, "_check_header", refuse)
    found = started(state)
    assert found.decisions.held is not None
    monkeypatch.undo()
    found.flush()
    assert has_every_decision(found)
    found.close()


def test_a_state_directory_that_cannot_be_entered_is_not_an_empty_one(state: Path) -> None:
    """It is mounted late, or another user's."""
    directory, real = state / "mounted", state / "elsewhere"
    shutil.copytree(state, real)
    directory.symlink_to("mounted")  # to itself: not even the superuser gets in
    found = started(directory)
    assert "pins and quarantines are not known" in (found.decisions.held or "")
    directory.unlink()
    real.rename(directory)
    found.flush()
    assert has_every_decision(found)
    assert found.decisions.held is None
    found.close()


def test_a_state_directory_that_cannot_be_made_holds_nothing(tmp_path: Path) -> None:
    """There are no decisions in it, and there will be none."""
    (tmp_path / "file").touch()
    found = started(tmp_path / "file" / "state")
    assert found.decisions.held is None
    assert found.problem is not None
    found.close()


@pytest.mark.parametrize("damage", [overwrite, Path.unlink])
def test_a_copy_that_cannot_be_put_in_place_is_not_forgotten(state: Path, damage: Callable[[Path], None]) -> None:
    """The disk is full: nothing is activated until the decisions are known."""
    damage(main(state))

    def fail() -> None:
        raise OSError(28, "No space left on device")

    arm("state-replaced", fail)
    try:
        found = started(state)
        found.flush()
    finally:
        arm("state-replaced", None)
    assert "pins and quarantines are not known" in (found.decisions.held or "")
    assert found.served.active == {"m": ("1", "sha256:good")}
    found.flush()
    assert has_every_decision(found)
    assert found.decisions.held is None
    found.close()


def test_a_copy_that_cannot_be_used_is_kept_aside_too(state: Path) -> None:
    """It is replaced by a copy of the empty database; somebody may be able to read it."""
    overwrite(main(state))
    raw = copy(state).read_bytes()[:-5000]
    copy(state).write_bytes(raw)
    found = started(state)
    assert found.decisions.held is not None
    found.close()
    (aside,) = state.glob(f"{DATABASE_NAME}.copy.damaged-*")
    assert aside.read_bytes() == raw


# --- another release -------------------------------------------------------------------------------------------------


def set_version(path: Path, version: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("which", [main, copy])
def test_a_later_release_s_file_stops_the_start_and_is_not_touched(state: Path, which: Callable[[Path], Path]) -> None:
    set_version(which(state), SCHEMA_VERSION + 1)
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    known = rf"written by a later release .* {SCHEMA_VERSION + 1}, this release knows {SCHEMA_VERSION}"
    with pytest.raises(StateTooNew, match=known):
        started(state)
    after = {path.name: path.read_bytes() for path in state.iterdir()}
    assert {name: raw for name, raw in after.items() if name in before} == before
    assert {name for name in after if name not in before} <= {f"{DATABASE_NAME}-shm", f"{DATABASE_NAME}-wal"}


def test_a_later_release_s_version_that_is_only_in_the_log_stops_the_start_too(state: Path) -> None:
    connection = sqlite3.connect(main(state))
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.commit()
    shutil.copytree(state, state / "killed", ignore=lambda *_: ["killed"])
    connection.close()
    assert int.from_bytes(main(state / "killed").read_bytes()[60:64], "big") == SCHEMA_VERSION
    with pytest.raises(StateTooNew):
        started(state / "killed")


def test_the_state_of_an_earlier_release_is_brought_up_to_date(tmp_path: Path) -> None:
    """It had no version, no seal and no copy."""
    connection = sqlite3.connect(tmp_path / DATABASE_NAME)
    connection.executescript(
        "CREATE TABLE pins (model TEXT PRIMARY KEY, version TEXT NOT NULL); INSERT INTO pins VALUES ('m', '1');"
        "CREATE TABLE active (model TEXT PRIMARY KEY, version TEXT NOT NULL, digest TEXT NOT NULL);"
        "INSERT INTO active VALUES ('m', '1', 'sha256:good');"
    )
    connection.close()
    found = started(tmp_path)
    assert (found.decisions.pins, found.served.active, found.problem) == ({"m": "1"}, {"m": ("1", "sha256:good")}, None)
    found.flush()
    assert copy(tmp_path).exists()
    found.close()


# --- writing it ------------------------------------------------------------------------------------------------------


def test_a_decision_is_in_the_copy_before_it_is_answered(state: Path) -> None:
    found = started(state)
    found.decisions.quarantine_version(VersionId("m", "3", "sha256:worse"))
    aside = state / "aside"
    aside.mkdir()
    shutil.copy(copy(state), aside)
    found.close()
    again = started(aside)
    assert ("m", "3", "sha256:worse") in again.decisions.quarantine
    again.close()


def test_a_copy_that_cannot_be_renewed_is_removed_rather_than_left_behind(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would undo the decision one day."""
    found = started(state)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    found.decisions.pin("m", "4")
    assert not copy(state).exists()
    assert found.problem == f"{DATABASE_NAME}.copy cannot be written: No space left on device"
    monkeypatch.undo()
    found.close()
    assert copy(state).exists()


def test_a_damaged_page_never_gets_into_the_copy(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = started(state)
    before = copy(state).read_bytes()
    raw = bytearray(main(state).read_bytes())
    raw[4096:8192] = bytes(4096)
    main(state).write_bytes(raw)
    found.served.note_store(KnownStore("/store", 1))
    monkeypatch.setattr(state_file, "COPY_SECONDS", 0.0)
    found.flush()
    found.flush()
    assert has_every_decision(found)
    found.close()
    again = started(state)
    assert has_every_decision(again), before[:16]
    again.close()


@pytest.mark.parametrize("has_copy", [True, False])
def test_a_file_that_is_damaged_while_the_server_runs_is_replaced_without_losing_anything(
    state: Path, has_copy: bool
) -> None:
    """What is in memory is known: nothing is held."""
    found = started(state)
    found.lone_names.recognise(GOOD, ())
    found.flush()
    if not has_copy:
        copy(state).unlink()
    overwrite(main(state))
    for number in range(3):
        found.lone_names.recognise(VersionId("m", "4", f"sha256:more{number}"), ())
        found.flush()
    assert found.decisions.held is None
    assert has_every_decision(found)
    found.decisions.pin("m", "5")
    found.close()
    again = started(state)
    assert (again.decisions.pins, again.decisions.held) == ({"m": "5"}, None)
    assert again.decisions.quarantine == {("m", "2", "sha256:bad")}
    again.close()


@pytest.mark.parametrize("has_copy", [True, False])
def test_a_file_that_is_cut_while_the_server_runs_is_replaced_with_the_next_flush(state: Path, has_copy: bool) -> None:
    """SQLite notices at the next write, and would at every one after it."""
    before = started(state)
    before.served.note_store(KnownStore("/store", 1))
    before.close()
    found = started(state)
    if not has_copy:
        copy(state).unlink()
    with main(state).open("r+b") as file:
        file.truncate(4096)
    found.lone_names.recognise(VersionId("m", "4", "sha256:more"), ())
    found.flush()
    assert "is damaged" in (found.problem or "")
    found.flush()
    assert has_every_decision(found)
    assert found.decisions.held is None
    found.decisions.pin("m", "5")
    found.close()
    again = started(state)
    assert (again.decisions.pins, again.decisions.quarantine, again.decisions.held) == (
        {"m": "5"},
        {("m", "2", "sha256:bad")},
        None,
    )
    assert ("m", "sha256:more") in again.lone_names.known
    assert again.served.store == KnownStore("/store", 1)
    again.close()


def test_only_a_few_damaged_files_are_kept(state: Path) -> None:
    for _ in range(MAX_SET_ASIDE + 3):
        overwrite(main(state))
        found = started(state)
        assert has_every_decision(found)
        found.close()
    kept = damaged(state)
    assert len(kept) == MAX_SET_ASIDE
    assert all(path.read_bytes().startswith(b"this is no database") for path in kept)


def test_the_clock_plays_no_part(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy from the future is a copy."""
    os.utime(copy(state), (4e9, 4e9))
    overwrite(main(state))
    found = started(state)
    assert has_every_decision(found)
    found.close()


def test_a_copy_does_not_wait_for_ever_for_somebody_else(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    connection = sqlite3.connect(main(state), isolation_level=None)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    mine = Database(main(state))
    with pytest.raises(StateUnavailable, match="locked"):
        open_best(mine, was_used=False)
    connection.close()
    assert open_best(mine, was_used=False).found is Found.WHOLE
    mine.close()


def test_a_copy_that_takes_long_is_not_given_up_when_it_is_whole(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = started(state)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.0)  # whatever it takes is longer
    found.decisions.pin("m", "4")
    assert found.problem is None
    assert copy(state).exists()
    found.close()


def test_a_copy_is_given_up_when_somebody_holds_its_file(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    mine = Database(main(state))
    mine.open()
    connection = sqlite3.connect(state / "held", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StateUnavailable, match="locked"):
        mine.copy_to(state / "held")
    connection.close()
    mine.close()


# --- kill -9 ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kill:
    """When a recovery is killed, and from what."""

    has_copy: bool
    damage: Callable[[Path], None]
    point: Literal["state-copy", "state-replaced", "state-write"]
    nth: int

    def __str__(self) -> str:
        kept = "a copy" if self.has_copy else "no copy"
        return f"{self.damage.__name__}, {kept}, {self.point} {self.nth}"


KILLS = [
    Kill(has_copy, damage, point, nth)
    for has_copy in (True, False)
    for damage in (overwrite, Path.unlink)
    for point in ("state-copy", "state-replaced", "state-write")
    for nth in (1, 2)
]
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from serving.failpoints import arm
from serving.lifecycle.history import History

def recover(directory, point, left):
    def strike():
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    arm(point, strike)
    history = History(Path(directory), "basis", 1000)
    history.start()
    history.flush()
    history.decisions.pin("m", "1")
    history.close()

statuses = []
for each in json.loads(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        recover(*each)
        sys.exit()
    statuses.append(os.waitpid(pid, 0)[1])
print(json.dumps(statuses), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def killed(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Kill, Path]:
    """States whose recovery was killed. A program imports what they need once, and forks a process for each."""
    states = {}
    for kill in KILLS:
        states[kill] = tmp_path_factory.mktemp("killed") / "state"
        shutil.copytree(whole, states[kill])
        kill.damage(main(states[kill]))
        if not kill.has_copy:
            copy(states[kill]).unlink()
    asked = json.dumps([(str(state), kill.point, kill.nth) for kill, state in states.items()])
    done = subprocess.run([sys.executable, "-c", SCRIPT, asked], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    statuses = json.loads(done.stderr.splitlines()[-1])
    assert {os.waitstatus_to_exitcode(status) for status in statuses} == {0, -signal.SIGKILL}, done.stderr
    return states


@pytest.mark.parametrize("kill", KILLS, ids=str)
def test_kill_9_in_the_middle_of_a_recovery_loses_nothing(kill: Kill, killed: dict[Kill, Path]) -> None:
    state = killed[kill]
    is_first = not kill.has_copy and kill.damage is Path.unlink
    for _ in range(2):
        found = started(state)
        assert (
            (has_every_decision(found) and found.decisions.held is None)
            if kill.has_copy
            else (found.decisions.held is not None) or is_first
        )
        assert found.served.active == {"m": ("1", "sha256:good")} or is_first
        found.close()
    assert not [path for path in state.iterdir() if ".new" in path.name], "leftovers"


def test_the_names_of_what_is_active_that_are_damaged_are_none(state: Path) -> None:
    copy(state).unlink()
    overwrite(main(state))
    for raw in (b"", b"[]", b'{"active": {"m": 3}}', b'{"active": {"m": ["1"]}}', b"\xff"):
        (state / "active.json").write_bytes(raw)
        found = started(state)
        assert found.decisions.held is not None
        assert found.served.active == {}
        found.close()
