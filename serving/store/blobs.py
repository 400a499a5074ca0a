"""Stores copied files by content, as ``sha256/<hex>``. Two versions that share a file share its copy."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from serving.domain.errors import Cancelled
from serving.store.durable import CHUNK_BYTES, create_file, read_chunks, sha256_of, sync_directory
from serving.store.temporary_files import TemporaryFiles


class Blobs:
    """The copies in the cache. Any thread; blocks on the disk; raises OSError.

    A held copy is never removed. A hold lasts from the moment a file's hash is known until a descriptor refers to the
    file. The lock guards the sets below and the rename that removes a copy; it is never held while files are copied.
    """

    def __init__(self, directory: str, temporary_files: TemporaryFiles) -> None:
        self._directory = directory
        self._temporary_files = temporary_files
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._spared: set[str] | None = None
        self._verified: set[str] = set()

    def path(self, sha256: str) -> str:
        """Return where the copy with this hash is, or would be."""
        return os.path.join(self._directory, sha256)

    def size(self, sha256: str) -> int | None:
        """Return the size in bytes of a copy, None when there is none."""
        try:
            return os.stat(self.path(sha256), follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def bytes_on_disk(self, sha256: str) -> int:
        """Return how many bytes of disk a copy takes: less than its size when it has holes, 0 when there is no copy."""
        try:
            return os.stat(self.path(sha256), follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:
            return 0

    @contextmanager
    def hold(self) -> Iterator[set[str]]:
        """Yield a set to pass to `add` and `has`. The copies they find or make are kept until the block ends."""
        mine: set[str] = set()
        try:
            yield mine
        finally:
            with self._lock:
                self._held -= Counter(mine)

    def add(self, chunks: Iterable[memoryview], mine: set[str]) -> str:
        """Copy `read_chunks` and return their sha256 (hex); the name is durable after `sync`."""
        with self._temporary_files.make_path() as temporary:
            sha256 = create_file(temporary, chunks, 0o600)
            if not self.has(sha256, os.stat(temporary).st_size, mine):
                os.rename(temporary, self.path(sha256))
                with self._lock:
                    self._verified.add(sha256)
        return sha256

    def has(self, sha256: str, size: int, mine: set[str], cancel: threading.Event | None = None) -> bool:
        """Hold a hash and say whether there is a sound copy. Hashes the copy the first time this process asks.

        Raises Cancelled soon after `cancel` was set.
        """
        with self._lock:
            if sha256 not in mine:
                mine.add(sha256)
                self._held[sha256] += 1
            if self._spared is not None:
                self._spared.add(sha256)
            is_verified = sha256 in self._verified
        if self.size(sha256) != size:
            return False
        return is_verified or self.verify(sha256, cancel)

    def verify(self, sha256: str, cancel: threading.Event | None = None) -> bool:
        """Hash a copy and say whether it matches its name. Raises Cancelled soon after `cancel` was set."""
        try:
            descriptor = os.open(self.path(sha256), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            chunks = read_chunks(descriptor, memoryview(bytearray(CHUNK_BYTES)))
            is_sound = sha256_of(_until_cancelled(chunks, cancel)) == sha256
        finally:
            os.close(descriptor)
        with self._lock:
            (self._verified.add if is_sound else self._verified.discard)(sha256)
        return is_sound

    def sync(self) -> None:
        """Make the names of all copies durable."""
        sync_directory(self._directory)

    @contextmanager
    def sweep(self) -> Iterator[None]:
        """Make `remove_all_but` spare every copy that is held at any time within the block. One sweep at a time."""
        with self._lock:
            self._spared = set(self._held)
        try:
            yield
        finally:
            with self._lock:
                self._spared = None

    def remove_all_but(self, kept: Collection[str]) -> None:
        """Remove the copies that are neither `kept` nor spared."""
        for sha256 in os.listdir(self._directory):
            if sha256 not in kept:
                with self._temporary_files.make_path() as temporary:
                    self._remove_unspared(sha256, temporary)

    def _remove_unspared(self, sha256: str, temporary: str) -> None:
        """Rename an unspared copy, so that it cannot be found. Freeing its blocks may take long; that needs no lock."""
        with self._lock:
            if self._spared is not None and sha256 not in self._spared:
                os.rename(self.path(sha256), temporary)
                self._verified.discard(sha256)


def _until_cancelled(chunks: Iterable[memoryview], cancel: threading.Event | None) -> Iterator[memoryview]:
    for chunk in chunks:
        if cancel is not None and cancel.is_set():
            raise Cancelled("hashing a copy was cancelled")
        yield chunk
