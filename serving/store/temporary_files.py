"""Temporary files: written under a name of their own, renamed when they are complete."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class TemporaryFiles:
    """A directory of unfinished files. Any thread; raises OSError."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._in_use: set[str] = set()

    @contextmanager
    def make_path(self) -> Iterator[str]:
        """Yield an unused path, and remove the file at the end of the block if it is still there."""
        name = secrets.token_hex(8)
        path = os.path.join(self._directory, name)
        with self._lock:
            self._in_use.add(name)
        try:
            yield path
        finally:
            try:
                with suppress(FileNotFoundError):
                    os.unlink(path)
            finally:
                with self._lock:
                    self._in_use.discard(name)

    def remove_leftovers(self) -> None:
        """Remove the files that a dead process has left."""
        names = os.listdir(self._directory)  # before the set: what begins after this is in neither
        with self._lock:
            leftovers = [name for name in names if name not in self._in_use]
        for name in leftovers:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self._directory, name))
