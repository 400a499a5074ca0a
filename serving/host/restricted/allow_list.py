"""The names that a file may use, and the exceptions for a file that does more.

The names are data, one JSON file for each version of scikit-learn, written by a script. ``python -m
benchmarks.allow_list`` fits every estimator of scikit-learn, saves it in every way, and records what the pickles name.
"""

from __future__ import annotations

import _compat_pickle
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources

import sklearn

from serving.host.restricted.attribute_schema import Schema

Global = tuple[str, str]
Minor = tuple[int, ...]

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
    """Return the list for the scikit-learn of this process; raises Distrusted if it is older than all lists."""
    lists = {
        tuple(map(int, place.name.removeprefix("scikit-learn-").removesuffix(".json").split("."))): place
        for place in resources.files(__package__).joinpath("lists").iterdir()
        if place.name.startswith("scikit-learn-")
    }
    chosen = lists[choose_list(sklearn.__version__, lists)]
    raw = json.loads(chosen.read_text(encoding="utf-8"))
    called = {_split_name(name): frozenset(map(_split_name, classes)) for name, classes in raw["called"].items()}
    created = frozenset(map(_split_name, raw["created"]))
    values = frozenset(map(_split_name, raw["values"])).union(created, called)
    return AllowList(values, created, called, Schema.parse(raw["schema"]))


def choose_list(version: str, lists: Collection[Minor]) -> Minor:
    """Return which of these lists a version of scikit-learn goes by: its own, or the newest if it is newer than all.

    The newest list is safe there: a name that does not exist cannot be loaded, and a name that is not listed is
    refused. Raises Distrusted for a version without a list: what its code does with a file was never reviewed.
    """
    minor = tuple(map(int, version.split(".")[:2]))
    if minor in lists:
        return minor
    newest, oldest = max(lists), min(lists)
    if minor > newest:
        return newest
    raise Distrusted(
        f"restricted loading has no list of names for scikit-learn {version}, the oldest it knows is "
        f'{".".join(map(str, oldest))}: use a newer scikit-learn, or sign the version (security.trust = "signed")'
    )


def _split_name(name: str) -> Global:
    module, _, last = name.rpartition(".")
    return module, last
