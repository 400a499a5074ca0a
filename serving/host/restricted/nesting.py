"""How deep the objects of a file stand in each other, where C code goes down without counting: in tuples, which are
hashed so, and in arrays of objects, which are freed so. A file of a megabyte could end the process by either.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from serving.host.restricted.distrust import ANY_TRUST, Distrusted

MOST_LEVELS = 100
_COUNTED = (tuple, np.ndarray)


class Nesting:
    """The levels of the tuples and arrays of one file."""

    def __init__(self) -> None:
        # by id, and kept, so that no id comes again; what holds no other tuple or array has one level
        self._levels: dict[int, tuple[Any, int]] = {}

    def note(self, outer: Any, inside: Iterable[Any]) -> None:
        """Count the levels of `outer`, in which `inside` is. Raises Distrusted where there are too many."""
        deepest = 0
        for value in inside:
            if isinstance(value, _COUNTED):
                _, levels = self._levels.get(id(value), (value, 1))
                deepest = max(deepest, levels)
        if deepest >= MOST_LEVELS:
            raise Distrusted(f"the file nests tuples or arrays more than {MOST_LEVELS} times; {ANY_TRUST}")
        if deepest:
            self._levels[id(outer)] = (outer, deepest + 1)
