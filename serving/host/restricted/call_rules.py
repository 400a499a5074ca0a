"""The rules for the arguments of listed functions, checked before a call: some arguments would do harm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import _pickle

from serving.host.restricted.allow_list import Global
from serving.host.restricted.array_rules import is_buffer_of


def are_usual_arguments(name: Global, arguments: tuple[Any, ...]) -> bool:
    """Return True if models call the function with this name with such arguments."""
    check = _CHECKS.get(name)
    return check is None or check(*arguments)


def list_innermost_values(arguments: Any) -> list[Any]:
    """Return the values in nested tuples, lists, sets and dicts of arguments."""
    found, waiting, seen = [], [arguments], set()
    while waiting:
        value = waiting.pop()
        if not isinstance(value, (tuple, list, set, frozenset, dict)):
            found.append(value)
        elif id(value) not in seen:  # a list may hold itself
            seen.add(id(value))
            waiting.extend([*dict.keys(value), *dict.values(value)] if isinstance(value, dict) else value)
    return found


def _is_plain_dtype(*arguments: Any) -> bool:
    """A dtype by its short code, as a copy. Without the copy, the state that follows would change NumPy's own dtype."""
    description, *rest = arguments or (None,)
    return isinstance(description, str) and description.isalnum() and rest == [False, True]


def _is_scalar(*arguments: Any) -> bool:
    """(dtype, its bytes). Without bytes NumPy allocates as many as the dtype says, and reads structures as pointers."""
    if len(arguments) != 2 or not isinstance(arguments[0], np.dtype):
        return False
    dtype, content = arguments
    return not dtype.hasobject and isinstance(content, (bytes, str)) and len(content) == dtype.itemsize


def _is_view(*arguments: Any) -> bool:
    """(bytes, dtype, shape, order, axes). Only bytes: a view of another array could outlive its memory."""
    return len(arguments) in (4, 5) and arguments[3] in ("C", "F", "K") and is_buffer_of(*arguments[:3])


def _is_empty_array(*arguments: Any) -> bool:
    """(class, (0,), b"b"), as NumPy writes it. The state that follows has the content."""
    return len(arguments) == 3 and arguments[1] == (0,) and arguments[2] in (b"b", "b")


def _is_empty_masked_array(*arguments: Any) -> bool:
    return len(arguments) == 4 and arguments[2] == (0,) and arguments[3] in (b"b", "b")


def _is_slice(*arguments: Any) -> bool:
    return all(argument is None or isinstance(argument, int) for argument in arguments)


def _are_bytes(*arguments: Any) -> bool:
    return all(isinstance(argument, (bytes, bytearray)) for argument in arguments)


def _is_text_to_encode(*arguments: Any) -> bool:
    return len(arguments) in (1, 2) and isinstance(arguments[0], str) and arguments[1:] in ((), ("latin1",))


def _is_list(*arguments: Any) -> bool:
    """A plain list. Iterating another object would run its code before it was checked."""
    return len(arguments) == 1 and type(arguments[0]) is list


def _is_pairs(*arguments: Any) -> bool:
    if not arguments:
        return True
    return _is_list(*arguments) and all(type(each) in (list, tuple) and len(each) == 2 for each in arguments[0])


def _is_default_class(*arguments: Any) -> bool:
    """The class that makes the value of a missing key."""
    return len(arguments) <= 1 and all(each is None or isinstance(each, type) for each in arguments)


def _is_dict_to_rebuild(*arguments: Any) -> bool:
    """(class, dict, content). Another base class would compute with the content."""
    return len(arguments) == 3 and arguments[1] is dict and type(arguments[2]) is dict


def _are_numbers(*arguments: Any) -> bool:
    return all(isinstance(each, (int, float, np.number)) for each in arguments)


def _is_random_source(*arguments: Any) -> bool:
    """A random generator, or its class or name; before NumPy 2 a name and NumPy's function that knows it."""
    if len(arguments) == 2:
        return type(arguments[0]) is str and arguments[1] is _pickle.__bit_generator_ctor
    return len(arguments) <= 1 and all(isinstance(each, (str, type, np.random.BitGenerator)) for each in arguments)


def _is_seed_sequence(*arguments: Any) -> bool:
    """(class, checksum, None). The state that follows has the numbers."""
    return len(arguments) == 3 and isinstance(arguments[1], int) and arguments[2] is None


def _is_loss(*arguments: Any) -> bool:
    """(class, checksum, its number), as Cython writes an object. It reads that number without looking for it."""
    return _is_object_of_cython(arguments, 1)


def _is_plain_loss(*arguments: Any) -> bool:
    """(class, checksum, nothing)."""
    return _is_object_of_cython(arguments, 0)


def _is_object_of_cython(arguments: tuple[Any, ...], numbers: int) -> bool:
    if len(arguments) != 3 or not isinstance(arguments[1], int):
        return False
    state = arguments[2]
    return state is None or (type(state) is tuple and len(state) == numbers and _are_numbers(*state))


def _is_function(*arguments: Any) -> bool:
    return len(arguments) == 1 and callable(arguments[0])


def _is_tree(*arguments: Any) -> bool:
    """(features, classes of each output, outputs), as scikit-learn writes it."""
    return (
        len(arguments) == 3
        and isinstance(arguments[0], int)
        and type(arguments[1]) is np.ndarray
        and arguments[1].dtype.kind in "iu"
        and isinstance(arguments[2], int)
        and arguments[1].ndim == 1
        and arguments[1].size == arguments[2]
    )


_LOSS_MODULES = ("sklearn._loss._loss", "_loss")  # the second name until scikit-learn 1.8
_LOSSES = ("CyHuberLoss", "CyPinballLoss", "CyHalfTweedieLoss", "CyHalfTweedieLossIdentity")
_PLAIN_LOSSES = (
    *("CyAbsoluteError", "CyHalfBinomialLoss", "CyHalfGammaLoss", "CyHalfMultinomialLoss", "CyHalfPoissonLoss"),
    *("CyHalfSquaredError", "CyExponentialLoss"),
)
_SGD_LOSSES = (
    *("EpsilonInsensitive", "Hinge", "Huber", "Log", "ModifiedHuber", "SquaredEpsilonInsensitive", "SquaredHinge"),
    "SquaredLoss",
)

_CHECKS: dict[Global, Callable[..., bool]] = {
    ("numpy", "dtype"): _is_plain_dtype,
    ("numpy._core.multiarray", "_reconstruct"): _is_empty_array,
    ("numpy._core.multiarray", "scalar"): _is_scalar,
    ("numpy._core.numeric", "_frombuffer"): _is_view,
    ("numpy.ma.core", "_mareconstruct"): _is_empty_masked_array,
    ("builtins", "slice"): _is_slice,
    ("builtins", "range"): _is_slice,
    ("builtins", "set"): _is_list,
    ("builtins", "frozenset"): _is_list,
    ("collections", "OrderedDict"): _is_pairs,
    ("collections", "defaultdict"): _is_default_class,
    ("copyreg", "_reconstructor"): _is_dict_to_rebuild,
    ("numpy.random._pickle", "__bit_generator_ctor"): _is_random_source,
    ("numpy.random._pickle", "__generator_ctor"): _is_random_source,
    ("numpy.random._pickle", "__randomstate_ctor"): _is_random_source,
    ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"): _is_seed_sequence,
    ("builtins", "bytearray"): _are_bytes,
    ("builtins", "bytes"): _are_bytes,
    ("_codecs", "encode"): _is_text_to_encode,
    ("functools", "partial"): _is_function,
    ("sklearn.tree._tree", "Tree"): _is_tree,
    **{(module, name): _are_numbers for module in _LOSS_MODULES for name in _LOSSES},
    **{(module, f"__pyx_unpickle_{name}"): _is_loss for module in _LOSS_MODULES for name in _LOSSES},
    **{(module, f"__pyx_unpickle_{name}"): _is_plain_loss for module in _LOSS_MODULES for name in _PLAIN_LOSSES},
    **{("sklearn.linear_model._sgd_fast", name): _are_numbers for name in _SGD_LOSSES},
}
