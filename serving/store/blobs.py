"""Copied files by content: ``sha256/<hex>``. Two versions that share a file share its copy."""

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

    Nothing held is removed: a hold spans the time from the moment a file's hash is known to the moment somebody refers
    to it. The lock guards the sets below and the one rename that takes a blob away, never a copy.
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
        """Return what a copy takes on the disk, which is less than its size when it has holes; 0 when there is none."""
        try:
            return os.stat(self.path(sha256), follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:
            return 0

    @contextmanager
    def hold(self) -> Iterator[set[str]]:
        """Yield a set to hand to `add` and `has`: what they find or make is not removed before the block ends."""
        mine: set[str] = set()
        try:
            yield mine
        finally:
            with self._lock:
                self._held -= Counter(mine)

    def add(self, chunks: Iterable[memoryview], mine: set[str]) -> str:
        """Copy `chunks` and return their sha256 (hex); the name is durable after `sync`."""
        with self._temporary_files.new() as aside:
            sha256 = create_file(aside, chunks, 0o600)
            if not self.has(sha256, os.stat(aside).st_size, mine):
                os.rename(aside, self.path(sha256))
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
        """Hash a copy and say whether it is what its name says. Raises Cancelled soon after `cancel` was set."""
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
        """Spare, in `remove_all_but`, whatever is held at any time from here on; one sweep at a time."""
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
                with self._temporary_files.new() as aside:
                    self._take_away(sha256, aside)

    def _take_away(self, sha256: str, aside: str) -> None:
        """Rename a copy so that nobody finds it any more; freeing its blocks may take long, and needs no lock."""
        with self._lock:
            if self._spared is not None and sha256 not in self._spared:
                os.rename(self.path(sha256), aside)
                self._verified.discard(sha256)


def _until_cancelled(chunks: Iterable[memoryview], cancel: threading.Event | None) -> Iterator[memoryview]:
    for chunk in chunks:
        if cancel is not None and cancel.is_set():
            raise Cancelled("hashing a copy was cancelled")
        yield chunk
