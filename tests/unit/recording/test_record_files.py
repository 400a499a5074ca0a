"""Files of records: whole lines, closed by size and age, for their owner's eyes only."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest

from serving.failpoints import arm
from serving.recording import record_files
from serving.recording.record_files import Place, RecordFiles

HERE, THERE = Place("iris", "3", "predict"), Place("iris", "4", "predict")


def list_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def make(directory: Path, most_bytes: int = 1000, most_seconds: float = 60.0, **options: bool) -> RecordFiles:
    return RecordFiles(directory / "records", most_bytes, most_seconds, **options)


def test_each_place_has_a_file_below_its_own_directory(tmp_path: Path) -> None:
    files = make(tmp_path)
    for place, line in ((HERE, b"a\n"), (THERE, b"b\n"), (HERE, b"c\n")):
        files.append(place, line, 0.0)
    files.close_all()
    found = list_files(tmp_path)
    assert [path.read_bytes() for path in found] == [b"a\nc\n", b"b\n"]
    assert [path.parent for path in found] == [tmp_path.joinpath("records", *place) for place in (HERE, THERE)]
    assert all(f"-{os.getpid()}-" in path.name for path in found)


def test_only_the_owner_can_look_into_them(tmp_path: Path) -> None:
    files = make(tmp_path)
    files.append(HERE, b"a\n", 0.0)
    (file,) = list_files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {stat.S_IMODE(path.stat().st_mode) for path in list(file.parents)[:4]} == {0o700}
    files.close_all()


def test_a_file_that_is_large_is_followed_by_another_one(tmp_path: Path) -> None:
    files = make(tmp_path, most_bytes=10)
    for _ in range(4):
        files.append(HERE, b"12345\n", 0.0)
    files.close_all()
    assert [path.stat().st_size for path in list_files(tmp_path)] == [12, 12]
    assert files.closed == 2


def test_a_file_that_is_old_is_closed(tmp_path: Path) -> None:
    files = make(tmp_path, most_seconds=10)
    assert files.find_next_end() is None
    files.append(HERE, b"a\n", 100.0)
    files.append(THERE, b"a\n", 105.0)
    assert files.find_next_end() == 110.0
    files.close_old(109.0)
    assert files.closed == 0
    files.close_old(110.0)
    assert files.closed == 1
    assert files.find_next_end() == 115.0
    files.close_all()


def test_two_processes_never_share_a_file(tmp_path: Path) -> None:
    one, two = make(tmp_path), make(tmp_path)  # which have even the same number
    one.append(HERE, b"a\n", 0.0)
    two.append(HERE, b"b\n", 0.0)
    assert sorted(path.read_bytes() for path in list_files(tmp_path)) == [b"a\n", b"b\n"]
    one.close_all()
    two.close_all()


def test_a_file_is_locked_while_it_is_written(tmp_path: Path) -> None:
    files = make(tmp_path)
    files.append(HERE, b"a\n", 0.0)
    with list_files(tmp_path)[0].open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        files.close_all()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_file_that_somebody_has_removed_is_begun_anew(tmp_path: Path) -> None:
    files = make(tmp_path)
    files.append(HERE, b"a\n", 0.0)
    file = list_files(tmp_path)[0]
    file.unlink()
    for parent in list(file.parents)[:4]:
        parent.rmdir()
    files.append(HERE, b"b\n", 0.0)
    files.close_all()
    assert [path.read_bytes() for path in list_files(tmp_path)] == [b"b\n"]


def test_a_disk_that_fills_up_in_a_write_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = make(tmp_path)
    files.append(HERE, b"whole\n", 0.0)
    write, calls = os.write, 0

    def write_half(descriptor: int, content: memoryview) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, content[:3])

    monkeypatch.setattr(record_files.os, "write", write_half)
    with pytest.raises(OSError, match="No space"):
        files.append(HERE, b"another\n", 0.0)
    monkeypatch.undo()
    files.append(HERE, b"later\n", 0.0)
    files.close_all()
    assert [path.read_bytes() for path in list_files(tmp_path)] == [b"whole\nlater\n"]


def test_a_file_that_could_not_be_written_at_all_does_not_stay(tmp_path: Path) -> None:
    files = make(tmp_path)

    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    arm("record-write", fail)
    try:
        with pytest.raises(OSError, match="No space"):
            files.append(HERE, b"a\n", 0.0)
    finally:
        arm("record-write", None)
    assert list_files(tmp_path) == []
    files.append(HERE, b"b\n", 0.0)
    files.close_all()
    assert [path.read_bytes() for path in list_files(tmp_path)] == [b"b\n"]


def test_no_more_than_some_files_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_files, "MOST_OPEN", 2)
    files = make(tmp_path)
    files.append(HERE, b"a\n", 1.0)
    files.append(THERE, b"a\n", 2.0)
    files.append(HERE, b"a\n", 3.0)
    files.append(Place("other", "1", "predict"), b"a\n", 4.0)
    assert files.closed == 1
    files.append(HERE, b"b\n", 5.0)
    files.close_all()
    assert sorted(path.read_bytes() for path in list_files(tmp_path)) == [b"a\n", b"a\n", b"a\na\nb\n"]


def test_a_name_says_that_something_is_still_made_of_a_file(tmp_path: Path) -> None:
    files = make(tmp_path, is_unfinished=True)
    files.append(HERE, b"a\n", 0.0)
    files.close_all()
    assert list_files(tmp_path)[0].name.startswith("_")
