"""Estimators with a will of their own, for the files that tests drop. Importable in hosts through PYTHONPATH."""

from __future__ import annotations

import datetime
import os
import signal
import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.linear_model import LinearRegression


class Constant(RegressorMixin, BaseEstimator):
    """Answers its version number for every row, so that every answer shows which version computed it."""

    def __init__(self, value: float = 0.0, ballast_bytes: int = 0) -> None:
        self.value = value
        self.ballast_bytes = ballast_bytes

    def fit(self, X: Any, y: Any = None) -> Constant:
        self.n_features_in_ = np.asarray(X).shape[1]
        self.ballast_ = np.random.default_rng(0).bytes(self.ballast_bytes)
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), float(self.value))


class Foreign(LinearRegression):
    """A linear regression, but not scikit-learn's own: nobody knows how it answers."""


class Forgetful(BaseEstimator):
    """Knows how many features it takes until it has been in a file, as CatBoost's do; sums them."""

    def fit(self, X: Any, y: Any = None) -> Forgetful:
        self.n_features_in_ = np.asarray(X).shape[1]
        return self

    def predict(self, X: Any) -> Any:
        return np.asarray(X, dtype=float).sum(axis=1)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "n_features_in_": 0})


class Doubled(TransformerMixin, BaseEstimator):
    """A first step that remembers nothing of what it was fitted on."""

    def fit(self, X: Any, y: Any = None) -> Doubled:
        self.is_fitted_ = True
        return self

    def transform(self, X: Any) -> Any:
        return np.asarray(X, dtype=float) * 2


class Slow(Constant):
    """Takes as many seconds as the first value of the first row says, when the second one is 77."""

    def predict(self, X: Any) -> Any:
        seconds, marker = np.asarray(X)[0, :2]
        if marker == 77.0:  # no made-up row has that, so the gates are quick
            time.sleep(seconds)
        return super().predict(X)


class Echo(Constant):
    """Answers the number of rows it was given at once, and the process that answered."""

    def predict(self, X: Any) -> Any:
        return np.full(len(X), float(os.getpid()))


class Suicidal(Constant):
    """Dies when the first value of the first row is exactly 13."""

    def predict(self, X: Any) -> Any:
        if float(np.asarray(X)[0, 0]) == 13.0:
            signal.raise_signal(signal.SIGSEGV)
        return super().predict(X)


class SlowToLoad(Constant):
    """Takes a while to load, and says on disk that it has begun."""

    seconds = 1.0

    def __setstate__(self, state: dict[str, Any]) -> None:
        time.sleep(state.get("load_seconds", self.seconds))
        self.__dict__.update(state)


class HangsWhileLoading(Constant):
    def __setstate__(self, state: dict[str, Any]) -> None:
        while True:
            time.sleep(60)


class HangsInPredict(Constant):
    def predict(self, X: Any) -> Any:
        while True:
            time.sleep(60)


class CrashesWhileLoading(Constant):
    def __setstate__(self, state: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGSEGV)


class ExitsWhileLoading(Constant):
    def __setstate__(self, state: dict[str, Any]) -> None:
        os._exit(3)


class EatsMemory(Constant):
    def __setstate__(self, state: dict[str, Any]) -> None:
        hoard = []
        while True:
            hoard.append(bytearray(64 << 20))


class NotFinite(Constant):
    def predict(self, X: Any) -> Any:
        return np.full(len(X), np.nan)


class SlowToAnswer(Constant):
    """Takes a tenth of a second for every prediction, so that each gate takes a while."""

    def predict(self, X: Any) -> Any:
        time.sleep(0.1)
        return super().predict(X)


class Describes(Constant):
    """Answers an object with a date for every row."""

    def predict(self, X: Any) -> Any:
        return [{"sum": float(np.sum(row)), "day": datetime.date(2026, 11, 20), "note": None} for row in np.asarray(X)]


class Picky(Constant):
    """Refuses rows whose first value is exactly 13; fails, or answers NaN, where that is asked for."""

    def __init__(self, value: float = 0.0, how: str = "refuse") -> None:
        super().__init__(value)
        self.how = how

    def predict(self, X: Any) -> Any:
        unlucky = np.asarray(X)[:, 0] == 13.0
        if unlucky.any() and self.how == "refuse":
            raise ValueError(f"no row with {np.asarray(X)[unlucky][0, 0]}")
        return np.where(unlucky, np.nan, super().predict(X))
