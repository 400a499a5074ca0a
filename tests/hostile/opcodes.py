"""Pickles written by hand, opcode by opcode. Each function returns a fragment that leaves one object on the stack."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from typing import Any


def whole(fragment: bytes, protocol: int = 4) -> bytes:
    """Return a pickle of the one object of a fragment."""
    return b"\x80" + bytes([protocol]) + fragment + b"."


def value(thing: Any) -> bytes:
    """Return plain data: text, bytes, numbers, None, and lists, tuples and dicts of them, with fragments inside."""
    match thing:
        case Fragment():
            raw = bytes(thing)
        case tuple():
            raw = b"(" + b"".join(map(value, thing)) + b"t"
        case list():
            raw = b"](" + b"".join(map(value, thing)) + b"e"
        case Mapping():
            raw = b"}(" + b"".join(value(key) + value(item) for key, item in thing.items()) + b"u"
        case str():
            raw = b"X" + struct.pack("<I", len(thing.encode())) + thing.encode()
        case bytes():
            raw = b"B" + struct.pack("<I", len(thing)) + thing
        case _:
            raw = pickle.dumps(thing, 2)[2:-1]
    return raw


class Fragment(bytes):
    """Opcodes that leave one object on the stack, for use inside of a `value`."""


def named(full: str) -> Fragment:
    """Push the global ``module:name``; the name may have dots."""
    module, _, name = full.partition(":")
    return Fragment(value(module) + value(name) + b"\x93")


def call(function: bytes, *arguments: Any) -> Fragment:
    """REDUCE."""
    return Fragment(function + value(tuple(arguments)) + b"R")


def instance(kind: bytes, *arguments: Any) -> Fragment:
    """NEWOBJ."""
    return Fragment(kind + value(tuple(arguments)) + b"\x81")


def built(target: bytes, state: Any) -> Fragment:
    """BUILD."""
    return Fragment(target + value(state) + b"b")


def noted(fragment: bytes, place: int) -> Fragment:
    """Put the object into the memo as well."""
    return Fragment(fragment + b"q" + bytes([place]))


def again(place: int) -> Fragment:
    """Push what is in the memo."""
    return Fragment(b"h" + bytes([place]))


def dtype(description: str) -> Fragment:
    """Push a dtype, without a state."""
    return call(named("numpy:dtype"), description, False, True)


def array(kind: bytes, shape: tuple[int, ...], content: Any, into: bytes | None = None) -> Fragment:
    """Push an array as NumPy pickles it, of the dtype that the fragment `kind` pushes."""
    hollow = into or call(named("numpy._core.multiarray:_reconstruct"), named("numpy:ndarray"), (0,), b"b")
    return built(hollow, (1, shape, Fragment(kind), False, content))


def wrapped(kind: bytes, shape: tuple[int, ...], content: bytes, **fields: Any) -> Fragment:
    """Push an array as joblib writes it, its bytes after the wrapper."""
    parts = {"subclass": named("numpy:ndarray"), "shape": shape, "order": "C", "dtype": Fragment(kind), **fields}
    made = built(instance(named("joblib.numpy_pickle:NumpyArrayWrapper")), {**parts, "allow_mmap": False})
    return Fragment(made + content)
