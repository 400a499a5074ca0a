"""The names that attributes may have, checked before a file sets the state of an object.

An attribute with the name of a method would replace the method, and Python or NumPy may call it.
"""

from __future__ import annotations

import inspect
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

from serving.host.restricted.allow_list import ANY_TRUST, Distrusted
from serving.host.restricted.call_rules import list_innermost_values

RANDOM = (np.random.RandomState, np.random.Generator, np.random.BitGenerator, ISeedSequence)
_NUMBERS = (int, float, str, np.number, np.ndarray, type(None), np.random.SeedSequence)


def check_attribute_names(target: Any, state: Any) -> None:
    """Raise Distrusted for attributes that would replace what the class of `target` defines."""
    for part in state if type(state) is tuple and not hasattr(target, "__setstate__") else (state,):
        if isinstance(part, dict):
            _check_names(type(target), part)


def check_partial_state(target: partial[Any], state: Any) -> None:
    """Raise Distrusted unless the state only adds keywords to the function that `target` was made with."""
    is_usual = type(state) is tuple and len(state) == 4 and state[0] is target.func and state[1] == ()
    if not is_usual or type(state[2]) is not dict or state[3] not in (None, {}):
        raise Distrusted(f"the file binds arguments to a function as no model does; {ANY_TRUST}")


def check_random_state(state: Any) -> None:
    """Raise Distrusted unless the state of a random generator holds only numbers, texts, None and a seed."""
    if not all(isinstance(each, _NUMBERS) and not _has_objects(each) for each in list_innermost_values(state)):
        raise Distrusted(f"the file gives random numbers a state of other things; {ANY_TRUST}")


def _has_objects(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.hasobject


def is_dunder(key: Any) -> bool:
    """Return True for a name that Python or NumPy may look up on its own."""
    return isinstance(key, str) and key[:2] == "__"


def _check_names(kind: type, attributes: dict[Any, Any]) -> None:
    if type(attributes) is not dict:  # a subclass may run code of its own when it is read
        what = type(attributes).__name__
        raise Distrusted(f"the file gives an object of {kind.__name__} a state of {what}; {ANY_TRUST}")
    for key in attributes:
        if is_dunder(key):
            raise Distrusted(f"the file sets an attribute whose name begins with '__'; {ANY_TRUST}")
        if isinstance(key, str) and _is_method(kind, key):
            name = f"{kind.__name__}.{key}"[:200]
            raise Distrusted(f"the file sets an attribute in the place of the method {name}; {ANY_TRUST}")


@lru_cache(maxsize=4096)  # a forest has the same names a thousand times
def _is_method(kind: type, name: str) -> bool:
    return inspect.isroutine(inspect.getattr_static(kind, name, None))
