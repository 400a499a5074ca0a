"""XGBoost and LightGBM: their own files, bare boosters, and what their estimators need that scikit-learn's do not.

Both are optional and imported only when a file asks for them.
"""

from __future__ import annotations

from typing import Any

from serving.host.boosters.bare import LightgbmBooster, XgboostBooster
from serving.host.boosters.libraries import EXTRAS, LIGHTGBM, XGBOOST, how_to_install, library_of
from serving.host.boosters.native_files import load_native
from serving.host.boosters.split_points import thresholds_in

__all__ = [
    "EXTRAS",
    "LIGHTGBM",
    "XGBOOST",
    "as_estimator",
    "how_to_install",
    "is_of_old_lightgbm",
    "library_of",
    "limit_to_one_thread",
    "load_native",
    "thresholds_in",
]

_THREADS = ("n_jobs", "nthread", "nthreads", "num_thread", "num_threads")
_KEYWORDS = ("kwargs", "_other_params", "params")


def as_estimator(found: Any) -> Any:
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
