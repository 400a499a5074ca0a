"""What a pickled booster is made of, before its library makes it: XGBoost and LightGBM take their models from text or
bytes, and anything else in that place for an address.
"""

from __future__ import annotations

import gc
from functools import lru_cache
from typing import Any

from serving.host.restricted.sound.lightgbm_trees import check_lightgbm
from serving.host.restricted.sound.requirements import Check, checks_of, need, outcome_of
from serving.host.restricted.sound.xgboost_trees import check_xgboost


def problem_of_state(kind: type, state: Any) -> str | None:
    """Return in a few words what is wrong with the state an object of `kind` shall get, None where nothing is known."""
    checks = _checks_of(kind)
    return problem_of_content(state, *checks) if checks else None


def problem_of_content(content: Any, *checks: Check) -> str | None:
    """Return in a few words why one of `checks` does not let `content` pass, None where all do.

    Collects no garbage meanwhile: it would look at each of a hundred thousand arrays again and again, half of the time.
    """
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        return outcome_of(checks, content)
    finally:
        if was_collecting:
            gc.enable()


@lru_cache(maxsize=4096)  # a forest has the same classes a thousand times
def _checks_of(kind: type) -> list[Check]:
    return checks_of(kind, _CHECKS)


def _check_xgboost_state(state: Any) -> None:
    need(type(state) is dict and type(state.get("handle")) is bytearray, "its handle is no model")
    check_xgboost(state["handle"])


def _check_lightgbm_state(state: Any) -> None:
    need(type(state) is dict, "its state is no dict")
    text = state.get("_handle", state.get("handle"))  # the name before 4.0
    need(type(text) is str, "its handle is no model")
    check_lightgbm(text)


_CHECKS: dict[str, Check] = {
    "xgboost.core.Booster": _check_xgboost_state,
    "lightgbm.basic.Booster": _check_lightgbm_state,
}
