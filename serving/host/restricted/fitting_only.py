"""Stand-ins: they replace objects that only fitting needs and that would do something when they are loaded.

A distribution of SciPy, from which a parameter search draws, runs code from the file; its own functions become
stand-ins, too. A callback that watches a fit opens a socket, or keeps the address and the key of one.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, ClassVar

from serving.host.restricted.allow_list import ANY_TRUST, Distrusted, Global

_DISTRIBUTIONS = ("scipy.stats._continuous_distns", "scipy.stats._discrete_distns")
_OTHERS = {
    ("scipy.stats._distn_infrastructure", "rv_continuous_frozen"),
    ("scipy.stats._distn_infrastructure", "rv_discrete_frozen"),
    ("scipy.stats._distn_infrastructure", "rv_frozen"),  # both, before SciPy 1.9
    ("numpy", "vectorize"),
    ("uuid", "UUID"),  # identifies the runs of a callback
}
# callbacks; some of them are named tuples, which are made with arguments
CALLBACKS = "sklearn.callback."
# the attribute with the code that reads the arguments of a distribution, and this code as SciPy generates it
_CODE = "_parse_arg_template"
_CODE_OF_SCIPY = re.compile(
    r"\s*def _parse_args\(self, [\w, =]*\):\n    return \([\w, ]*\), [\w, ]*\n"
    r"\s*def _parse_args_rvs\(self, [\w, =]*\):\n    return self\._argcheck_rvs\([\w, =]*\)\n"
    r"\s*def _parse_args_stats\(self, [\w, =]*, moments='mv'\):\n    return \([\w, ]*\), [\w, ]*\s*"
)
METHOD_GETTER: Global = ("builtins", "getattr")


class StandIn:
    """Replaces an object that only fitting needs. Any state that a file gives it is dropped."""

    __slots__ = ()
    full_name: ClassVar[str]

    def __setstate__(self, state: object) -> None:
        """Drop the state."""


def find_stand_in(name: Global) -> type[StandIn] | None:
    """Return the stand-in for a class or function; None if it is loaded as it is, or refused."""
    is_distribution = name[0] in _DISTRIBUTIONS and name[1].endswith("_gen")
    is_fitting_only = is_distribution or name[0].startswith(CALLBACKS) or name in _OTHERS
    return _make_stand_in_class(".".join(name)) if is_fitting_only or name == METHOD_GETTER else None


def check_stand_in_state(state: Any) -> None:
    """Raise Distrusted for a state with code that SciPy would not write. It never runs here, but would elsewhere."""
    code = state.get(_CODE, "") if type(state) is dict else ""
    if not (type(code) is str and (not code or _CODE_OF_SCIPY.fullmatch(code))):
        raise Distrusted(f"the file holds a distribution with code that SciPy does not write; {ANY_TRUST}")


def is_method_of_stand_in(arguments: object) -> bool:
    """Return True if `arguments` ask a stand-in for one of its methods."""
    return isinstance(arguments, tuple) and len(arguments) == 2 and isinstance(arguments[0], StandIn)


def is_stand_in_class(found: object) -> bool:
    """Return True for the class of a stand-in, other than the stand-in for `METHOD_GETTER`."""
    return isinstance(found, type) and issubclass(found, StandIn) and found is not find_stand_in(METHOD_GETTER)


@cache
def _make_stand_in_class(full_name: str) -> type[StandIn]:
    return type("StandIn", (StandIn,), {"__slots__": (), "full_name": full_name})
