"""Support for XGBoost and LightGBM: their own file formats, bare boosters, and the special needs of their estimators.

Both libraries are optional and imported only when a file needs them.
"""

from __future__ import annotations

from typing import Any

from serving.host.boosters.bare import LightgbmBooster, XgboostBooster
from serving.host.boosters.libraries import EXTRAS, LIGHTGBM, XGBOOST, explain_installation, library_of
from serving.host.boosters.native_files import load_native_file, read_xgboost_version
from serving.host.boosters.split_points import find_threshold_ranges

__all__ = [
    "EXTRAS",
    "LIGHTGBM",
    "XGBOOST",
    "explain_installation",
    "find_threshold_ranges",
    "is_old_lightgbm_estimator",
    "library_of",
    "limit_to_one_thread",
    "load_native_file",
    "read_xgboost_version",
    "wrap_bare_booster",
]

_THREADS = ("n_jobs", "nthread", "nthreads", "num_thread", "num_threads")
_KEYWORDS = ("kwargs", "_other_params", "params")


def wrap_bare_booster(found: Any) -> Any:
    """Return a bare booster of either library as an object with the methods of an estimator; all else unchanged."""
    library = library_of(found)
    if library is None or type(found).__name__ != "Booster":
        return found
    return XgboostBooster(found) if library == XGBOOST else LightgbmBooster(found)


def is_old_lightgbm_estimator(part: Any) -> bool:
    """Say whether LightGBM 2 or 3 has fitted the estimator `part`: later versions take it for an unfitted one."""
    if library_of(part) != LIGHTGBM:
        return False
    state = vars(part)
    is_asked = hasattr(part, "__sklearn_is_fitted__")  # not by those versions themselves
    return is_asked and state.get("_Booster") is not None and "fitted_" not in state


def limit_to_one_thread(part: Any) -> None:
    """Make a part of either library compute in one thread: overwrite every parameter with a number of threads."""
    state = vars(part)
    for known in (state, *(state.get(name) for name in _KEYWORDS)):
        if isinstance(known, dict):
            known.update({name: 1 for name in _THREADS if name in known})
    if type(part).__name__ == "Booster" and hasattr(part, "set_param"):
        part.set_param({"nthread": 1})  # a booster of XGBoost; its pickle contains the number
