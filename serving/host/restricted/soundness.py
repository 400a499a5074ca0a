"""The check of a loaded model's numbers before the model answers: compiled code uses some of them without a check.

A tree with a node that points back to its parent computes for ever; one that points elsewhere reads any memory. So do
sparse matrices and neighbour trees with wrong indices. Objects of allowed classes can hold all of that. The package
`sound` has the checks for each kind of object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from serving.host.restricted.allow_list import Distrusted
from serving.host.restricted.array_rules import list_objects_in
from serving.host.restricted.sound import find_problem, find_problem_in_answers

_PLAIN = frozenset({np.ndarray, dict, list, tuple, set, frozenset})
_SKIPPED = (str, bytes, bytearray, int, float, complex, bool, type, type(None), np.generic, np.dtype)


def check_soundness(model: Any) -> None:
    """Raise Distrusted if an object inside `model` has numbers that no library made. Computes only."""
    _require_no_problem(find_problem, model)


def check_answers(model: Any) -> None:
    """Raise Distrusted if an object inside `model` gives answers that compiled code does not expect.

    Lets the object answer: call this when all other checks have passed, and nothing in the model starts threads.
    """
    _require_no_problem(find_problem_in_answers, model)


def _require_no_problem(problem: Callable[[Any], str | None], model: Any) -> None:
    for part in _list_objects(model):
        what = problem(part)
        if what is not None:
            raise Distrusted(f"the file holds a {type(part).__name__} that is not sound: {what}; write it anew")


def _list_objects(model: Any) -> Iterator[Any]:
    """Yield every object inside `model` once."""
    seen: set[int] = set()
    waiting = [model]
    while waiting:
        found = waiting.pop()
        if isinstance(found, _SKIPPED) or id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, np.ndarray):
            if found.dtype.kind == "O":
                waiting.extend(list_objects_in(found))
        elif isinstance(found, dict):
            waiting.extend(dict.keys(found))
            waiting.extend(dict.values(found))
        elif isinstance(found, (list, tuple, set, frozenset)):
            waiting.extend(found)
        if type(found) not in _PLAIN:
            yield found
        if hasattr(found, "__dict__"):
            waiting.extend(vars(found).values())
