"""XGBoost and LightGBM: their own files, bare boosters, and what their estimators need that scikit-learn's do not.

Both are optional and imported only when a file asks for them.
"""

from __future__ import annotations

from typing import Any

from serving.host.boosters.bare import LightgbmBooster, XgboostBooster
from serving.host.boosters.libraries import EXTRAS, LIGHTGBM, XGBOOST, explain_installation, library_of
from serving.host.boosters.native_files import load_native_file
from serving.host.boosters.split_points import find_threshold_ranges

__all__ = [
    "EXTRAS",
    "LIGHTGBM",
    "XGBOOST",
    "wrap_bare_booster",
    "explain_installation",
    "is_of_old_lightgbm",
    "library_of",
    "limit_to_one_thread",
    "load_native_file",
    "find_threshold_ranges",
]

_THREADS = ("n_jobs", "nthread", "nthreads", "num_thread", "num_threads")
_KEYWORDS = ("kwargs", "_other_params", "params")


def wrap_bare_booster(found: Any) -> Any:
    """Return a bare booster of either library as an object with an estimator's methods, everything else as it is."""
    library = library_of(found)
    if library is None or type(found).__name__ != "Booster":
        return found
    return XgboostBooster(found) if library == XGBOOST else LightgbmBooster(found)


def is_of_old_lightgbm(part: Any) -> bool:
    """Say whether a part is an estimator that LightGBM 2 or 3 fitted: later versions take it for one that is not."""
    if library_of(part) != LIGHTGBM:
        return False
    state = vars(part)
    return state.get("_Booster") is not None and "fitted_" not in state


def limit_to_one_thread(part: Any) -> None:
    """Have a part of either library compute in one thread, whatever it was told under whichever name."""
    state = vars(part)
    for known in (state, *(state.get(name) for name in _KEYWORDS)):
        if isinstance(known, dict):
            known.update({name: 1 for name in _THREADS if name in known})
    if type(part).__name__ == "Booster" and hasattr(part, "set_param"):
        part.set_param({"nthread": 1})  # XGBoost's; a pickled one brings the number along
