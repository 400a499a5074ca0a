"""Checks of boosters: their pickled state before their library reads it, and their options after loading.

XGBoost and LightGBM read a model from text or bytes, and take anything else in that place for an address.
"""

from __future__ import annotations

import gc
from functools import lru_cache
from typing import Any

from serving.host.restricted.sound.compiled_states import STATE_CHECKS
from serving.host.restricted.sound.lightgbm_trees import check_lightgbm
from serving.host.restricted.sound.requirements import Check, find_checks, get_attributes, require, run_checks
from serving.host.restricted.sound.xgboost_trees import check_xgboost

_NO_WIDTH_CHECK = "predict_disable_shape_check"


def find_state_problem(kind: type, state: Any) -> str | None:
    """Return in a few words what is wrong with a state for an object of class `kind`, None if nothing is found."""
    checks = _find_state_checks(kind)
    return find_content_problem(state, *checks) if checks else None


def find_content_problem(content: Any, *checks: Check) -> str | None:
    """Return in a few words why one of `checks` refuses `content`, None if all pass.

    Garbage collection is off meanwhile: it would visit each of a hundred thousand arrays again and again, which takes
    half of the time.
    """
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        return run_checks(checks, content)
    finally:
        if was_collecting:
            gc.enable()


@lru_cache(maxsize=4096)  # a forest has the same classes a thousand times
def _find_state_checks(kind: type) -> list[Check]:
    return find_checks(kind, _STATE_CHECKS)


def _check_xgboost_state(state: Any) -> None:
    require(type(state) is dict and type(state.get("handle")) is bytearray, "its handle is no model")
    check_xgboost(state["handle"])


def _check_lightgbm_state(state: Any) -> None:
    require(type(state) is dict, "its state is no dict")
    text = state.get("_handle", state.get("handle"))  # the name before 4.0
    require(type(text) is str, "its handle is no model")
    check_lightgbm(text)


def _check_lightgbm_options(booster: Any) -> None:
    """Refuse an option by which LightGBM does not check the width of rows."""
    parts = get_attributes(booster)
    given = [value for value in (parts, parts.get("params"), parts.get("_other_params")) if isinstance(value, dict)]
    for options in given:
        is_checked = str(options.get(_NO_WIDTH_CHECK, False)).lower() in ("false", "0")
        require(is_checked, f"{_NO_WIDTH_CHECK} would read past its rows")


_STATE_CHECKS: dict[str, Check] = {
    **STATE_CHECKS,
    "xgboost.core.Booster": _check_xgboost_state,
    "lightgbm.basic.Booster": _check_lightgbm_state,
}
CHECKS: dict[str, Check] = {
    "lightgbm.sklearn.LGBMModel": _check_lightgbm_options,
    "lightgbm.basic.Booster": _check_lightgbm_options,
}
