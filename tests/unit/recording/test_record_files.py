"""Files of records: whole lines, closed by size and age, for their owner's eyes only."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.failpoints import arm
from serving.recording import record_files
from serving.recording.parquet_records import iterate_parquet
from serving.recording.record_files import Place, RecordFiles
from serving.recording.record_lines import RecordEncoder
from serving.recording.record_upkeep import RecordUpkeep
from tests.files import iterate_files
from tests.unit.recording.test_record_lines import make_request

LINE = RecordEncoder().encode(make_request())[0].lines[0]
HERE, THERE = Place("iris", "3", "predict"), Place("iris", "4", "predict")


def list_files(directory: Path) -> list[Path]:
    return sorted(iterate_files(directory))


def make(directory: Path, most_bytes: int = 1000, most_seconds: float = 60.0, **options: bool) -> RecordFiles:
    return RecordFiles(directory / "records", most_bytes, most_seconds, **options)


@contextmanager
def running(action: Callable[[], object]) -> Iterator[None]:
    """Do something over and over, in a thread, for the length of a block."""
    ending = threading.Event()

    def run() -> None:
        while not ending.is_set():
            action()

    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(run)
        try:
            yield
        finally:
            ending.set()
        future.result()


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


def test_files_begin_beside_an_upkeep_that_removes_all_that_is_closed(tmp_path: Path) -> None:
    files, upkeep = make(tmp_path, most_bytes=1), RecordUpkeep(tmp_path / "records", 1)
    with running(upkeep.look_after):
        for number in range(2000):
            files.append(Place("m", "1", f"method-{number % 3}"), b"a\n", 0.0)
        files.close_all()
    assert files.closed == 2000
    upkeep.look_after()
    assert not [path for path in list_files(tmp_path) if path.name != ".lock"]


def test_no_record_is_lost_to_an_upkeep_that_finds_a_file_before_it_is_locked(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra arrow is not installed")
    files, upkeep = make(tmp_path, most_bytes=1, is_unfinished=True), RecordUpkeep(tmp_path / "records", 1 << 30)
    open_file = os.open
    taken = []

    def open_and_have_it_found(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = open_file(path, flags, mode)
        if flags & os.O_EXCL and len(taken) < 2:
            taken.append(path)
            upkeep.look_after()
        return descriptor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_files.os, "open", open_and_have_it_found)
        files.append(HERE, LINE, 0.0)
    files.close_all()
    upkeep.look_after()
    (path,) = [path for path in list_files(tmp_path) if path.name != ".lock"]
    assert len(list(iterate_parquet(path))) == 1
    assert len(taken) == 2
    assert files.closed == 1


def test_a_file_that_is_looked_at_while_it_is_begun_is_not_written_without_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, lock, looking = make(tmp_path), fcntl.flock, []

    def look_first(descriptor: int, operation: int) -> None:
        if not looking:
            looking.append(os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR))
            lock(looking[0], operation)
        lock(descriptor, operation)

    monkeypatch.setattr(record_files.fcntl, "flock", look_first)
    files.append(HERE, b"a\n", 0.0)
    monkeypatch.undo()
    assert os.fstat(looking[0]).st_size == 0
    os.close(looking[0])
    files.close_all()
    assert [path.read_bytes() for path in list_files(tmp_path)] == [b"a\n"]


def test_a_directory_that_cannot_be_made_is_no_reason_to_try_for_ever(tmp_path: Path) -> None:
    files = make(tmp_path)
    (tmp_path / "records").touch()
    with pytest.raises(FileExistsError):
        files.append(HERE, b"a\n", 0.0)


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
