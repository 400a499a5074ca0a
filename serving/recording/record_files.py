"""The files that one process writes: one for each model, version and method, each of whole lines.

    <directory>/<model>/<version>/<method>/20261130T140852Z-4711-1.jsonl

A name has the time (UTC) and the process that began the file, and a number. Who writes a file holds a lock on it, which
the system takes away when the process ends, however that happens. A name that begins with ``_`` is of an unfinished
file: pandas and pyarrow pass over such names.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import NamedTuple

from serving.failpoints import reach

JSONL, PARQUET, UNFINISHED = ".jsonl", ".parquet", "_"
MOST_OPEN = 64  # files; beyond that the one that was written longest ago is closed
MOST_ATTEMPTS = 20  # to begin a file beside an upkeep that removes what is empty
WRITE_BYTES = 64 << 10  # at once: a kill can end a longer write in the middle


class Place(NamedTuple):
    """What a file is about."""

    model: str
    version: str
    method: str


@dataclass(slots=True)
class _OpenFile:
    descriptor: int
    path: Path
    began: float
    written: float
    nbytes: int = 0

    def is_gone(self) -> bool:
        """Whether somebody has removed the file."""
        return os.fstat(self.descriptor).st_nlink == 0

    def append(self, content: bytes) -> None:
        """Write all of it, or nothing. Raises OSError; then the file ends where it did, if the system allows that."""
        rest = memoryview(content)
        try:
            reach("record-write")
            while rest:
                rest = rest[os.write(self.descriptor, rest[:WRITE_BYTES]) :]
        except OSError:
            os.ftruncate(self.descriptor, self.nbytes)
            raise
        self.nbytes += len(content)


class RecordFiles:
    """Begins, appends to and closes files. One thread; all methods block. Times are those of a monotonic clock.

    A file that has `most_bytes` is closed before more is appended to it. With `is_unfinished` the names say that
    something is to be made of the files when they are closed. `closed` counts how many were.
    """

    def __init__(self, directory: Path, most_bytes: int, most_seconds: float, *, is_unfinished: bool = False) -> None:
        self._directory = directory
        self.most_bytes, self._most_seconds = most_bytes, most_seconds
        self._prefix = UNFINISHED if is_unfinished else ""
        self._files: dict[Place, _OpenFile] = {}
        self._numbers = count(1)
        self.closed = 0

    def append(self, place: Place, content: bytes, now: float) -> None:
        """Append whole lines to the file of a place, or to a new one. Raises OSError: then nothing was written."""
        file = self._files.get(place)
        if file is not None and (file.nbytes >= self.most_bytes or file.is_gone()):
            self._close(place)
            file = None
        if file is None:
            while len(self._files) >= MOST_OPEN:
                self._close(min(self._files, key=lambda one: self._files[one].written))
            file = self._files[place] = self._begin(place, now)
        try:
            file.append(content)
        except OSError:
            if file.nbytes == 0 or os.fstat(file.descriptor).st_size != file.nbytes:
                self._close(place)
            raise
        file.written = now

    def close_old(self, now: float) -> None:
        """Close the files that were begun long ago."""
        for place in [place for place, file in self._files.items() if now - file.began >= self._most_seconds]:
            self._close(place)

    def close_all(self) -> None:
        """Close every file."""
        for place in list(self._files):
            self._close(place)

    def find_next_end(self) -> float | None:
        """Return when the next file is to be closed because of its age, None if there is no file."""
        return min((file.began + self._most_seconds for file in self._files.values()), default=None)

    def _begin(self, place: Place, now: float) -> _OpenFile:
        """Make a file and lock it, however often the upkeep of a process comes between: it removes what is empty."""
        failure: OSError | None = None
        for _ in range(MOST_ATTEMPTS):
            name = f"{self._prefix}{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}-{next(self._numbers)}{JSONL}"
            try:
                path = make_private_directory(self._directory, *place) / name
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            except (FileExistsError, FileNotFoundError) as error:
                failure = error
                continue
            if _lock_new_file(descriptor):
                return _OpenFile(descriptor, path, now, now)
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)
        raise failure or BlockingIOError(errno.EAGAIN, "each new file was taken by another process")

    def _close(self, place: Place) -> None:
        file = self._files.pop(place)
        self.closed += 1
        if file.nbytes == 0:
            with suppress(OSError):
                file.path.unlink()
        os.close(file.descriptor)


def _lock_new_file(descriptor: int) -> bool:
    """Lock a new file. Returns False if another process has locked or removed it first: the upkeep tries every file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return os.fstat(descriptor).st_nlink > 0


def name_finished(path: Path) -> Path:
    """Return the path of the Parquet file that is made of an unfinished file."""
    return path.with_name(path.name.removeprefix(UNFINISHED)).with_suffix(PARQUET)


def make_private_directory(directory: Path, *inner: str) -> Path:
    """Make a directory, and those in it, for this user alone; what exists stays as it is. Raises OSError."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    for part in ("", *inner):
        directory = directory / part
        directory.mkdir(mode=0o700, exist_ok=True)
    return directory
