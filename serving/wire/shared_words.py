"""Words of memory that the supervisor shares with its workers (Linux only).

One is the generation that answers: control writes it once for each commit, and a worker reads it once for each request.
Others are the heartbeats of event loops. Reading and writing 8 aligned bytes is one machine instruction, so nobody
sees half of a number, and no lock is needed.
"""

from __future__ import annotations

import fcntl
import mmap
import os


def make_words(name: str) -> int:
    """Return the descriptor of a page of new words, all 0, whose size is sealed. Raises OSError."""
    fd = os.memfd_create(f"serving-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, mmap.PAGESIZE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def map_words(fd: int, *, writes: bool = False) -> memoryview[int]:
    """Return the words as a sequence of integers, read-only unless `writes`. The descriptor may be closed after."""
    access = mmap.ACCESS_WRITE if writes else mmap.ACCESS_READ
    return memoryview(mmap.mmap(fd, mmap.PAGESIZE, access=access)).cast("Q")
