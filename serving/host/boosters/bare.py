"""Boosters without an estimator around them, which answer as their library's own ``Booster.predict`` does.

An estimator of the same library would answer otherwise: XGBoost's stops at the best round of early stopping, and
classifiers give labels where boosters give probabilities. A booster has no labels, only the numbers of its classes.
"""

from __future__ import annotations

import importlib
import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.utils.metaestimators import available_if

_XGBOOST_CLASSES = ("binary:logistic", "binary:hinge", "multi:softprob", "multi:softmax")
_PLACE = re.compile(r"^\[[\d:]+\] \S+ (?:Check failed: \w+: *)?")  # where in its code XGBoost noticed a fault
_LIGHTGBM_CLASSES = ("binary", "multiclass", "multiclassova")
_RANKS = ("rank:", "lambdarank", "rank_xendcg")


class BareBooster(BaseEstimator):
    """A booster with the methods of an estimator. ``predict`` is its own; not for several threads at once.

    ``predict_proba`` is there where the objective is one of classes, and gives each of them a column: what the
    library's classifier makes of the same numbers. `library_booster` is the booster; `objective` its objective by the
    library's name, empty for one of the user's own.
    """

    def __init__(self, library_booster: Any, objective: str, names: list[str] | None) -> None:
        self.library_booster = library_booster
        self.objective = objective
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        """Say that it is a regressor, unless its numbers stand for classes or for places in a ranking."""
        tags = super().__sklearn_tags__()
        is_rank = self.objective.startswith(_RANKS)
        tags.estimator_type = None if is_rank or self._has_classes() else "regressor"
        return tags

    def _has_classes(self) -> bool:
        return self.objective in (*_XGBOOST_CLASSES, *_LIGHTGBM_CLASSES)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return what ``Booster.predict`` gives for `X`: (rows,) or (rows, outputs), of the library's own dtype."""
        return self._answer(X)

    @available_if(_has_classes)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return a share for each class: (rows, classes), of the library's own dtype."""
        shares = self._shares(X)
        # of two classes a booster gives the second's
        return shares if shares.ndim == 2 else np.vstack((1.0 - shares, shares)).T

    def _shares(self, X: Any) -> NDArray[Any]:
        return self._answer(X)

    def _answer(self, X: Any, **options: Any) -> NDArray[Any]:
        """Ask the library's ``Booster.predict``."""
        raise NotImplementedError


class XgboostBooster(BareBooster):
    """XGBoost's, in float32: all rounds in the file, even where training noted a better number of them."""

    missing = np.nan

    def __init__(self, library_booster: Any) -> None:
        learner = json.loads(library_booster.save_config())["learner"]
        names = library_booster.feature_names
        super().__init__(library_booster, learner["objective"]["name"], list(names) if names else None)
        self.booster = learner["gradient_booster"]["name"]
        self.feature_types = library_booster.feature_types
        self.n_features_in_ = int(library_booster.num_features())

    def get_booster(self) -> Any:
        """Return XGBoost's own object, as its estimators do."""
        return self.library_booster

    def _shares(self, X: Any) -> NDArray[Any]:
        if self.objective == "multi:softmax":  # gives labels only; XGBoost's classifier does the same
            return np.asarray(softmax(self._answer(X, output_margin=True), axis=1))
        return self._answer(X)

    def _answer(self, X: Any, **options: Any) -> NDArray[Any]:
        library = importlib.import_module("xgboost")
        is_table = hasattr(X, "columns")
        # a table of categories has types of its own; those of an array are only known from the training
        types = self.feature_types if not is_table or not _holds_categories(X) else None
        try:
            rows = library.DMatrix(X, nthread=1, feature_types=types, enable_categorical=True)
            return np.asarray(self.library_booster.predict(rows, **options))
        except library.core.XGBoostError as error:
            raise ValueError(_PLACE.sub("", str(error).partition("\n")[0])) from None


class LightgbmBooster(BareBooster):
    """LightGBM's, in float64: the best number of rounds where the booster knows one, all that are in a file."""

    def __init__(self, library_booster: Any) -> None:
        head = library_booster.model_to_string(num_iteration=1).partition("\n\n")[0]
        known = dict(line.split("=", 1) for line in head.splitlines() if "=" in line)
        names = library_booster.feature_name()
        is_named = names != [f"Column_{index}" for index in range(len(names))]
        super().__init__(library_booster, (known.get("objective", "").split() or [""])[0], names if is_named else None)
        self.n_features_in_ = int(library_booster.num_feature())

    @property
    def booster_(self) -> Any:
        """LightGBM's own object, as its estimators call it."""
        return self.library_booster

    @available_if(BareBooster._has_classes)  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> NDArray[Any]:
        """Return the sums of the trees: (rows,) or (rows, classes), float64."""
        return self._answer(X, raw_score=True)

    def _answer(self, X: Any, **options: Any) -> NDArray[Any]:
        return np.asarray(self.library_booster.predict(X, num_threads=1, **options))


def _holds_categories(table: Any) -> bool:
    return any(str(dtype) == "category" for dtype in table.dtypes)
