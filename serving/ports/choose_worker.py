"""Decides which worker a connection is passed to, so that few long connections are even.

The kernel spreads connections over workers by a hash of their addresses, so four connections that stay open may all be
one worker's. A worker may have an eighth more than the others. Of few connections each counts, and one more is enough
to pass the next one on; many are spread well enough by the kernel, and passing costs about as much as accepting.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

SLACK_SHARE = 8
ALL = sys.maxsize  # more than any worker has: of a worker that must not keep a single one


def choose_worker(
    own_worker: int, own_count: int, counts: Sequence[int | None], count_waiting: Callable[[int], int]
) -> int | None:
    """Return the worker that a connection is passed to, None if `own_worker` keeps it.

    `own_count` is how many `own_worker` has without it. `counts` says how many each worker has, None for one that must
    not be given any; `count_waiting` how many were given to a worker and are not in its count yet.
    """
    candidates = [
        (count, worker)
        for worker, count in enumerate(counts)
        if worker != own_worker and count is not None and own_count - count >= _slack(count)
    ]
    if not candidates:
        return None
    fewest, chosen = min((count + count_waiting(worker), worker) for count, worker in candidates)
    return chosen if own_count - fewest >= _slack(fewest) else None


def _slack(count: int) -> int:
    return 1 + count // SLACK_SHARE
