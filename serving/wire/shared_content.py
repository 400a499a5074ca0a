"""Memory with a content, whose descriptor is handed to other processes. Linux only."""

from __future__ import annotations

import mmap
import os


def share_content(content: bytes | memoryview) -> int:
    """Return a descriptor of memory that holds `content`, for any number of processes. Raises OSError."""
    fd = os.memfd_create("serving-content", os.MFD_CLOEXEC)
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]
    return fd


def map_content(fd: int) -> memoryview:
    """Return what `share_content` has written, without a copy. Raises OSError."""
    return memoryview(mmap.mmap(fd, os.fstat(fd).st_size, access=mmap.ACCESS_READ))
