"""What is looked at in a loaded model before anything is asked of it: numbers that compiled code follows unchecked.

A tree whose node points back computes for ever, one that points elsewhere reads any memory; so do sparse matrices and
neighbour trees whose indices lie. Allowed classes alone can hold all of that. What each must be: `sound`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from serving.host.restricted.array_rules import inner_objects
from serving.host.restricted.distrust import Distrusted
from serving.host.restricted.sound import problem_in_use, problem_of

_PLAIN = frozenset({np.ndarray, dict, list, tuple, set, frozenset})
_SKIPPED = (str, bytes, bytearray, int, float, complex, bool, type, type(None), np.generic, np.dtype)


def check_structure(model: Any) -> None:
    """Raise Distrusted when something inside of `model` cannot be what a library made. Computes only."""
    _refuse_what_has(problem_of, model)


def check_answers(model: Any) -> None:
    """Raise Distrusted when something inside of `model` answers what compiled code does not expect of it.

    Asks it: call it when all else is known to be sound, and nothing in the model takes threads.
    """
    _refuse_what_has(problem_in_use, model)


def _refuse_what_has(problem: Callable[[Any], str | None], model: Any) -> None:
    for part in _parts(model):
        what = problem(part)
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
        if type(found) not in _PLAIN:
            yield found
        if hasattr(found, "__dict__"):
            waiting.extend(vars(found).values())
