"""All estimators inside an estimator, however they are nested."""

from __future__ import annotations

from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from serving.host import boosters

MAX_PARTS = 100_000
MAX_ALIKE = 32

# how many threads a part may take, as a parameter or as KMeans notes it when it is fitted
_THREADS = frozenset({"n_jobs", "_n_threads"})
_LEAVES = (str, bytes, int, float, complex, bool, type, FunctionType, BuiltinFunctionType, MethodType, ModuleType)
_CONTAINERS = (list, tuple, set, frozenset, dict)


def all_parts(estimator: Any) -> Iterator[Any]:
    """Yield `estimator` and every object with attributes inside it, each once, in no promised order.

    Looks into parameters, fitted attributes, sequences, mappings, object arrays and plain objects. Of a long sequence
    of one class (the trees of a forest) only the first 32 are looked into when none of these has `n_jobs`: they are
    clones of each other.
    """
    seen: set[int] = set()
    waiting: list[Any] = [estimator]
    while waiting and len(seen) < MAX_PARTS:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, _LEAVES):
            continue
        seen.add(id(found))
        if isinstance(found, np.ndarray):
            waiting.extend(_worth_a_look(found.ravel().tolist()) if found.dtype.kind == "O" else ())
        elif isinstance(found, dict):
            waiting.extend(_worth_a_look(list(found.values())))
        elif isinstance(found, _CONTAINERS):
            waiting.extend(_worth_a_look(list(found)))
        elif _is_part(found):
            yield found
            waiting.extend(vars(found).values())


def compute_alone(estimator: Any) -> None:
    """Set ``n_jobs`` and its like to 1 and ``verbose`` to off in every part.

    A host computes in one thread and prints nothing.
    """
    for part in all_parts(estimator):
        state = vars(part)
        for name in _THREADS & state.keys():
            state[name] = 1
        if "verbose" in state and state["verbose"] is not False:
            state["verbose"] = 0
        if boosters.library_of(part) is not None:
            boosters.compute_alone(part)


def is_from_sklearn(part: Any) -> bool:
    """Say whether the class of `part` is one of scikit-learn's own."""
    return type(part).__module__.startswith("sklearn.")


def _is_part(found: Any) -> bool:
    module = type(found).__module__
    return hasattr(found, "__dict__") and not module.startswith(("numpy", "scipy", "pandas", "builtins", "ctypes"))


def _worth_a_look(items: list[Any]) -> list[Any]:
    if len(items) <= MAX_ALIKE or len(set(map(type, items))) > 1:
        return items
    head = items[:MAX_ALIKE]
    is_idle = all(isinstance(item, _LEAVES) or (_is_part(item) and _is_leaf(item)) for item in head)
    return head if is_idle else items


def _is_leaf(part: Any) -> bool:
    """Say whether `part` neither computes in parallel itself nor holds parts that might."""
    return "n_jobs" not in vars(part) and not any(
        _is_part(value) or isinstance(value, _CONTAINERS) for value in vars(part).values()
    )
