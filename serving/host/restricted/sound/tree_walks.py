"""Whether nodes form trees, for many trees at once: every walk from a root ends, and no recursion is too deep."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.host.restricted.sound.requirements import need

# compiled code that goes down a tree by calling itself has a stack of some megabytes
MOST_DEPTH = 10_000

Places = NDArray[np.int64]


def count_reached(left: Places, right: Places, roots: Places) -> int:
    """Return how many nodes are reached from the roots, each as often as a way leads to it.

    `left` and `right` are places in these arrays, negative for none: a node has both children or none. Raises Unsound
    where a way is longer than `MOST_DEPTH`: an endless one is.
    """
    reached, level = len(roots), roots
    for _ in range(MOST_DEPTH):
        inner = level[left[level] >= 0]
        if not inner.size:
            return reached
        level = np.concatenate([left[inner], right[inner]])
        reached += len(level)
        need(reached <= len(left), "a node has two parents, or none")
    need(False, f"a tree has more than {MOST_DEPTH} levels")
    return reached


def first_places(counts: NDArray[Any]) -> Places:
    """Return where each of several lists begins that follow each other, and where the last ends."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
