"""Bytes that are still there after a power cut."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from serving.failpoints import reach

CHUNK_BYTES = 1 << 20


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable; blocks on the disk, raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_file(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview], mode: int = 0o666) -> str:
    """Write a new file, make it durable and return its sha256 (hex); the umask applies to `mode`.

    The name itself is durable only after `sync_directory`. Blocks; raises OSError (FileExistsError when it exists) and
    whatever `chunks` raises, and then leaves what was written so far to the caller.
    """
    sha256 = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        for chunk in chunks:
            sha256.update(chunk)
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        reach("cache-write")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return sha256.hexdigest()


def read_chunks(descriptor: int, buffer: memoryview) -> Iterable[memoryview]:
    """Yield everything from an open file through `buffer`, which the next step overwrites; raises OSError."""
    while count := os.readv(descriptor, [buffer]):
        yield buffer[:count]


def sha256_of(chunks: Iterable[bytes | memoryview]) -> str:
    """Return the sha256 (hex) of all `chunks`."""
    sha256 = hashlib.sha256()
    for chunk in chunks:
        sha256.update(chunk)
    return sha256.hexdigest()
