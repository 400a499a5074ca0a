"""What a loaded model would make code do: every attribute of every object in it is compared with the schema.

The unpickler decides which objects there may be; here it is decided where each may stand. It works on objects, so it is
the same for joblib, pickle and skops files. Nothing of the model is called, compared or asked for its text.
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

from serving.host.restricted.allow_list import Allowed, Global
from serving.host.restricted.attribute_names import is_dunder
from serving.host.restricted.attribute_schema import DATA, EVERYWHERE, INERT, NATIVE, Kinds
from serving.host.restricted.distrust import ANY_TRUST, Distrusted
from serving.host.restricted.fitting_only import Unused
from serving.host.restricted.pandas_values import VALUES

MOST_SHOWN = 3

_SCALARS = frozenset({type(None), bool, int, float, complex})
_SEQUENCES = frozenset({list, tuple, set, frozenset})
_DICTS = frozenset({dict, OrderedDict, defaultdict})
_RANGES = frozenset({slice, range})
_RANDOM = (np.random.RandomState, np.random.Generator, np.random.BitGenerator, np.random.bit_generator.ISeedSequence)
_ARRAYS = (np.ndarray, np.matrix, np.ma.MaskedArray)


def check_meaning(model: Any, allowed: Allowed, setting: str = "security.pickle_trusted") -> None:
    """Raise Distrusted when an attribute of something inside of `model` holds what no known model has there.

    `allowed` are the names a file may use and the schema of the known classes; what the operator trusts may hold
    anything that is itself sound. `setting` is the one that would trust more, for the message. Sets the attributes to
    None that are only of use while a model is fitted and say where to write. Any thread; blocks for milliseconds.
    """
    _Walk(allowed, setting).check(model)


class _Walk:
    """One walk over one model."""

    def __init__(self, allowed: Allowed, setting: str) -> None:
        self._schema = allowed.schema
        self._trusted = {f"{module}.{name}" for module, name in allowed.trusted}
        self._names = _names_by_id(allowed)
        self._setting = setting
        # by id, and kept, so that no id comes again
        self._seen: dict[int, Any] = {}
        self._opened: dict[tuple[int, int], Any] = {}
        self._waiting: list[Any] = []
        # by id: what only the code of trusted classes can have made, since no file may name its class
        self._made_by_trusted: set[int] = set()
        self._owner: Any = None
        self._place = ("", "")

    def check(self, model: Any) -> None:
        self._look(model, DATA)
        while self._waiting:
            self._check_attributes(self._waiting.pop())

    # --- objects and their attributes ---------------------------------------------------------------------------------

    def _check_attributes(self, owner: Any) -> None:
        name = _full_name(type(owner))
        if name in self._schema.made:
            return
        attributes = _attributes_of(owner)
        self._owner = owner
        is_trusted = self._is_trusted(owner)
        known = {} if is_trusted else {**EVERYWHERE, **self._schema.classes[name]}
        for attribute, value in attributes.items():
            if type(attribute) is not str:
                self._refuse(f"an attribute of {type(owner).__name__} that is named by no text")
            self._place = (name, attribute)
            kinds = DATA if is_trusted else known.get(attribute) or self._unlisted(type(owner), attribute)
            if "dropped" in kinds.plain:
                attributes[attribute] = None
            else:
                self._look(value, kinds)

    def _is_trusted(self, found: Any) -> bool:
        return _full_name(type(found)) in self._trusted or id(found) in self._made_by_trusted

    def _unlisted(self, kind: type, attribute: str) -> Kinds:
        """Return what an attribute may hold that holds only numbers in known models, or is not in them at all."""
        if is_dunder(attribute) or _hides_what_the_class_has(kind, attribute):
            self._refuse("an attribute in the place of what the class defines")
        is_own = attribute in names_read_by(kind) and not kind.__module__.startswith(NATIVE)
        return self._schema.unlisted(attribute, is_own=is_own)

    # --- values -------------------------------------------------------------------------------------------------------

    def _look(self, value: Any, kinds: Kinds) -> None:
        """Raise Distrusted unless `value` and all in it may stand in an attribute of these kinds."""
        pending = [value]
        while pending:
            found = pending.pop()
            kind = type(found)
            if kind in _SCALARS:
                continue
            if kind is str or kind is np.str_:
                if not kinds.takes_text(found):
                    self._refuse_value(found, kinds)
            elif kind in _SEQUENCES or kind in _DICTS or kind is np.ndarray:
                pending.extend(self._inside(found, kinds))
            else:
                self._look_at_object(found, kinds)

    def _inside(self, container: Any, kinds: Kinds) -> Iterator[Any]:
        """Yield what is in a container that has not been looked at under the same kinds."""
        if type(container) is np.ndarray and container.dtype.kind not in "OU":
            self._require("table" if container.dtype.kind == "V" else "array", container, kinds)
            return
        key = (id(container), id(kinds))
        if key in self._opened:
            return
        self._opened[key] = container
        if type(container) is np.ndarray:
            if container.dtype.kind == "U" and "text" in kinds.plain:
                return
            yield from container.ravel().tolist()
        elif type(container) in _DICTS:
            yield from dict.keys(container)
            yield from dict.values(container)
        else:
            yield from container

    def _look_at_object(self, found: Any, kinds: Kinds) -> None:
        if isinstance(found, (np.generic, *VALUES)):
            return
        if type(found) in (bytes, bytearray):
            self._require("bytes", found, kinds)
        elif isinstance(found, np.dtype):
            self._require("dtype", found, kinds)
        elif type(found) in _RANGES:
            self._look((found.start, found.stop, found.step), kinds)
        elif isinstance(found, Unused):
            self._require("data", found, kinds)
        elif isinstance(found, _RANDOM):
            self._require("random", found, kinds)
        elif id(found) in self._names:
            self._look_at_global(found, kinds)
        elif isinstance(found, _ARRAYS):
            self._look_at_array(found, kinds)
        else:
            self._look_at_instance(found, kinds)

    def _look_at_array(self, found: Any, kinds: Kinds) -> None:
        """Look at a matrix or a masked array: at what is in it, and what is behind its mask."""
        key = (id(found), id(kinds))
        if key in self._opened:
            return
        self._opened[key] = found
        if isinstance(found, np.ma.MaskedArray):
            self._look(np.asarray(found.data), kinds)
            self._look(vars(found).get("_fill_value"), kinds)
        else:
            self._look(np.asarray(found), kinds)

    def _look_at_global(self, found: Any, kinds: Kinds) -> None:
        names = self._names[id(found)]
        if "data" not in kinds.plain and not names & (kinds.globals | self._trusted):
            self._refuse_value(found, kinds)

    def _look_at_instance(self, found: Any, kinds: Kinds) -> None:
        name = _full_name(type(found))
        if name not in self._schema.classes and self._owner is not None and self._is_trusted(self._owner):
            self._made_by_trusted.add(id(found))
        is_trusted = self._is_trusted(found)
        if not is_trusted and name not in self._schema.classes:
            self._refuse_value(found, kinds)
        is_here = "data" in kinds.plain or name in kinds.classes or is_trusted
        is_here |= "estimator" in kinds.plain and isinstance(found, BaseEstimator)
        is_here |= "array" in kinds.plain and sparse.issparse(found)
        if not is_here:
            self._refuse_value(found, kinds)
        if id(found) in self._seen:
            return
        self._seen[id(found)] = found
        if isinstance(found, (tuple, dict)):  # a named tuple, a Bunch: what is in it stands where it stands
            self._look(list(dict.values(found)) if isinstance(found, dict) else tuple(found), kinds)
            if isinstance(found, dict):
                self._look(list(dict.keys(found)), kinds)
        self._waiting.append(found)

    # --- refusals -----------------------------------------------------------------------------------------------------

    def _require(self, plain: str, found: Any, kinds: Kinds) -> None:
        if plain not in kinds.plain and "data" not in kinds.plain:
            self._refuse_value(found, kinds)

    def _refuse_value(self, found: Any, kinds: Kinds) -> None:
        usual = "" if kinds is DATA else f", where known models have {_describe_kinds(kinds)}"
        self._refuse(_describe_kind(found, self._names), usual)

    def _refuse(self, what: str, usual: str = "") -> None:
        owner, attribute = self._place
        if not owner:
            raise Distrusted(f"the file holds {what}, which no known model is; {ANY_TRUST}")
        place = f"{owner.rpartition('.')[2]}.{attribute}"[:200]
        advice = f'if you vouch for it: {self._setting} = ["{owner}"]'
        raise Distrusted(f"the file has {what} in {place}{usual}; {advice}")


def _attributes_of(owner: Any) -> dict[Any, Any]:
    if type(owner) is partial:
        return {"func": owner.func, "args": owner.args, "keywords": owner.keywords}
    found = getattr(owner, "__dict__", None)
    return found if type(found) is dict else {}


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


@lru_cache(maxsize=4096)
def _hides_what_the_class_has(kind: type, attribute: str) -> bool:
    """Say whether an attribute takes the place of something of its class, other than what a property answers."""
    found = inspect.getattr_static(kind, attribute, None)
    return found is not None and not inspect.isdatadescriptor(found)


@lru_cache(maxsize=16)
def names_read_by(kind: type) -> frozenset[str]:
    """Return the names that the Python code of a class and its bases uses for attributes, or as texts."""
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
        else:  # a function, whatever is wrapped around it
            inner = (getattr(value, name, None) for name in ("__code__", "__wrapped__", "__func__", "fget", "fn"))
            waiting.extend(each for each in inner if each is not None)
    return frozenset(found)


def _names_by_id(allowed: Allowed) -> dict[int, frozenset[str]]:
    """Return the full names of the listed and trusted functions and classes there are, by id."""
    return _find_names(allowed.values | allowed.trusted, len(sys.modules))


@lru_cache(maxsize=2)
def _find_names(names: frozenset[Global], module_count: int) -> dict[int, frozenset[str]]:
    """Look among what has been imported: a model cannot hold anything else."""
    assert module_count  # the result holds for as long as nothing more has been imported
    by_id: dict[int, set[str]] = {}
    for module, name in names:
        found = getattr(sys.modules.get(module), name, None)
        if found is not None:
            by_id.setdefault(id(found), set()).add(f"{module}.{name}")
    return {place: frozenset(full) for place, full in by_id.items()}


def _describe_kind(found: Any, names: dict[int, frozenset[str]]) -> str:
    if type(found) in (str, np.str_):
        return f"the text {found[:40]!r}"
    if id(found) in names:
        return min(names[id(found)])
    if isinstance(found, Unused):
        return found.full_name
    kind = type(found)
    return "an array" if kind is np.ndarray else f"an object of {_full_name(kind)[:100]}"


def _describe_kinds(kinds: Kinds) -> str:
    """Return in a few words what may stand in an attribute."""
    words = [*sorted(kinds.plain - {"array"}), *map(repr, sorted(kinds.texts - INERT.texts))]
    words += sorted(name.rpartition(".")[2] for name in kinds.classes | kinds.globals)
    more = f" and {len(words) - MOST_SHOWN} more" if len(words) > MOST_SHOWN else ""
    return ", ".join(words[:MOST_SHOWN]) + more or "numbers"
