"""Reads files, and writes them so that they survive a power cut. Holes in files stay holes."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator

from serving.failpoints import reach

CHUNK_BYTES = 1 << 20
HOLE = bytes(CHUNK_BYTES)  # stands for a hole: writing a view of this object takes no disk space

_NO_HOLES = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable; blocks on the disk, raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_file(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview], mode: int = 0o666) -> str:
    """Write a new file, make it durable and return its sha256 (hex); the umask applies to `mode`.

    Views of HOLE become holes in the file. The name itself is durable only after `sync_directory`. Blocks; raises
    OSError (FileExistsError when it exists) and every error of `chunks`. The caller removes a half-written file.
    """
    sha256 = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        size = 0
        for chunk in chunks:
            sha256.update(chunk)
            rest = memoryview(chunk)
            is_hole = rest.obj is HOLE
            size += len(rest)
            if is_hole:
                os.lseek(descriptor, size, os.SEEK_SET)
            while rest and not is_hole:
                rest = rest[os.write(descriptor, rest) :]
        os.ftruncate(descriptor, size)  # it may end with a hole
        reach("cache-write")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return sha256.hexdigest()


def read_chunks(descriptor: int, buffer: memoryview) -> Iterator[memoryview]:
    """Yield everything from an open file through `buffer`, which the next step overwrites; raises OSError.

    Holes are not read: they are yielded as views of HOLE where the file system can tell holes from zeros.
    """
    position, data_ends_at = 0, 0
    while True:
        if position >= data_ends_at:
            begins_at, data_ends_at = _next_data(descriptor, position)
            while position < begins_at:
                hole = memoryview(HOLE)[: begins_at - position]
                yield hole
                position += len(hole)
        count = os.preadv(descriptor, [buffer[: data_ends_at - position]], position)
        if not count:
            return
        yield buffer[:count]
        position += count


def _next_data(descriptor: int, position: int) -> tuple[int, int]:
    """Return where the next data at or after `position` begins and ends. Without further data, both are the file's end.

    Where the system cannot report holes, the whole file counts as data.
    """
    try:
        begins_at = os.lseek(descriptor, position, os.SEEK_DATA)
        return begins_at, os.lseek(descriptor, begins_at, os.SEEK_HOLE)
    except AttributeError:  # a system without them
        return position, position + CHUNK_BYTES
    except OSError as error:
        if error.errno == errno.ENXIO:  # no data from here on
            end = os.fstat(descriptor).st_size
            return end, end + 1  # read once more: it may have grown
        if error.errno not in _NO_HOLES:
            raise
        return position, position + CHUNK_BYTES


def sha256_of(chunks: Iterable[bytes | memoryview]) -> str:
    """Return the sha256 (hex) of all `chunks`."""
    sha256 = hashlib.sha256()
    for chunk in chunks:
        sha256.update(chunk)
    return sha256.hexdigest()
