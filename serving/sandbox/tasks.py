"""Bound the number of threads and processes of one host, for ordinary users and for root.

The kernel counts tasks per real user, and separately within a process's own user namespace; it never counts those of
root. So each host of root gets its own real user, with a number that no user has. It still opens files as root, as far
as Landlock allows, but the kernel counts its tasks, separately from those of others. Both are tested here and not
assumed: that tasks are counted, and that the count is the host's alone.
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

_FIRST_FREE_USER = 0x70000000  # above the numbers that systemd, containers and directories give to users
_SECONDS_TO_END = 1.0


def leave_count_of_root() -> None:
    """Give a process of root its own real user, so that its tasks are counted; else do nothing.

    Call it before capabilities are dropped, and before the process enters a user namespace, which has no other users.
    """
    if sys.platform == "linux" and os.getuid() == 0:
        with contextlib.suppress(OSError):
            os.setresuid(_FIRST_FREE_USER + int.from_bytes(os.urandom(3), "little"), -1, -1)


def bound_tasks() -> None:
    """Allow at most `MOST_TASKS` threads of this process and the processes it forks. Call it with one thread running.

    If other processes share its count (those of the same user, without a namespace), the limit is `MOST_TASKS` above
    the number of all tasks that run now. Raises OSError if the kernel does not count tasks.
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
    """Return True if a second thread can start with a limit of `most` tasks."""
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
