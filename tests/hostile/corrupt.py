"""Fragments that run nothing by themselves: they make NumPy or compiled code read, write or free the wrong memory."""

from __future__ import annotations

from tests.hostile.canary import Canary
from tests.hostile.opcodes import Fragment, again, array, built, call, dtype, instance, named, noted, value, wrapped

_FORGED_FLAGS = 27  # NPY_ITEM_REFCOUNT and what goes with it
_SCALAR = named("numpy._core.multiarray:scalar")
_VIEW = named("numpy._core.numeric:_frombuffer")
_HOLLOW = call(named("numpy._core.multiarray:_reconstruct"), named("numpy:ndarray"), (0,), b"b")


def memory(canary: Canary) -> dict[str, bytes]:
    """Return them by name. `canary` is for those that would write to a file; none does."""
    del canary
    return {**_dtypes(), **_arrays(), **_trees()}


def _structure(kind: bytes, size: int, flags: int) -> Fragment:
    """Push a dtype of one field."""
    state = (3, "|", None, ("a",), {"a": (Fragment(kind), 0)}, size, 1, flags)
    return built(dtype(f"V{size}"), state)


def _dtypes() -> dict[str, bytes]:
    number, thing = built(dtype("f8"), (3, "<", None, None, None, -1, -1, 0)), dtype("O")
    return {
        "objects that a dtype denies": array(built(thing, (3, "|", None, None, None, -1, -1, 0)), (1,), b"A" * 8),
        "objects that a dtype invents": array(_structure(number, 8, _FORGED_FLAGS), (1,), b"A" * 8),
        "objects in a structure": array(_structure(thing, 8, _FORGED_FLAGS), (1,), b"A" * 8),
        "a structure that denies its objects": array(_structure(thing, 8, 0), (1,), b"A" * 8),
        "a field behind the end": array(
            built(dtype("V8"), (3, "|", None, ("a",), {"a": (number, 4096)}, 8, 1, 0)), (1,), b"A" * 8
        ),
        "a dtype that grows under its array": array(noted(dtype("V8"), 1), (1,), b"A" * 8)
        + b"0"
        + built(again(1), (3, "|", None, None, None, 1 << 20, 1, 0)),
        "a dtype of strings with pointers": array(dtype("T"), (1,), b"A" * 16),
        "a dtype of another make": call(named("numpy:dtype"), [("a", "O")], False, True),
        "NumPy's own dtype": call(named("numpy:dtype"), "f8", False, False),
    }


def _arrays() -> dict[str, bytes]:
    one = array(dtype("f8"), (1,), b"A" * 8)
    huge = (1 << 40, 9)
    return {
        "an array larger than its bytes": array(dtype("f8"), (1 << 20,), b"A" * 8),
        "an array of 72 TiB": wrapped(dtype("f8"), huge, b""),
        "an array of 72 TiB of joblib's with objects": wrapped(dtype("O"), huge, b""),
        "any number of nothings": array(dtype("V0"), (1 << 62,), b""),
        "any number of nothings of joblib's": wrapped(dtype("V0"), (1 << 62,), b""),
        "a negative shape": wrapped(dtype("f8"), (-1,), b"A" * 8),
        "a shape that is no tuple": wrapped(dtype("f8"), Fragment(value([1])), b"A" * 8),  # type: ignore[arg-type]
        "an order that is none": wrapped(dtype("f8"), (1,), b"A" * 8, order="K"),
        "a wrapper of another class": wrapped(dtype("f8"), (1,), b"A" * 8, subclass=named("sklearn.pipeline:Pipeline")),
        "a scalar without bytes": call(_SCALAR, dtype("V2000000000")),
        "a scalar shorter than its dtype": call(_SCALAR, dtype("V4096"), b"A"),
        "a view of another array": call(_VIEW, one, dtype("u8"), (1,), "C"),
        "a view larger than its bytes": call(_VIEW, b"A" * 8, dtype("f8"), (2,), "C"),
        "an array that gets another content": noted(one, 1) + b"0" + array(dtype("f8"), (2,), b"B" * 16, again(1)),
        "a view that gets another content": array(
            dtype("f8"), (1,), b"B" * 8, call(_VIEW, b"A" * 8, dtype("f8"), (1,), "C")
        ),
        "an array of joblib's that gets another content": array(
            dtype("f8"), (1,), b"B" * 8, wrapped(dtype("f8"), (1,), b"A" * 8)
        ),
        "a reconstructed array of a size": call(
            named("numpy._core.multiarray:_reconstruct"), named("numpy:ndarray"), (1 << 40,), b"b"
        ),
        "a hollow array of objects": array(dtype("O"), (4,), [1], _HOLLOW),
    }


def _trees() -> dict[str, bytes]:
    counts = array(dtype("i8"), (1,), (2).to_bytes(8, "little"))
    tree = named("sklearn.tree._tree:Tree")
    return {
        "a tree with more outputs than counts": call(tree, 1, counts, 1 << 20),
        "a tree of one number": call(tree, 1, 2, 1),
        "a tree without nodes": call(tree, 1, counts, 1),
        "a neighbour tree without content": instance(named("sklearn.neighbors._kd_tree:KDTree")),
    }
