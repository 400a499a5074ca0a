"""Which core does what."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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
