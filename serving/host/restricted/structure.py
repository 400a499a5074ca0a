"""What is looked at in a loaded model before anything is asked of it: numbers that compiled code follows unchecked.

A tree whose node points back computes for ever, one that points elsewhere reads any memory; so do sparse matrices and
neighbour trees whose indices lie. Allowed classes alone can hold all of that. What each must be: `sound`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from serving.host.restricted.arrays import inner_objects
from serving.host.restricted.distrust import Distrusted
from serving.host.restricted.sound import problem_of

_SKIPPED = (str, bytes, bytearray, int, float, complex, bool, type, type(None), np.generic, np.dtype)


def check_structure(model: Any) -> None:
    """Raise Distrusted when something inside of `model` cannot be what a library made. Computes only."""
    for part in _parts(model):
        what = problem_of(part)
        if what is not None:
            raise Distrusted(f"the file holds a {type(part).__name__} that is not sound: {what}; write it anew")


def _parts(model: Any) -> Iterator[Any]:
    """Yield every object inside of `model`, each once."""
    seen: set[int] = set()
    waiting = [model]
    while waiting:
        found = waiting.pop()
        if isinstance(found, _SKIPPED) or id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, np.ndarray):
            if found.dtype.kind == "O":
                waiting.extend(inner_objects(found))
        elif isinstance(found, dict):
            waiting.extend(dict.keys(found))
            waiting.extend(dict.values(found))
        elif isinstance(found, (list, tuple, set, frozenset)):
            waiting.extend(found)
        else:
            yield found
        if hasattr(found, "__dict__"):
            waiting.extend(vars(found).values())
