"""A bound on the threads and processes of one host, for ordinary users and for root.

The kernel counts tasks per real user, and within a user namespace of a process's own for itself; it never counts those
of root. So root's hosts get a real user of their own, of a number nobody has: files are still opened as root, whatever
Landlock leaves of them, but the tasks are counted, and are the host's alone. Whether a count is kept, and whether it is
the host's alone, is tried and not assumed.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import resource
import sys
import time
from pathlib import Path

MOST_TASKS = 128

_FIRST_FREE_USER = 0x70000000  # above what systemd, containers and directories give to anybody
_SECONDS_TO_END = 1.0


def leave_count_of_root() -> None:
    """Give this process a real user of its own when it is root's, so that its tasks are counted; else do nothing.

    Before its capabilities are dropped, and before it enters a user namespace, which knows no other users.
    """
    if sys.platform == "linux" and os.getuid() == 0:
        with contextlib.suppress(OSError):
            os.setresuid(_FIRST_FREE_USER + int.from_bytes(os.urandom(3)), -1, -1)


def bound_tasks() -> None:
    """Let this process, what it forks and the threads of all these be `MOST_TASKS` at most. For one thread.

    Where others share its count, as those of the same user without a namespace do, the bound lies by `MOST_TASKS` above
    the number of all tasks there are now. Raises OSError where tasks are not counted.
    """
    if sys.platform != "linux":
        raise OSError(0, f"not on {sys.platform}")
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if _can_start_thread(1, hard):
        raise OSError(0, "the kernel counts no threads of root, and root is not allowed to become another user here")
    most = MOST_TASKS if _can_start_thread(2, hard) else MOST_TASKS + _count_all_tasks()
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def _can_start_thread(most: int, hard: int) -> bool:
    """Say whether a second thread is allowed when there may be `most` tasks."""
    resource.setrlimit(resource.RLIMIT_NPROC, (most, hard))
    try:
        _thread.start_new_thread(lambda: None, ())
    except RuntimeError:
        return False
    ends_at = time.monotonic() + _SECONDS_TO_END
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < ends_at:
        time.sleep(0)
    return True


def _count_all_tasks() -> int:
    """Return how many threads the whole machine runs."""
    return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
