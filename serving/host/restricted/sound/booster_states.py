"""What a pickled booster is made of, before its library makes it: XGBoost and LightGBM take their models from text or
bytes, and anything else in that place for an address.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from serving.host.restricted.sound.lightgbm_trees import check_lightgbm
from serving.host.restricted.sound.needs import Unsound, need
from serving.host.restricted.sound.xgboost_trees import check_xgboost

# what is raised where bytes are of another form than a check expects
_UNEXPECTED = (
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


def problem_of_state(kind: type, state: Any) -> str | None:
    """Return in a few words what is wrong with the state an object of `kind` shall get, None where nothing is known."""
    check = _check_of(kind)
    return None if check is None else problem_of_content(check, state)


def problem_of_content(check: Callable[[Any], None], content: Any) -> str | None:
    """Return in a few words why `check` does not let `content` pass, None where it does.

    Collects no garbage meanwhile: it would look at each of a hundred thousand arrays again and again, half of the time.
    """
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        check(content)
    except Unsound as error:
        return str(error)
    except _UNEXPECTED as error:
        told = str(error).splitlines() or [""]
        return f"its parts do not fit together ({type(error).__name__}: {told[0][:160]})"
    finally:
        if was_collecting:
            gc.enable()
    return None


@lru_cache(maxsize=4096)  # a forest has the same classes a thousand times
def _check_of(kind: type) -> Callable[[Any], None] | None:
    found = (_CHECKS.get(f"{one.__module__}.{one.__qualname__}") for one in kind.__mro__)
    return next(filter(None, found), None)


def _check_xgboost_state(state: Any) -> None:
    need(type(state) is dict and type(state.get("handle")) is bytearray, "its handle is no model")
    check_xgboost(state["handle"])


def _check_lightgbm_state(state: Any) -> None:
    need(type(state) is dict, "its state is no dict")
    text = state.get("_handle", state.get("handle"))  # the name before 4.0
    need(type(text) is str, "its handle is no model")
    check_lightgbm(text)


_CHECKS: dict[str, Callable[[Any], None]] = {
    "xgboost.core.Booster": _check_xgboost_state,
    "lightgbm.basic.Booster": _check_lightgbm_state,
}
