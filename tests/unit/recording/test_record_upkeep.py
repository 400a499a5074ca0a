"""Finished files are mended, made into Parquet, and removed, oldest first; a file that is written is let alone."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.recording import record_upkeep
from serving.recording.parquet_records import iterate_parquet
from serving.recording.record_files import RecordFiles
from serving.recording.record_lines import RecordEncoder
from serving.recording.record_upkeep import LOCK_NAME, RecordUpkeep
from tests.e2e.harness import until
from tests.files import iterate_files
from tests.unit.recording.test_record_files import HERE, THERE
from tests.unit.recording.test_record_lines import make_request

LINE = RecordEncoder().encode(make_request())[0].lines[0]
PLENTY = 1 << 30


def list_names(directory: Path) -> list[str]:
    return sorted(path.name for path in iterate_files(directory) if path.name != LOCK_NAME)


def put(directory: Path, name: str, content: bytes = LINE) -> Path:
    path = directory.joinpath(*HERE, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def is_emptied(directory: Path) -> bool:
    """Whether the directories of `HERE` are gone, too: one that is removed while a file is put there fails that."""
    return not (directory / HERE.model).exists()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, as who writes it does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("torn", [b"{", LINE[:-1], LINE[:50], b"x" * (3 << 20)])
def test_a_file_that_a_kill_has_cut_ends_with_its_last_whole_line(tmp_path: Path, torn: bytes) -> None:
    path = put(tmp_path, "20260101T000000Z-1-1.jsonl", LINE * 3 + torn)
    nothing = put(tmp_path, "20260101T000000Z-1-2.jsonl", torn)
    RecordUpkeep(tmp_path, PLENTY).look_after()
    assert path.read_bytes() == LINE * 3
    assert nothing.read_bytes() == b""


def test_a_file_that_is_written_is_not_touched(tmp_path: Path) -> None:
    path = put(tmp_path, "20260101T000000Z-1-1.jsonl", LINE + b"{")
    other = put(tmp_path, "_20260101T000000Z-1-2.jsonl", LINE + b"{")
    upkeep = RecordUpkeep(tmp_path, 1)
    with locked(path), locked(other):
        upkeep.look_after()
        assert (path.read_bytes(), other.read_bytes()) == (LINE + b"{", LINE + b"{")
    upkeep.look_after()
    assert list_names(tmp_path) == []


def test_a_finished_file_becomes_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra arrow is not installed")
    files = RecordFiles(tmp_path, 1, 60.0, is_unfinished=True)
    files.append(HERE, LINE, 0.0)
    upkeep = RecordUpkeep(tmp_path, PLENTY)
    upkeep.look_after()
    assert [name[0] for name in list_names(tmp_path)] == ["_"], "it is still written"
    files.append(HERE, LINE, 0.0)
    upkeep.look_after()
    assert sorted(name.endswith(".parquet") and name[0] != "_" for name in list_names(tmp_path)) == [False, True]
    files.close_all()
    upkeep.look_after()
    found = list(tmp_path.rglob("*.parquet"))
    assert [len(list(iterate_parquet(path))) for path in found] == [1, 1]
    assert {path.stat().st_mode & 0o777 for path in found} == {0o600}
    assert len(list_names(tmp_path)) == 2


def test_what_a_kill_has_left_half_made_is_made_anew(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra arrow is not installed")
    put(tmp_path, "_20260101T000000Z-1-1.jsonl", LINE * 2 + b'{"half')
    put(tmp_path, "_20260101T000000Z-1-1.parquet", b"half")
    put(tmp_path, "_20260101T000000Z-1-2.jsonl")
    whole = put(tmp_path, "20260101T000000Z-1-2.parquet", b"made already, only the source was not removed")
    RecordUpkeep(tmp_path, PLENTY).look_after()
    assert list_names(tmp_path) == ["20260101T000000Z-1-1.parquet", "20260101T000000Z-1-2.parquet"]
    assert len(list(iterate_parquet(whole.with_name("20260101T000000Z-1-1.parquet")))) == 2
    assert whole.read_bytes().startswith(b"made already")


def test_a_file_that_its_writer_gives_up_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer begins another one, as this one was locked."""
    put(tmp_path, "_20260101T000000Z-1-1.jsonl", b"")
    name_finished = record_upkeep.name_finished

    def give_up_first(path: Path) -> Path:
        path.unlink()
        return name_finished(path)

    monkeypatch.setattr(record_upkeep, "name_finished", give_up_first)
    assert RecordUpkeep(tmp_path, PLENTY).look_after()
    assert list_names(tmp_path) == []


def test_parquet_that_is_late_is_made_after_the_next_start(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra arrow is not installed")
    put(tmp_path, "_20260101T000000Z-1-1.jsonl", LINE * 100)
    upkeep = RecordUpkeep(tmp_path, PLENTY)
    upkeep._ends_at = 0.0
    upkeep.look_after()
    assert list_names(tmp_path) == ["_20260101T000000Z-1-1.jsonl"]


def test_the_oldest_files_are_removed_beyond_the_limit(tmp_path: Path) -> None:
    names = [f"2026010{day}T000000Z-9-1.jsonl" for day in range(1, 6)]
    for name in reversed(names):
        put(tmp_path, name)
    old = tmp_path.joinpath(*THERE, "20250101T000000Z-9-1.jsonl")
    old.parent.mkdir(parents=True)
    old.write_bytes(LINE)
    upkeep = RecordUpkeep(tmp_path, 2 * len(LINE))
    with locked(tmp_path.joinpath(*HERE, names[0])):
        upkeep.look_after()
        assert list_names(tmp_path) == [names[0], names[-1]], "the one that is written stays"
    assert not old.parent.parent.exists(), "nothing is left of a version without records"


def test_other_files_are_never_removed(tmp_path: Path) -> None:
    put(tmp_path, "notes.txt", b"x" * 1000)
    put(tmp_path, "20260101T000000Z-1-1.jsonl")
    RecordUpkeep(tmp_path, 1).look_after()
    assert list_names(tmp_path) == ["notes.txt"]


def test_where_only_files_in_use_are_left_they_are_to_be_closed(tmp_path: Path) -> None:
    path = put(tmp_path, "20260101T000000Z-1-1.jsonl")
    upkeep = RecordUpkeep(tmp_path, 1)
    asked: list[bool] = []
    upkeep.on_too_much = lambda: asked.append(True)
    with locked(path):
        upkeep.look_after()
    assert asked == [True]
    upkeep.look_after()
    assert asked == [True]


def test_one_process_at_a_time_looks_after_a_directory(tmp_path: Path) -> None:
    put(tmp_path, "20260101T000000Z-1-1.jsonl")
    with locked(tmp_path / LOCK_NAME):
        RecordUpkeep(tmp_path, 1).look_after()
        assert list_names(tmp_path) == ["20260101T000000Z-1-1.jsonl"]
    RecordUpkeep(tmp_path, 1).look_after()
    assert list_names(tmp_path) == []


def test_its_thread_looks_at_the_start_when_woken_and_at_the_end(tmp_path: Path) -> None:
    directory = tmp_path / "records"
    put(directory, "20260101T000000Z-1-1.jsonl")
    upkeep = RecordUpkeep(directory, 1)
    upkeep.start()
    until(lambda: is_emptied(directory), "the first look")
    put(directory, "20260101T000000Z-1-2.jsonl")
    upkeep.wake()
    until(lambda: is_emptied(directory), "another look")
    put(directory, "20260101T000000Z-1-3.jsonl")
    upkeep.stop(30.0)
    assert list_names(directory) == []


def test_a_stop_that_comes_as_it_begins_another_look_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_upkeep, "PASS_SECONDS", 3600.0)
    upkeep = RecordUpkeep(tmp_path, 1)
    clear = upkeep._wake.clear

    def stop_first() -> None:
        upkeep._stopping.set()
        upkeep._wake.set()
        clear()

    monkeypatch.setattr(upkeep._wake, "clear", stop_first)
    upkeep.wake()
    upkeep.start()
    upkeep._thread.join(30)
    assert not upkeep._thread.is_alive()


def test_its_last_look_waits_for_other_processes(tmp_path: Path) -> None:
    directory = tmp_path / "records"
    directory.mkdir()
    upkeep = RecordUpkeep(directory, 1)
    with locked(directory / LOCK_NAME):
        upkeep.start()
        put(directory, "20260101T000000Z-1-1.jsonl")
        stopping = threading.Thread(target=upkeep.stop, args=(60.0,))
        stopping.start()
        until(upkeep._stopping.is_set, "the stop")
    stopping.join()
    assert list_names(directory) == []


def test_its_thread_outlives_a_failure(tmp_path: Path) -> None:
    directory = tmp_path / "records"
    directory.write_text("a file in its place")
    upkeep = RecordUpkeep(directory, 1)
    upkeep.start()
    directory.unlink()
    put(directory, "20260101T000000Z-1-1.jsonl")
    upkeep.wake()
    until(lambda: is_emptied(directory), "a look")
    upkeep.stop(30.0)
