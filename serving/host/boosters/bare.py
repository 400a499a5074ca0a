"""Gives boosters without an estimator the methods of one, with the answers of their library's ``Booster.predict``.

An estimator of the same library would give other answers: that of XGBoost uses only the rounds up to the best one of
early stopping, and classifiers give labels where boosters give probabilities. A booster numbers its classes.
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
_SOURCE_PLACE = re.compile(
    r"^\[[\d:]+\] \S+ (?:Check failed: \w+: *)?"
)  # the line of XGBoost's source that reports an error
_LIGHTGBM_CLASSES = ("binary", "multiclass", "multiclassova")
_RANKS = ("rank:", "lambdarank", "rank_xendcg")


class BareBooster(BaseEstimator):
    """A booster with the methods of an estimator. Only one thread may use it at a time.

    ``predict`` is that of the booster. If the objective has classes, ``predict_proba`` gives a column for each class,
    as the classifier of the library does. `library_booster` is the booster, `objective` the library's name of its
    objective, empty for a custom one.
    """

    def __init__(self, library_booster: Any, objective: str, names: list[str] | None) -> None:
        self.library_booster = library_booster
        self.objective = objective
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        """Return the tags of a regressor, unless the answers are classes or ranks."""
        tags = super().__sklearn_tags__()
        is_rank = self.objective.startswith(_RANKS)
        tags.estimator_type = None if is_rank or self._has_classes() else "regressor"
        return tags

    def _has_classes(self) -> bool:
        return self.objective in (*_XGBOOST_CLASSES, *_LIGHTGBM_CLASSES)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the answer of ``Booster.predict``: (rows,) or (rows, outputs), with the dtype of the library."""
        return self._call_predict(X)

    @available_if(_has_classes)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return a share for each class: (rows, classes), with the dtype of the library."""
        shares = self._compute_shares(X)
        # for two classes a booster gives only the share of the second
        return shares if shares.ndim == 2 else np.vstack((1.0 - shares, shares)).T

    def _compute_shares(self, X: Any) -> NDArray[Any]:
        return self._call_predict(X)

    def _call_predict(self, X: Any, **options: Any) -> NDArray[Any]:
        """Call ``Booster.predict`` of the library."""
        raise NotImplementedError


class XgboostBooster(BareBooster):
    """A booster of XGBoost, in float32; uses all rounds in the file, also if training has noted a better number."""

    missing = np.nan

    def __init__(self, library_booster: Any) -> None:
        learner = json.loads(library_booster.save_config())["learner"]
        names = library_booster.feature_names
        super().__init__(library_booster, learner["objective"]["name"], list(names) if names else None)
        self.booster = learner["gradient_booster"]["name"]
        self.feature_types = library_booster.feature_types
        self.n_features_in_ = int(library_booster.num_features())

    def get_booster(self) -> Any:
        """Return the booster; estimators of XGBoost have the same method."""
        return self.library_booster

    def _compute_shares(self, X: Any) -> NDArray[Any]:
        if self.objective == "multi:softmax":  # gives labels only; XGBoost's classifier does the same
            return np.asarray(softmax(self._call_predict(X, output_margin=True), axis=1))
        return self._call_predict(X)

    def _call_predict(self, X: Any, **options: Any) -> NDArray[Any]:
        library = importlib.import_module("xgboost")
        is_table = hasattr(X, "columns")
        # a table with categories has its own types; the types of array columns are known only from the training
        types = self.feature_types if not is_table or not _has_categories(X) else None
        try:
            rows = library.DMatrix(X, nthread=1, feature_types=types, enable_categorical=True)
            return np.asarray(self.library_booster.predict(rows, **options))
        except library.core.XGBoostError as error:
            raise ValueError(_SOURCE_PLACE.sub("", str(error).partition("\n")[0])) from None


class LightgbmBooster(BareBooster):
    """A booster of LightGBM, in float64; uses the best number of rounds if the booster knows it, else all."""

    def __init__(self, library_booster: Any) -> None:
        head = library_booster.model_to_string(num_iteration=1).partition("\n\n")[0]
        known = dict(line.split("=", 1) for line in head.splitlines() if "=" in line)
        names = library_booster.feature_name()
        is_named = names != [f"Column_{index}" for index in range(len(names))]
        super().__init__(library_booster, (known.get("objective", "").split() or [""])[0], names if is_named else None)
        self.n_features_in_ = int(library_booster.num_feature())

    @property
    def booster_(self) -> Any:
        """The booster; estimators of LightGBM have the same attribute."""
        return self.library_booster

    @available_if(BareBooster._has_classes)  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> NDArray[Any]:
        """Return the sums of the trees: (rows,) or (rows, classes), float64."""
        return self._call_predict(X, raw_score=True)

    def _call_predict(self, X: Any, **options: Any) -> NDArray[Any]:
        return np.asarray(self.library_booster.predict(X, num_threads=1, **options))


def _has_categories(table: Any) -> bool:
    return any(str(dtype) == "category" for dtype in table.dtypes)
