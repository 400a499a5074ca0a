"""Checks that nodes form trees, for many trees at once: every walk from a root ends, and no recursion is too deep."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.host.restricted.sound.requirements import require

# compiled code that walks down a tree by recursion has a stack of a few megabytes
MOST_DEPTH = 10_000

Places = NDArray[np.int64]


def count_reached_nodes(left: Places, right: Places, roots: Places) -> int:
    """Return how many nodes are reached from the roots. A node counts once for each path that leads to it.

    `left` and `right` hold the places of the children in these arrays, negative for none: a node has two children or
    none. Raises Unsound if a path, such as an endless one, is longer than `MOST_DEPTH`.
    """
    reached, level = len(roots), roots
    for _ in range(MOST_DEPTH):
        inner = level[left[level] >= 0]
        if not inner.size:
            return reached
        level = np.concatenate([left[inner], right[inner]])
        reached += len(level)
        require(reached <= len(left), "a node has two parents, or none")
    require(False, f"a tree has more than {MOST_DEPTH} levels")
    return reached


def find_starts(counts: NDArray[Any]) -> Places:
    """Return where each of several consecutive lists of these lengths starts, and where the last ends."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
