"""The depth of nested tuples and arrays of objects in a file, and its limit.

C code hashes tuples and frees arrays of objects by recursion without a limit. A file of one megabyte could end the
process by either.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from serving.host.restricted.allow_list import ANY_TRUST, Distrusted

MOST_LEVELS = 100
_COUNTED = (tuple, np.ndarray)


class Nesting:
    """Counts the levels of nested tuples and arrays in one file."""

    def __init__(self) -> None:
        # by id; the objects are kept so that no id is used twice. An object that is not in here has one level
        self._levels: dict[int, tuple[Any, int]] = {}

    def note(self, outer: Any, inside: Iterable[Any]) -> None:
        """Count the levels of `outer`, which holds `inside`. Raises Distrusted if there are too many."""
        deepest = 0
        for value in inside:
            if isinstance(value, _COUNTED):
                _, levels = self._levels.get(id(value), (value, 1))
                deepest = max(deepest, levels)
        if deepest >= MOST_LEVELS:
            raise Distrusted(f"the file nests tuples or arrays more than {MOST_LEVELS} times; {ANY_TRUST}")
        if deepest:
            self._levels[id(outer)] = (outer, deepest + 1)
