"""The names a file may use: data, one file for each version of scikit-learn, written by a script.

``python -m benchmarks.allow_list`` fits every estimator there is, writes it in every way, and notes what its pickles
name: `values` may stand in a file, `created` may be instantiated (NEWOBJ), `called` may be called (REDUCE), with the
classes that may be among their arguments. `schema` says what may stand in the attributes of what they make.
"""

from __future__ import annotations

import _compat_pickle
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources

import sklearn

from serving.host.restricted.attribute_schema import Schema

Global = tuple[str, str]

# older files name the place where NumPy's private modules were before 2.0
_MOVED = ("numpy.core.", "numpy._core.")

# an array that was mapped once is an array; the class itself would be a function that opens files, for who calls it
_MEMMAP, _ARRAY = ("numpy", "memmap"), ("numpy", "ndarray")


@dataclass(frozen=True, slots=True)
class Allowed:
    """Exact names of globals, by what may be done with them. `called` maps to the classes allowed as arguments.

    `schema` says what the attributes of the classes among them may hold. What is `trusted` may be used in any way.
    """

    values: frozenset[Global]
    created: frozenset[Global]
    called: Mapping[Global, frozenset[Global]]
    schema: Schema
    trusted: frozenset[Global] = field(default_factory=frozenset)

    def trusting(self, names: tuple[str, ...]) -> Allowed:
        """Return the same with `names`, each ``module.name``, trusted in every way; the operator answers for them."""
        split = frozenset((module, name) for module, _, name in (each.rpartition(".") for each in names))
        return replace(self, trusted=split)


def current_name(module: str, name: str, protocol: int) -> Global:
    """Return where the global of an older file is today; files of protocol 2 and less use the names of Python 2."""
    if protocol < 3:
        default = (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), default)
    if (module, name) == _MEMMAP:
        return _ARRAY
    old, new = _MOVED
    return (new + module.removeprefix(old) if module.startswith(old) else module), name


@lru_cache
def allowed() -> Allowed:
    """Return the list for the scikit-learn that runs here, or else the newest there is: names that do not exist here
    cannot be loaded in any case, and names that are not listed are refused.
    """
    version = tuple(map(int, sklearn.__version__.split(".")[:2]))
    lists = {
        tuple(map(int, place.name.removeprefix("scikit-learn-").removesuffix(".json").split("."))): place
        for place in resources.files(__package__).joinpath("lists").iterdir()
        if place.name.startswith("scikit-learn-")
    }
    chosen = lists.get(version) or lists[max(lists)]
    raw = json.loads(chosen.read_text(encoding="utf-8"))
    called = {_split(name): frozenset(map(_split, classes)) for name, classes in raw["called"].items()}
    created = frozenset(map(_split, raw["created"]))
    values = frozenset(map(_split, raw["values"])).union(created, called)
    return Allowed(values, created, called, Schema.of(raw["schema"]))


def _split(name: str) -> Global:
    module, _, last = name.rpartition(".")
    return module, last
