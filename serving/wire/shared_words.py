"""Words of memory that the supervisor shares with its workers (Linux only).

One is the generation that answers: control writes it once for each commit, and a worker reads it once for each request.
Others are the heartbeats of event loops. Reading and writing 8 aligned bytes is one machine instruction, so nobody
sees half of a number, and no lock is needed.

Control that its workers may outlive has its words in a file (`open_words`): the next control writes to the same ones.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path


def make_words(name: str) -> int:
    """Return the descriptor of a page of new words, all 0, whose size is sealed. Raises OSError."""
    fd = os.memfd_create(f"serving-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, mmap.PAGESIZE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def open_words(path: Path) -> int:
    """Return the descriptor of the page of words in this file, all 0 in a new one. Blocks. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        missing = mmap.PAGESIZE - os.fstat(fd).st_size
        if missing > 0:  # written, so that there is room on the disk for what is written to the memory later
            os.pwrite(fd, bytes(missing), mmap.PAGESIZE - missing)
    except OSError:
        os.close(fd)
        raise
    return fd


def map_words(fd: int, *, writes: bool = False) -> memoryview[int]:
    """Return the words as a sequence of integers, read-only unless `writes`. The descriptor may be closed after."""
    access = mmap.ACCESS_WRITE if writes else mmap.ACCESS_READ
    return memoryview(mmap.mmap(fd, mmap.PAGESIZE, access=access)).cast("Q")
