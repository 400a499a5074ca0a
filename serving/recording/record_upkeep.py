"""Looks after the files of records: makes Parquet of what is finished, mends what a kill has cut, removes the oldest.

All processes that record into one directory look after it, one at a time: who does holds the lock of a hidden file. A
file that somebody writes is locked, too, and is let alone.
"""

from __future__ import annotations

import fcntl
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import structlog

from serving.recording.parquet_records import write_parquet
from serving.recording.record_files import JSONL, PARQUET, UNFINISHED, make_private_directory, name_finished

LOCK_NAME = ".lock"
PASS_SECONDS = 30.0
LOCK_SECONDS = 0.05  # how often the lock is tried at the end
TAIL_BYTES = 1 << 20

log = structlog.get_logger("serving.record")


class KeptFile(NamedTuple):
    """A file of records; files sort by the time in their names."""

    began: str
    path: Path
    nbytes: int


class RecordUpkeep:
    """A thread that looks after one directory: at the start, when it is woken, and now and then.

    `on_too_much` is called on it when only files that are written are left, and they are more than `most_bytes`.
    """

    def __init__(self, directory: Path, most_bytes: int) -> None:
        self._directory, self._most_bytes = directory, most_bytes
        self.on_too_much: Callable[[], None] = lambda: None
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._ends_at = math.inf
        self._whole: set[Path] = set()
        self._thread = threading.Thread(target=self._run, name="serving-record-upkeep", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have it look now. Any thread."""
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Look once more, and end, within a deadline: what is unfinished then is finished after the next start."""
        self._ends_at = time.monotonic() + seconds
        self._stopping.set()
        self._wake.set()
        self._thread.join(seconds)

    def look_after(self) -> bool:
        """Mend, convert and remove, if no other process does so now; returns whether. Blocks. Raises OSError."""
        make_private_directory(self._directory)
        with _lock(self._directory / LOCK_NAME) as is_mine:
            if not is_mine:
                return False
            for path in list(self._iterate_paths()):
                if path.suffix == JSONL and path not in self._whole:
                    self._finish(path)
            self._whole &= set(self._iterate_paths())
            self._remove_oldest()
        return True

    # -----------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._look()
            self._wake.wait(PASS_SECONDS)
            self._wake.clear()
        while not self._look() and not self._is_late():  # another process that began earlier may not see what is new
            time.sleep(LOCK_SECONDS)

    def _look(self) -> bool:
        try:
            return self.look_after()
        except Exception as error:  # noqa: BLE001  (whatever it is, it is tried again)
            log.error("records_not_looked_after", reason=f"{type(error).__name__}: {error}"[:200])
            return True

    def _is_late(self) -> bool:
        return time.monotonic() > self._ends_at

    def _iterate_paths(self) -> Iterator[Path]:
        for path in self._directory.glob("*/*/*/*"):
            if path.suffix in (JSONL, PARQUET):
                yield path

    def _finish(self, path: Path) -> None:
        """End a file that nobody writes with a whole line, and make Parquet of it if its name asks for that."""
        with _open_alone(path) as descriptor:
            if descriptor is None:
                return
            _drop_unfinished_line(descriptor)
            if not path.name.startswith(UNFINISHED):
                self._whole.add(path)
                return
            target = name_finished(path)
            if not target.exists() and os.fstat(descriptor).st_size:
                aside = path.with_suffix(PARQUET)
                if not write_parquet(path, aside, self._is_late):
                    return
                aside.rename(target)
            path.unlink(missing_ok=True)  # its writer gives up a file that is locked before it is

    def _remove_oldest(self) -> None:
        files = []
        for path in self._iterate_paths():
            with suppress(OSError):
                files.append(KeptFile(path.name.removeprefix(UNFINISHED), path, path.stat().st_size))
        total = sum(file.nbytes for file in files)
        for file in sorted(files):
            if total <= self._most_bytes:
                return
            with suppress(FileNotFoundError), _open_alone(file.path) as descriptor:
                if descriptor is not None:
                    file.path.unlink()
                    total -= file.nbytes
                    log.info("records_removed", file=str(file.path), nbytes=file.nbytes)
                    for parent in list(file.path.parents)[:3]:
                        with suppress(OSError):  # there is something else in it
                            parent.rmdir()
        if total > self._most_bytes:
            self.on_too_much()


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Yield whether this process holds the lock of the directory now."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield _try_lock(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _open_alone(path: Path) -> Iterator[int | None]:
    """Yield the descriptor of a file that nobody writes, which nobody else looks after meanwhile; else None."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield descriptor if _try_lock(descriptor) else None
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _drop_unfinished_line(descriptor: int) -> None:
    """Cut off what follows the last end of a line: a kill, or a full disk, has left it."""
    size = os.fstat(descriptor).st_size
    end = size
    while end > 0:
        start = max(0, end - TAIL_BYTES)
        at = os.pread(descriptor, end - start, start).rfind(b"\n")
        if at >= 0:
            end = start + at + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
