"""The modules that a file names for one ufunc: they changed with NumPy 2, and in SciPy with almost every version.

A list is generated beside two sets of libraries, and what lies between them has other homes for some functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import special

_HOMES: tuple[tuple[Any, tuple[str, str]], ...] = (
    (np, ("numpy", "numpy._core._multiarray_umath")),
    (special, ("scipy.special._ufuncs", "scipy.special._special_ufuncs")),
)
# classes that only stand in attributes which are dropped
_DROPPED = ("joblib.memory.", "joblib._store_backends.")


def add_homes(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a list that has each ufunc under each name of its module."""
    schema = document["schema"]
    known = {*document["called"], *document["created"]}
    classes = {
        name: {attribute: sorted(_with_homes_in_words(words)) for attribute, words in attributes.items()}
        for name, attributes in schema["classes"].items()
    }
    dropped: dict[str, Any] = {name: {} for name in document["created"] if name.startswith(_DROPPED)}
    return {
        **document,
        "values": sorted({*_with_homes(document["values"])} - known),
        "schema": {
            **schema,
            "groups": {name: sorted(_with_homes_in_words(words)) for name, words in schema["groups"].items()},
            "classes": dict(sorted({**classes, **dropped}.items())),
        },
    }


def _with_homes_in_words(words: Iterable[str]) -> set[str]:
    mark = "global:"
    named = {word.removeprefix(mark) for word in words if word.startswith(mark)}
    return {*words, *(mark + name for name in _with_homes(named))}


def _with_homes(names: Iterable[str]) -> set[str]:
    found = set(names)
    for name in names:
        module, _, last = name.rpartition(".")
        for library, homes in _HOMES:
            if module in homes and isinstance(getattr(library, last, None), np.ufunc):
                found.update(f"{home}.{last}" for home in homes)
    return found
