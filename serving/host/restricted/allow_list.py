"""The names that a file may use, and the exceptions for a file that does more.

The names are data, one JSON file for each version of scikit-learn, written by a script. ``python -m
benchmarks.allow_list`` fits every estimator of scikit-learn, saves it in every way, and records what the pickles name.
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

# older files use the names that NumPy's private modules had before 2.0
_MOVED = ("numpy.core.", "numpy._core.")

# a memory-mapped array loads as an ordinary array: calling the class numpy.memmap would open a file
_MEMMAP, _ARRAY = ("numpy", "memmap"), ("numpy", "ndarray")


ANY_TRUST = 'security.trust = "any" would load it, sandboxed'


class Distrusted(Exception):  # an outcome, not an error here: the file may be fine, but no rule allows what it does
    """The file does what no known model does. The message names it and the setting that would allow it."""


class Unlisted(Distrusted):
    """The file names a class or function that is not on the list and that the operator does not trust."""


@dataclass(frozen=True, slots=True)
class AllowList:
    """Exact names of classes and functions, by what a file may do with them.

    A file may mention `values`, instantiate `created` (NEWOBJ) and call `called` (REDUCE). `called` maps each function
    to the classes that may be among its arguments. `schema` says what the attributes of the known classes may hold.
    `trusted` names may be used in any way.
    """

    values: frozenset[Global]
    created: frozenset[Global]
    called: Mapping[Global, frozenset[Global]]
    schema: Schema
    trusted: frozenset[Global] = field(default_factory=frozenset)

    def with_trusted(self, names: tuple[str, ...]) -> AllowList:
        """Return the same list in which `names`, each ``module.name``, may be used in any way, as the operator says."""
        split = frozenset((module, name) for module, _, name in (each.rpartition(".") for each in names))
        return replace(self, trusted=split)


def find_current_name(module: str, name: str, protocol: int) -> Global:
    """Return the name that a class or function of an older file has today.

    Files of pickle protocol 2 and below use the names of Python 2.
    """
    if protocol < 3:
        default = (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), default)
    if (module, name) == _MEMMAP:
        return _ARRAY
    old, new = _MOVED
    return (new + module.removeprefix(old) if module.startswith(old) else module), name


@lru_cache
def read_allow_list() -> AllowList:
    """Return the list for the installed scikit-learn, or the newest list if it has none.

    The newest list is safe: a name that does not exist here cannot be loaded, and a name that is not listed is refused.
    """
    version = tuple(map(int, sklearn.__version__.split(".")[:2]))
    lists = {
        tuple(map(int, place.name.removeprefix("scikit-learn-").removesuffix(".json").split("."))): place
        for place in resources.files(__package__).joinpath("lists").iterdir()
        if place.name.startswith("scikit-learn-")
    }
    chosen = lists.get(version) or lists[max(lists)]
    raw = json.loads(chosen.read_text(encoding="utf-8"))
    called = {_split_name(name): frozenset(map(_split_name, classes)) for name, classes in raw["called"].items()}
    created = frozenset(map(_split_name, raw["created"]))
    values = frozenset(map(_split_name, raw["values"])).union(created, called)
    return AllowList(values, created, called, Schema.parse(raw["schema"]))


def _split_name(name: str) -> Global:
    module, _, last = name.rpartition(".")
    return module, last
