"""Directories of uploads are held by their servers, and removed when these have died."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serving.store.upload_directories import PREFIX, make_upload_directory, remove_abandoned_uploads

HOLDS = """
import sys, time
from pathlib import Path
from serving.store.upload_directories import make_upload_directory
made = make_upload_directory(Path(sys.argv[1]), "fresh")
(made.files / "model.joblib").write_bytes(b"half")
(Path(sys.argv[1]) / "fresh").mkdir()
print("made", flush=True)
time.sleep(60)
"""


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_a_directory_that_is_held_stays_until_its_server_dies(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"made\n"
        assert remove_abandoned_uploads(tmp_path) == 0
        assert len(names(tmp_path)) == 3
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert remove_abandoned_uploads(tmp_path) == 1
    assert names(tmp_path) == ["m"], "and so does the empty directory of its model"


def test_a_directory_whose_lock_is_taken_away_meanwhile_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that starts may take it for one that was left behind, between its making and its lock."""
    flock, taken = fcntl.flock, []

    def take_away_first(fd: int, operation: int) -> None:
        if not taken:
            (lock,) = tmp_path.glob("*/lock")
            lock.unlink()
            taken.append(lock.parent)
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", take_away_first)
    made = make_upload_directory(tmp_path, "m")
    assert made.files.parent not in taken
    assert len(names(tmp_path)) == 1
    made.remove()
    assert names(tmp_path) == []


def test_an_end_leaves_nothing(tmp_path: Path) -> None:
    made = make_upload_directory(tmp_path, "m")
    (made.files / "model.joblib").write_bytes(b"x")
    made.remove()
    made.remove()
    assert names(tmp_path) == []


def test_a_model_that_has_versions_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    left = tmp_path / f"{PREFIX}1"
    left.mkdir()
    (left / "lock").write_text("m")
    assert remove_abandoned_uploads(tmp_path) == 1
    assert names(tmp_path) == ["m"]
    assert names(tmp_path / "m") == ["1"]


@pytest.mark.parametrize("model", ["", "..", "../other", ".git", "/", "\udcff"])
def test_only_a_model_of_this_store_is_removed(tmp_path: Path, model: str) -> None:
    root, other = tmp_path / "store", tmp_path / "other"
    for path in (root / ".git", other, root / f"{PREFIX}1"):
        path.mkdir(parents=True)
    (root / f"{PREFIX}1" / "lock").write_bytes(os.fsencode(model))
    remove_abandoned_uploads(root)
    assert names(tmp_path) == ["other", "store"]
    assert names(root) == [".git"]


def test_what_died_before_it_held_the_directory_is_removed_if_it_is_empty(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}1").mkdir()
    (tmp_path / f"{PREFIX}2").mkdir()
    (tmp_path / f"{PREFIX}2" / "of somebody").write_text("x")
    remove_abandoned_uploads(tmp_path)
    assert names(tmp_path) == [f"{PREFIX}2"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "lock").write_text("")
    root = tmp_path / "store"
    root.mkdir()
    (root / f"{PREFIX}1").symlink_to(other)
    (root / f"{PREFIX}2").mkdir()
    (root / f"{PREFIX}2" / "lock").symlink_to(other / "lock")
    assert remove_abandoned_uploads(root) == 0
    assert names(other) == ["lock"]


def test_a_store_that_takes_nothing_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_upload_directory(tmp_path / "gone", "m")
    with pytest.raises(FileNotFoundError):
        remove_abandoned_uploads(tmp_path / "gone")
