"""The check of a loaded model's attributes: compare every attribute of every object in it with the schema.

An attribute decides what code does: it may name a method to call. The unpickler decides which objects a file may make;
this check decides which attribute may hold each of them. It works on objects, so joblib, pickle and skops files get the
same check. It calls no method of the model, compares no object with another, and formats none as text.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator

from serving.host.restricted.allow_list import ANY_TRUST, AllowList, Distrusted, Global
from serving.host.restricted.attribute_names import is_dunder
from serving.host.restricted.attribute_schema import DATA, EVERYWHERE, INERT, NATIVE, Kinds
from serving.host.restricted.fitting_only import StandIn
from serving.host.restricted.pandas_objects import OBJECTS
from serving.host.restricted.pandas_tables import PandasTable
from serving.host.restricted.pandas_values import VALUES

MOST_SHOWN = 3

_SCALARS = frozenset({type(None), bool, int, float, complex})
_SEQUENCES = frozenset({list, tuple, set, frozenset})
_DICTS = frozenset({dict, OrderedDict, defaultdict})
_RANGES = frozenset({slice, range})
_RANDOM_SOURCES = (
    np.random.RandomState,
    np.random.Generator,
    np.random.BitGenerator,
    np.random.bit_generator.ISeedSequence,
)
_ARRAYS = (np.ndarray, np.matrix, np.ma.MaskedArray)


def check_attributes(model: Any, allowed: AllowList, setting: str = "security.pickle_trusted") -> None:
    """Raise Distrusted if an attribute of any object inside `model` holds what no known model has there.

    `allowed` has the names a file may use and the schema of the known classes. An object of a class that the operator
    trusts may hold any object that passes this check itself. `setting` is the setting that trusts more names, for the
    message. Attributes that only fitting needs and that name a place to write to are set to None. Any thread; blocks
    for milliseconds.
    """
    _AttributeWalk(allowed, setting).check(model)


class _AttributeWalk:
    """One walk over all objects of one model. One use."""

    def __init__(self, allowed: AllowList, setting: str) -> None:
        self._schema = allowed.schema
        self._trusted = {f"{module}.{name}" for module, name in allowed.trusted}
        self._names = _index_names(allowed)
        self._setting = setting
        # by id; the objects are kept so that no id is used twice
        self._checked_objects: dict[int, Any] = {}
        self._checked_containers: dict[tuple[int, int], Any] = {}
        self._waiting: list[Any] = []
        # ids of objects whose class no file may name: only the code of a trusted class can have made them
        self._made_by_trusted: set[int] = set()
        self._owner: Any = None
        self._place = ("", "")

    def check(self, model: Any) -> None:
        self._check_value(model, DATA)
        while self._waiting:
            self._check_attributes(self._waiting.pop())

    # --- objects and their attributes ---------------------------------------------------------------------------------

    def _check_attributes(self, owner: Any) -> None:
        name = _get_full_name(type(owner))
        if name in self._schema.made:
            return
        attributes = _get_attributes(owner)
        self._owner = owner
        is_trusted = self._is_trusted(owner)
        known = {} if is_trusted else {**EVERYWHERE, **self._schema.classes[name]}
        for attribute, value in attributes.items():
            if type(attribute) is not str:
                self._raise_refusal(f"an attribute of {type(owner).__name__} whose name is no text")
            self._place = (name, attribute)
            kinds = DATA if is_trusted else known.get(attribute) or self._find_unlisted_kinds(type(owner), attribute)
            if "dropped" in kinds.plain:
                attributes[attribute] = None
            else:
                self._check_value(value, kinds)

    def _is_trusted(self, found: Any) -> bool:
        return _get_full_name(type(found)) in self._trusted or id(found) in self._made_by_trusted

    def _find_unlisted_kinds(self, kind: type, attribute: str) -> Kinds:
        """Return what an attribute may hold that is not listed: known models lack it, or have only numbers in it."""
        if is_dunder(attribute) or _hides_class_member(kind, attribute):
            self._raise_refusal("an attribute in the place of what the class defines")
        is_own = attribute in find_names_read_by(kind) and not kind.__module__.startswith(NATIVE)
        return self._schema.find_unlisted_kinds(attribute, is_own=is_own)

    # --- values -------------------------------------------------------------------------------------------------------

    def _check_value(self, value: Any, kinds: Kinds) -> None:
        """Raise Distrusted unless an attribute of these kinds may hold `value` and everything in it."""
        pending = [value]
        while pending:
            found = pending.pop()
            kind = type(found)
            if kind in _SCALARS:
                continue
            if kind is str or kind is np.str_:
                if not kinds.allows_text(found):
                    self._refuse_value(found, kinds)
            elif kind in _SEQUENCES or kind in _DICTS or kind is np.ndarray:
                pending.extend(self._list_inside(found, kinds))
            else:
                self._check_object(found, kinds)

    def _list_inside(self, container: Any, kinds: Kinds) -> Iterator[Any]:
        """Yield the items of a container, unless it was checked before for the same kinds."""
        if type(container) is np.ndarray and container.dtype.kind not in "OU":
            self._require_kind("table" if container.dtype.kind == "V" else "array", container, kinds)
            return
        key = (id(container), id(kinds))
        if key in self._checked_containers:
            return
        self._checked_containers[key] = container
        if type(container) is np.ndarray:
            if container.dtype.kind == "U" and "text" in kinds.plain:
                return
            yield from container.ravel().tolist()
        elif type(container) in _DICTS:
            yield from dict.keys(container)
            yield from dict.values(container)
        else:
            yield from container

    def _check_object(self, found: Any, kinds: Kinds) -> None:
        if isinstance(found, (np.generic, *VALUES)):
            return
        if type(found) in (bytes, bytearray):
            self._require_kind("bytes", found, kinds)
        elif isinstance(found, np.dtype):
            self._require_kind("dtype", found, kinds)
        elif type(found) in _RANGES:
            self._check_value((found.start, found.stop, found.step), kinds)
        elif isinstance(found, StandIn):
            self._require_kind("data", found, kinds)
        elif isinstance(found, _RANDOM_SOURCES):
            self._require_kind("random", found, kinds)
        elif id(found) in self._names:
            self._check_global(found, kinds)
        elif isinstance(found, _ARRAYS):
            self._check_array(found, kinds)
        else:
            self._check_instance(found, kinds)

    def _check_array(self, found: Any, kinds: Kinds) -> None:
        """Check what is in a matrix or a masked array, the masked values included."""
        key = (id(found), id(kinds))
        if key in self._checked_containers:
            return
        self._checked_containers[key] = found
        if isinstance(found, np.ma.MaskedArray):
            self._check_value(np.asarray(found.data), kinds)
            self._check_value(vars(found).get("_fill_value"), kinds)
        else:
            self._check_value(np.asarray(found), kinds)

    def _check_global(self, found: Any, kinds: Kinds) -> None:
        names = self._names[id(found)]
        if "data" not in kinds.plain and not names & (kinds.globals | self._trusted):
            self._refuse_value(found, kinds)

    def _check_instance(self, found: Any, kinds: Kinds) -> None:
        name = _get_full_name(type(found))
        is_held_by_trusted = self._owner is not None and self._is_trusted(self._owner)
        if name not in self._schema.classes and is_held_by_trusted:
            self._made_by_trusted.add(id(found))
        is_trusted = self._is_trusted(found)
        if isinstance(found, OBJECTS) and not is_held_by_trusted and name not in self._trusted:
            self._refuse_value(found, kinds)  # a trusted class may hold the same one, and call it
        if not is_trusted and name not in self._schema.classes:
            self._refuse_value(found, kinds)
        is_here = "data" in kinds.plain or name in kinds.classes or is_trusted
        is_here |= "estimator" in kinds.plain and isinstance(found, BaseEstimator)
        is_here |= "array" in kinds.plain and sparse.issparse(found)
        if not is_here:
            self._refuse_value(found, kinds)
        if id(found) in self._checked_objects:
            return
        self._checked_objects[id(found)] = found
        if isinstance(found, (tuple, dict)):  # a named tuple or a Bunch: its items are checked as if they stood here
            self._check_value(list(dict.values(found)) if isinstance(found, dict) else tuple(found), kinds)
            if isinstance(found, dict):
                self._check_value(list(dict.keys(found)), kinds)
        self._waiting.append(found)

    # --- refusals -----------------------------------------------------------------------------------------------------

    def _require_kind(self, plain: str, found: Any, kinds: Kinds) -> None:
        if plain not in kinds.plain and "data" not in kinds.plain:
            self._refuse_value(found, kinds)

    def _refuse_value(self, found: Any, kinds: Kinds) -> None:
        usual = "" if kinds is DATA else f", where known models have {_describe_kinds(kinds)}"
        self._raise_refusal(_describe_value(found, self._names), usual)

    def _raise_refusal(self, what: str, usual: str = "") -> None:
        owner, attribute = self._place
        if not owner:
            raise Distrusted(f"the file holds {what}, which no known model is; {ANY_TRUST}")
        place = f"{owner.rpartition('.')[2]}.{attribute}"[:200]
        advice = f'if you vouch for it: {self._setting} = ["{owner}"]'
        raise Distrusted(f"the file has {what} in {place}{usual}; {advice}")


def _get_attributes(owner: Any) -> dict[Any, Any]:
    if type(owner) is partial:
        return {"func": owner.func, "args": owner.args, "keywords": owner.keywords}
    found = getattr(owner, "__dict__", None)
    return found if type(found) is dict else {}


def _get_full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


@lru_cache(maxsize=4096)
def _hides_class_member(kind: type, attribute: str) -> bool:
    """Return True if an attribute hides a member of its class that is no property."""
    found = inspect.getattr_static(kind, attribute, None)
    return found is not None and not inspect.isdatadescriptor(found)


@lru_cache(maxsize=16)
def find_names_read_by(kind: type) -> frozenset[str]:
    """Return the names that the Python code of a class and its bases reads as attributes, or has as texts."""
    found: set[str] = set()
    waiting = [value for one in kind.__mro__ for value in vars(one).values()]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, types.CodeType):
            found.update(value.co_names)
            found.update(each for each in value.co_consts if type(each) is str and each.isidentifier())
            waiting.extend(value.co_consts)
        elif isinstance(value, tuple):
            found.update(each for each in value if type(each) is str)
        else:  # a function, possibly inside a decorator
            inner = (getattr(value, name, None) for name in ("__code__", "__wrapped__", "__func__", "fget", "fn"))
            waiting.extend(each for each in inner if each is not None)
    return frozenset(found)


def _index_names(allowed: AllowList) -> dict[int, frozenset[str]]:
    """Return the full names of all imported functions and classes that are listed or trusted, by id."""
    return _index_imported_names(allowed.values | allowed.trusted, len(sys.modules))


@lru_cache(maxsize=2)
def _index_imported_names(names: frozenset[Global], module_count: int) -> dict[int, frozenset[str]]:
    """Return full names by id. Only imported modules are searched: a model can hold nothing else."""
    assert module_count  # part of the cache's key: the result is right until another module is imported
    by_id: dict[int, set[str]] = {}
    for module, name in names:
        found = getattr(sys.modules.get(module), name, None)
        if found is not None:
            by_id.setdefault(id(found), set()).add(f"{module}.{name}")
    return {place: frozenset(full) for place, full in by_id.items()}


def _describe_value(found: Any, names: dict[int, frozenset[str]]) -> str:
    if type(found) in (str, np.str_):
        return f"the text {found[:40]!r}"
    if id(found) in names:
        return min(names[id(found)])
    if isinstance(found, StandIn):
        return found.full_name
    if type(found) is PandasTable:
        return "a table of pandas"
    kind = type(found)
    return "an array" if kind is np.ndarray else f"an object of {_get_full_name(kind)[:100]}"


def _describe_kinds(kinds: Kinds) -> str:
    """Return in a few words what an attribute may hold."""
    words = [*sorted(kinds.plain - {"array"}), *map(repr, sorted(kinds.texts - INERT.texts))]
    words += sorted(name.rpartition(".")[2] for name in kinds.classes | kinds.globals)
    more = f" and {len(words) - MOST_SHOWN} more" if len(words) > MOST_SHOWN else ""
    return ", ".join(words[:MOST_SHOWN]) + more or "numbers"
