"""What only fitting needs, and what does something when it is read back: a stand-in takes the place of each object.

Distributions of SciPy, which a search was told to draw from, run code that is in the file; they keep functions of their
own, which are stand-ins as well. What watches a fit opens a socket, or keeps the address and the key of one.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, ClassVar

from serving.host.restricted.allow_list import Global
from serving.host.restricted.distrust import ANY_TRUST, Distrusted

_DISTRIBUTIONS = ("scipy.stats._continuous_distns", "scipy.stats._discrete_distns")
_OTHERS = {
    ("scipy.stats._distn_infrastructure", "rv_continuous_frozen"),
    ("scipy.stats._distn_infrastructure", "rv_discrete_frozen"),
    ("numpy", "vectorize"),
    ("uuid", "UUID"),  # by which a watcher tells runs apart
}
# some of these are named tuples, which are made with arguments
WATCHERS = "sklearn.callback."
# the code by which a distribution takes its arguments, as SciPy writes it for the names of its parameters
_CODE = "_parse_arg_template"
_CODE_OF_SCIPY = re.compile(
    r"\s*def _parse_args\(self, [\w, =]*\):\n    return \([\w, ]*\), [\w, ]*\n"
    r"\s*def _parse_args_rvs\(self, [\w, =]*\):\n    return self\._argcheck_rvs\([\w, =]*\)\n"
    r"\s*def _parse_args_stats\(self, [\w, =]*, moments='mv'\):\n    return \([\w, ]*\), [\w, ]*\s*"
)
METHOD: Global = ("builtins", "getattr")


class Unused:
    """Stands for an object that only fitting needs; whatever state a file gives it is dropped."""

    __slots__ = ()
    full_name: ClassVar[str]

    def __setstate__(self, state: object) -> None:
        """Drop the state."""


def stand_in(name: Global) -> type[Unused] | None:
    """Return the class that takes the place of a global; None for one that is made, or refused."""
    is_distribution = name[0] in _DISTRIBUTIONS and name[1].endswith("_gen")
    is_unused = is_distribution or name[0].startswith(WATCHERS) or name in _OTHERS
    return _make_unused(".".join(name)) if is_unused or name == METHOD else None


def check_unused_state(state: Any) -> None:
    """Raise Distrusted for a state with code that SciPy would not write: nothing runs it here, elsewhere it would."""
    code = state.get(_CODE, "") if type(state) is dict else ""
    if not (type(code) is str and (not code or _CODE_OF_SCIPY.fullmatch(code))):
        raise Distrusted(f"the file holds a distribution with code that SciPy does not write; {ANY_TRUST}")


def is_method_of_unused(arguments: object) -> bool:
    """Say whether it is a stand-in that is asked for one of its methods."""
    return isinstance(arguments, tuple) and len(arguments) == 2 and isinstance(arguments[0], Unused)


def is_unused_class(found: object) -> bool:
    """Say whether this is the class of stand-ins, and not one that asks for methods."""
    return isinstance(found, type) and issubclass(found, Unused) and found is not stand_in(METHOD)


@cache
def _make_unused(full_name: str) -> type[Unused]:
    return type("Unused", (Unused,), {"__slots__": (), "full_name": full_name})
