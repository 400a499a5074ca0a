"""Finds all estimators inside an estimator, at any depth."""

from __future__ import annotations

from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from serving.host import boosters

MAX_PARTS = 100_000
MAX_ALIKE = 32

# attributes with the number of threads: a parameter, and what KMeans stores when it is fitted
_THREAD_COUNTS = frozenset({"n_jobs", "_n_threads"})
_LEAVES = (str, bytes, int, float, complex, bool, type, FunctionType, BuiltinFunctionType, MethodType, ModuleType)
_CONTAINERS = (list, tuple, set, frozenset, dict)


def walk_nested_estimators(estimator: Any) -> Iterator[Any]:
    """Yield `estimator` and every object with attributes inside it, each once, in no particular order.

    Looks into parameters, fitted attributes, sequences, mappings, object arrays and plain objects. Of a long sequence
    of one class (the trees of a forest) only the first 32 are visited if none of these has `n_jobs`: they are clones
    of each other.
    """
    seen: set[int] = set()
    waiting: list[Any] = [estimator]
    while waiting and len(seen) < MAX_PARTS:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, _LEAVES):
            continue
        seen.add(id(found))
        if isinstance(found, np.ndarray):
            waiting.extend(_drop_clones(found.ravel().tolist()) if found.dtype.kind == "O" else ())
        elif isinstance(found, dict):
            waiting.extend(_drop_clones(list(found.values())))
        elif isinstance(found, _CONTAINERS):
            waiting.extend(_drop_clones(list(found)))
        elif _is_part(found):
            yield found
            waiting.extend(vars(found).values())


def limit_to_one_thread(estimator: Any) -> None:
    """Set ``n_jobs`` and similar attributes to 1 and turn ``verbose`` off in every part, in place.

    A host computes in one thread and prints nothing.
    """
    for part in walk_nested_estimators(estimator):
        state = vars(part)
        for name in _THREAD_COUNTS & state.keys():
            state[name] = 1
        if "verbose" in state and state["verbose"] is not False:
            state["verbose"] = 0
        if boosters.library_of(part) is not None:
            boosters.limit_to_one_thread(part)


def is_from_sklearn(part: Any) -> bool:
    """Return whether scikit-learn itself defines the class of `part`."""
    return type(part).__module__.startswith("sklearn.")


def _is_part(found: Any) -> bool:
    module = type(found).__module__
    return hasattr(found, "__dict__") and not module.startswith(("numpy", "scipy", "pandas", "builtins", "ctypes"))


def _drop_clones(items: list[Any]) -> list[Any]:
    if len(items) <= MAX_ALIKE or len(set(map(type, items))) > 1:
        return items
    head = items[:MAX_ALIKE]
    is_idle = all(isinstance(item, _LEAVES) or (_is_part(item) and _is_leaf(item)) for item in head)
    return head if is_idle else items


def _is_leaf(part: Any) -> bool:
    """Return whether `part` neither computes in parallel itself nor contains parts that might."""
    return "n_jobs" not in vars(part) and not any(
        _is_part(value) or isinstance(value, _CONTAINERS) for value in vars(part).values()
    )
