"""Opens the files of one version. Never reads outside the store, and notices every change since the listing."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.domain.errors import Cancelled, NotPublished, StagingFailed
from serving.domain.listing import Entry, FileStamp
from serving.store.durable import CHUNK_BYTES, read_chunks
from serving.store.entries import DIRECTORY, VANISHED, make_stamp
from serving.store.links import is_inside
from serving.store.writers import is_open_for_writing

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class VersionSource:
    """One version in the store, as it was listed. One thread; blocks on the disk; stops when `cancel` is set.

    Every method raises NotPublished when a file is not what was listed, StagingFailed when it cannot be read, and
    Cancelled.
    """

    def __init__(self, root: Path, entry: Entry, cancel: threading.Event) -> None:
        try:
            self._root = os.path.realpath(root, strict=True)
        except OSError as error:
            raise StagingFailed(f"the store '{root}' cannot be read: {error.strerror}") from None
        self._entry = entry
        self.cancel = cancel
        self._buffer = memoryview(bytearray(CHUNK_BYTES))
        self._is_directory = os.path.isdir(os.path.join(self._root, entry.path))

    def require_unchanged(self) -> None:
        """Raise NotPublished, saying what changed, unless every file is as listed and not open for writing."""
        for stamp in self._entry.fingerprint:
            self._require_not_cancelled()
            with self._translate_os_errors(stamp.name):
                real = self._real_path(stamp.name)
                found = os.stat(real, follow_symlinks=False)
            self._require_same_file(stamp, found)
            if is_open_for_writing(real):
                raise NotPublished(f"'{self._describe_path(stamp.name)}' is still open for writing")

    @contextmanager
    def open(self, stamp: FileStamp) -> Iterator[int]:
        """Open one file and yield its descriptor."""
        with self._translate_os_errors(stamp.name):
            descriptor = self._open_beneath(self._real_path(stamp.name))
        try:
            self._require_same_file(stamp, os.fstat(descriptor))
            yield descriptor
        finally:
            os.close(descriptor)

    def read_chunks(self, descriptor: int, stamp: FileStamp) -> Iterator[memoryview]:
        """Yield the bytes of an open file from its beginning, never more than the listed size.

        Each view is valid until the next one is asked for. Raises Cancelled.
        """
        left = stamp.size
        with self._translate_os_errors(stamp.name):
            for chunk in read_chunks(descriptor, self._buffer):
                self._require_not_cancelled()
                left -= len(chunk)
                if left < 0:
                    break
                yield chunk
        if left:
            raise NotPublished(
                f"'{self._describe_path(stamp.name)}' {'grew' if left < 0 else 'shrank'} while it was copied"
            )

    def _require_not_cancelled(self) -> None:
        if self.cancel.is_set():
            raise Cancelled(f"the copy of '{self._entry.path}' was cancelled")

    def _real_path(self, name: str) -> str:
        path = os.path.join(self._root, self._entry.path, *([name] if self._is_directory else []))
        real = os.path.realpath(path, strict=True)
        if not is_inside(self._root, real):
            raise NotPublished(f"'{self._describe_path(name)}' leads outside the store")
        return real

    def _open_beneath(self, real: str) -> int:
        """Open a real path without following links: a directory on the way may have become a link meanwhile."""
        *parents, name = os.path.relpath(real, self._root).split(os.sep)
        directory = os.open(self._root, DIRECTORY)
        try:
            for parent in parents:
                inner = os.open(parent, DIRECTORY, dir_fd=directory)
                os.close(directory)
                directory = inner
            return os.open(name, _FILE, dir_fd=directory)
        finally:
            os.close(directory)

    def _require_same_file(self, stamp: FileStamp, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode) or make_stamp(stamp.name, found) != stamp:
            raise NotPublished(f"'{self._describe_path(stamp.name)}' has changed since it was listed")

    @contextmanager
    def _translate_os_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in VANISHED:
                raise NotPublished(f"'{self._describe_path(name)}' is gone") from None
            raise StagingFailed(f"'{self._describe_path(name)}' cannot be read: {error.strerror}") from None

    def _describe_path(self, name: str) -> str:
        return f"{self._entry.path}/{name}" if self._is_directory else self._entry.path
