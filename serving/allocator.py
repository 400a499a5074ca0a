"""The memory that the C library has given out in this process. Only glibc tells, and gives back what is free inside.

onnxruntime needs ten times the size of a graph to open it, for a moment. glibc keeps what is free again between blocks
that are in use: without `return_freed_memory` most of it stays in the process.
"""

from __future__ import annotations

import ctypes

_COUNTS = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


class _Counts(ctypes.Structure):
    """``struct mallinfo2`` of mallinfo(3): `uordblks` bytes are in use, and `hblkhd` in blocks mapped one by one."""

    _fields_ = [(name, ctypes.c_size_t) for name in _COUNTS]


# looked up once: a process in the sandbox may not open a library any more
_libc = ctypes.CDLL(None)
_trim = getattr(_libc, "malloc_trim", None)
_count = getattr(_libc, "mallinfo2", None)
if _count is not None:
    _count.restype = _Counts


def return_freed_memory() -> None:
    """Return freed memory to the system; does nothing under another C library than glibc. Any thread.

    Blocks, and with it threads that allocate memory: 0.1 ms for each megabyte that is returned.
    """
    if _trim is not None:
        _trim(0)


def count_allocated_bytes() -> int | None:
    """Return how many bytes this process has allocated and not freed, None where the C library does not tell."""
    if _count is None:
        return None
    counts = _count()
    return int(counts.uordblks + counts.hblkhd)
