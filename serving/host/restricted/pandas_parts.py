"""Reads columns, masks and categories of pandas in a file as arrays of NumPy, without making objects of pandas.

pandas and pyarrow build their objects from raw parts (buffers, offsets, codes, blocks) that they do not check. A Series
in the place of an estimator would call methods that requests name. Models only use the values, so the values are all
they get: each name of pandas becomes a `PandasGlobal` or `PandasPart`, is read with all sizes checked, and ends as an
array. Only single values keep their type: `pandas.NA`, a Timestamp, a Timedelta.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from serving.host.optional_pandas import HAS_PANDAS, PandasAbsent
from serving.host.optional_pandas import pandas as pd
from serving.host.restricted.allow_list import ANY_TRUST, Distrusted, Global
from serving.host.restricted.pandas_values import CALLS, OF_ARROW, OF_PANDAS, STATES, PandasGlobal, PandasPart

# limit of the values and characters that all parts of one file become together
_MOST_VALUES = 1 << 24


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


class PandasReader:
    """Reads the parts of pandas in one file. The size of all results together is limited."""

    def __init__(self) -> None:
        self._left = _MOST_VALUES

    def call(self, function: PandasGlobal, arguments: Any, place: int) -> Any:
        """Return the result of a call of a pandas or pyarrow function.

        `place` is the next free place in the memo of the file. Raises Distrusted for arguments that pandas never
        writes.
        """
        make = CALLS.get(function.full_name)
        if make is None:
            raise _make_refusal(function.full_name)
        made = self._require_checked(function.full_name, lambda: make(*arguments))
        if isinstance(made, PandasPart):
            made.place = place
        return made

    def start(self, kind: PandasGlobal, arguments: Any, place: int) -> PandasPart:
        """Return an object whose state follows in the file; raises Distrusted if pandas never makes it in this way."""
        if kind.full_name not in STATES or arguments:
            raise _make_refusal(kind.full_name)
        return PandasPart(kind.full_name, place)

    def finish(self, part: PandasPart, state: Any) -> Any:
        """Return the values in a state. Raises Distrusted for a state that pandas never writes."""
        return self._require_checked(part.name, lambda: STATES[part.name](state))

    def replace(self, part: PandasPart, made: Any, memo: dict[int, Any]) -> None:
        """Replace the part by its values in the memo of the file."""
        if memo.get(part.place) is part:
            memo[part.place] = made
            return
        self._take_room(len(memo))
        for place, found in memo.items():
            if found is part:
                memo[place] = made

    def _require_checked(self, name: str, make: Callable[[], Any]) -> Any:
        try:
            made = make()
        except PandasAbsent:
            raise
        except Exception:  # noqa: BLE001  (a part that pandas wrote raises nothing)
            raise _make_refusal(name) from None
        if type(made) is np.ndarray:
            texts = made.tolist() if made.dtype.kind == "O" else []
            self._take_room(made.size + sum(len(each) for each in texts if type(each) is str))
        return made

    def _take_room(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise Distrusted(f"the file has larger columns of pandas than any model; {ANY_TRUST}")


def _make_refusal(name: str) -> Distrusted:
    return Distrusted(f"the file holds a {name[:40]} that pandas would not write; {ANY_TRUST}")
