"""Which core does what."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ALL = tuple(sorted(os.sched_getaffinity(0)))
SERVER_CORE = ALL[0]
CLIENT_CORE = ALL[-1]


def first(count: int) -> tuple[int, ...]:
    """Return the first `count` cores there are, fewer when there are not so many."""
    return ALL[:count]


@contextmanager
def on_cores(cores: Iterable[int]) -> Iterator[None]:
    """Confine this thread, and whatever it starts meanwhile for good, to some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cores))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def move(pids: Iterable[int], cores: Iterable[int]) -> None:
    """Confine running processes, with all of their threads, to some cores."""
    wanted = set(cores)
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), wanted)


def give_way() -> None:
    """Have this process run only where no other one wants the core: what it does to its own core is not measured."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def wait_idle(core: int, at_most_seconds: float = 30.0) -> bool:
    """Wait until a core has been at rest for a quarter of a second: what is left of abandoned requests is done then.

    Return False when it never was: what is measured next is worth little.
    """
    ends_at = time.monotonic() + at_most_seconds
    busy, total = _ticks(core)
    while time.monotonic() < ends_at:
        time.sleep(0.25)
        busy_before, total_before, (busy, total) = busy, total, _ticks(core)
        if busy - busy_before <= 0.2 * max(1, total - total_before):
            return True
    return False


def _ticks(core: int) -> tuple[int, int]:
    """Return how long a core was busy, and in all, in the kernel's ticks."""
    lines = Path("/proc/stat").read_text().splitlines()
    ticks = next([int(one) for one in line.split()[1:9]] for line in lines if line.startswith(f"cpu{core} "))
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
