"""Columns, masks and categories of pandas in a file: what they hold, as arrays of NumPy. Nothing of pandas is made.

pandas and pyarrow make theirs of raw parts (buffers, offsets, codes, blocks) that they believe, and a Series in the
place of an estimator would call methods that requests name. Models only use the values, so that is what they get: each
name of pandas becomes a part of our own, which is read with all sizes checked, and comes to an array in the end.
Only what is one value stays what it was: `pandas.NA`, a Timestamp, a Timedelta.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from serving.host.restricted.allow_list import Global
from serving.host.restricted.distrust import ANY_TRUST, Distrusted
from serving.host.restricted.pandas_values import CALLS, OF_ARROW, OF_PANDAS, STATES, Named, Part

# values and characters that all parts of a file come to
_MOST_VALUES = 1 << 24


def find_part(name: Global) -> Any:
    """Return what takes the place of a global of pandas or pyarrow; None for a name that is none, or is refused."""
    module, last = name
    package = module.partition(".")[0]
    if package == "pandas" and last == "NA":
        return pd.NA
    is_known = (package == "pandas" and last in OF_PANDAS) or (module == "pyarrow.lib" and last in OF_ARROW)
    return Named(last) if is_known else None


class Parts:
    """Reads the parts of pandas in one file. What comes of them all together is bounded."""

    def __init__(self) -> None:
        self._left = _MOST_VALUES

    def call(self, function: Named, arguments: Any, place: int) -> Any:
        """Return what a function of pandas or pyarrow comes to.

        `place` is where the file keeps what comes next. Raises Distrusted for arguments that pandas never writes.
        """
        make = CALLS.get(function.full_name)
        if make is None:
            raise _refusal(function.full_name)
        made = self._require_checked(function.full_name, lambda: make(*arguments))
        if isinstance(made, Part):
            made.place = place
        return made

    def start(self, kind: Named, arguments: Any, place: int) -> Part:
        """Return an object whose state follows; raises Distrusted where pandas never makes it so."""
        if kind.full_name not in STATES or arguments:
            raise _refusal(kind.full_name)
        return Part(kind.full_name, place)

    def finish(self, part: Part, state: Any) -> Any:
        """Return the values that a state says. Raises Distrusted for a state that pandas never writes."""
        return self._require_checked(part.name, lambda: STATES[part.name](state))

    def replace(self, part: Part, made: Any, memo: dict[int, Any]) -> None:
        """Put the values into the place of the part where the file keeps it."""
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
        except Exception:  # noqa: BLE001  (whatever does not fit is of another make)
            raise _refusal(name) from None
        if type(made) is np.ndarray:
            texts = made.tolist() if made.dtype.kind == "O" else []
            self._take_room(made.size + sum(len(each) for each in texts if type(each) is str))
        return made

    def _take_room(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise Distrusted(f"the file makes more of columns of pandas than any model has; {ANY_TRUST}")


def _refusal(name: str) -> Distrusted:
    return Distrusted(f"the file holds a {name[:40]} that pandas would not write; {ANY_TRUST}")
