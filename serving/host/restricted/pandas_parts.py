"""Reads columns, masks and categories of pandas in a file as arrays of NumPy, without making objects of pandas.

pandas and pyarrow build their objects from raw parts (buffers, offsets, codes, blocks) that they do not check. A Series
in the place of an estimator would call methods that requests name. Models only use the values, so the values are all
they get: each name of pandas becomes a `PandasGlobal` or `PandasPart`, is read with all sizes checked, and ends as an
array. Only single values keep their type: `pandas.NA`, a Timestamp, a Timedelta.

Classes that the operator trusts are different: what they hold is made a real object of pandas from the same values
(`pandas_objects`), and they may hold tables (`pandas_tables`).
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from serving.host.optional_pandas import HAS_PANDAS, PandasAbsent
from serving.host.optional_pandas import pandas as pd
from serving.host.restricted.allow_list import ANY_TRUST, Distrusted, Global
from serving.host.restricted.pandas_objects import MAKERS, make_without_state
from serving.host.restricted.pandas_tables import TABLE_CALLS, TABLE_STATES, PandasTable
from serving.host.restricted.pandas_values import (
    CALLS,
    MOST_VALUES,
    OF_ARROW,
    OF_PANDAS,
    STATES,
    CategoryDtype,
    PandasGlobal,
    PandasPart,
    PlainDtype,
)

_OF_TABLES = TABLE_CALLS.keys() | TABLE_STATES.keys()
_DICTS = (dict, OrderedDict, defaultdict)
# levels of lists, tuples and dicts in the state of a trusted class in which columns become objects of pandas
_MOST_LEVELS = 16


def find_part(name: Global) -> Any:
    """Return what replaces a class or function of pandas or pyarrow; None for any other name, or a refused one."""
    module, last = name
    package = module.partition(".")[0]
    if package == "pandas" and last == "NA":
        if not HAS_PANDAS:
            raise PandasAbsent
        return pd.NA
    is_known = (package == "pandas" and last in OF_PANDAS) or (module == "pyarrow.lib" and last in OF_ARROW)
    return PandasGlobal(last) if is_known else None


def find_table_part(name: Global) -> PandasGlobal | None:
    """Return what replaces a class or function of pandas that makes tables; None for any other name."""
    module, last = name
    return PandasGlobal(last) if module.partition(".")[0] == "pandas" and last in _OF_TABLES else None


class PandasReader:
    """Reads the parts of pandas in one file. The size of all results together is limited.

    `makes_objects` says that the operator trusts classes: what these hold can be made real with `restore`.
    """

    def __init__(self, *, makes_objects: bool = False) -> None:
        self._left = MOST_VALUES
        self._makes_objects = makes_objects
        # by id of what was read: the real objects, and copies of containers that have some; kept with what was read,
        # so that no id is used twice
        self._objects: dict[int, tuple[Any, Any]] = {}
        self._copies: dict[int, tuple[Any, Any]] = {}

    def call(self, function: PandasGlobal, arguments: Any, place: int) -> Any:
        """Return the result of a call of a pandas or pyarrow function.

        `place` is the next free place in the memo of the file. Raises Distrusted for arguments that pandas never
        writes.
        """
        name = function.full_name
        if name in TABLE_CALLS:
            return self._require_checked(name, lambda: TABLE_CALLS[name](self._find_object, *arguments))
        if name not in CALLS:
            raise _make_refusal(name)
        made = self._require_checked(name, lambda: CALLS[name](*arguments))
        if isinstance(made, PandasPart):
            made.place = place
        else:
            self._make_object(name, made, arguments)
        return made

    def start(self, kind: PandasGlobal, arguments: Any, place: int) -> PandasPart:
        """Return an object whose state follows in the file; raises Distrusted if pandas never makes it in this way."""
        if not (kind.full_name in STATES or kind.full_name in TABLE_STATES) or arguments:
            raise _make_refusal(kind.full_name)
        return PandasPart(kind.full_name, place)

    def finish(self, part: PandasPart, state: Any) -> Any:
        """Return the values in a state. Raises Distrusted for a state that pandas never writes."""
        if part.name in TABLE_STATES:
            return self._require_checked(part.name, lambda: TABLE_STATES[part.name](self._find_object, state))
        made = self._require_checked(part.name, lambda: STATES[part.name](state))
        self._make_object(part.name, made, state)
        return made

    def replace(self, part: PandasPart, made: Any, memo: dict[int, Any]) -> None:
        """Replace the part by its values in the memo of the file."""
        if memo.get(part.place) is part:
            memo[part.place] = made
            return
        self._take_room(len(memo))
        for place, found in memo.items():
            if found is part:
                memo[place] = made

    # --- for trusted classes ------------------------------------------------------------------------------------------

    def restore(self, found: Any) -> Any:
        """Return what a trusted class is given as it was written: with objects of pandas for what was read of them.

        Lists, tuples and dicts that hold some are copied, because classes that are not trusted may hold them as well.
        """
        return self._restore(found, _MOST_LEVELS) if self._makes_objects else found

    def require_not_copied(self, container: Any) -> None:
        """Raise Distrusted if a trusted class has a copy of this container, which would lack what is added now."""
        if id(container) in self._copies and self._copies[id(container)][1] is not container:
            raise Distrusted(f"the file adds to a container with columns of pandas that was used before; {ANY_TRUST}")

    def _restore(self, found: Any, levels: int) -> Any:
        kind = type(found)
        if kind in (np.ndarray, PandasTable, PlainDtype, CategoryDtype):
            return self._find_object(found)
        if kind is PandasPart:
            return self._require_checked(found.name, lambda: make_without_state(found.name))
        is_dict = kind in _DICTS
        if not levels or not (is_dict or kind in (list, tuple)):
            return found
        if id(found) in self._copies:
            return self._copies[id(found)][1]
        self._copies[id(found)] = (found, found)  # while its items are looked at: it may hold itself
        items = list(dict.values(found) if is_dict else found)
        restored = [self._restore(each, levels - 1) for each in items]
        if all(new is old for new, old in zip(restored, items, strict=True)):
            return found
        made: Any = kind(restored) if not is_dict else found.copy()
        if is_dict:
            made.update(zip(dict.keys(found), restored, strict=True))
        self._copies[id(found)] = (found, made)
        return made

    def _find_object(self, found: Any) -> Any:
        """Return the real object that belongs to what was read; what is no object of pandas belongs to itself."""
        if type(found) is PandasTable:
            return found.content
        return self._objects[id(found)][1] if id(found) in self._objects else found

    def _make_object(self, name: str, made: Any, parts: Any) -> None:
        if self._makes_objects and name in MAKERS:
            real = self._require_checked(name, lambda: MAKERS[name](made, parts, self._find_object))
            self._objects[id(made)] = (made, real)

    # --- limits -------------------------------------------------------------------------------------------------------

    def _require_checked(self, name: str, make: Callable[[], Any]) -> Any:
        try:
            made = make()
        except PandasAbsent:
            raise
        except Exception:  # noqa: BLE001  (a part that pandas wrote raises nothing)
            raise _make_refusal(name) from None
        if type(made) is PandasTable:
            self._take_room(made.size)
        if type(made) is np.ndarray:
            texts = made.tolist() if made.dtype.kind == "O" else []
            self._take_room(made.size + sum(len(each) for each in texts if type(each) is str))
            return made.view()  # an array of its own for each object: several may have the same values
        return made

    def _take_room(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise Distrusted(f"the file has larger columns of pandas than any model; {ANY_TRUST}")


def _make_refusal(name: str) -> Distrusted:
    return Distrusted(f"the file holds a {name[:40]} that pandas would not write; {ANY_TRUST}")
