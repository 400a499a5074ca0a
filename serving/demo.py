"""Trains six small models on scikit-learn's bundled data sets and publishes them like any other model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from serving.offline import publish

GOLDEN_ROWS = 10
SEED = 7


@dataclass(frozen=True, slots=True)
class DemoVersion:
    """One version of one demo model: a description, the data to learn from, and an estimator to fit."""

    model: str
    version: str
    about: str
    load: Callable[[], tuple[Any, Any]]
    build: Callable[[], Any]

    def publish(self, store: Path) -> dict[str, Any]:
        """Train on three quarters of the rows, publish with golden examples, return the metrics. Blocks while it fits.

        Golden examples and metrics use the other rows.
        """
        rows, answers = self.load()
        train_rows, test_rows, train_answers, test_answers = train_test_split(rows, answers, random_state=SEED)
        estimator = self.build().fit(train_rows, train_answers)
        metrics = _measure(estimator, test_rows, test_answers)
        publish(
            estimator,
            self.model,
            version=self.version,
            store=store,
            X=train_rows,
            golden=test_rows[:GOLDEN_ROWS],
            metrics=metrics,
            check=False,  # the gates of the server check them, and the server starts sooner
        )
        return metrics


def demo_versions() -> tuple[DemoVersion, ...]:
    """Return the versions that the demo publishes, older ones first."""
    return (
        DemoVersion("iris", "1", "too strongly regularised", _load_iris, lambda: LogisticRegression(C=0.001)),
        DemoVersion("iris", "2", "scaled logistic regression", _load_iris, lambda: _build_scaled(LogisticRegression())),
        DemoVersion(
            "wine", "1", "fitted on columns with names", _load_wine, lambda: _build_scaled(LogisticRegression())
        ),
        DemoVersion("breast_cancer", "1", "random forest of 100 trees", _load_breast_cancer, _build_forest),
        DemoVersion("digits", "1", "neural network on 8x8 images", _load_digits, _build_network),
        DemoVersion("diabetes", "1", "10 boosted trees", _load_diabetes, lambda: _build_boosted(10)),
        DemoVersion("diabetes", "2", "100 boosted trees", _load_diabetes, lambda: _build_boosted(100)),
        DemoVersion(
            "diabetes_mixed", "1", "numbers, texts and bools with missing values", _load_mixed, _build_mixed_pipeline
        ),
    )


def _measure(estimator: Any, rows: Any, answers: Any) -> dict[str, Any]:
    name = "accuracy" if hasattr(estimator, "classes_") else "r2"
    metrics: dict[str, Any] = {name: round(float(estimator.score(rows, answers)), 4)}
    if name == "r2":
        metrics["mean_absolute_error"] = round(float(mean_absolute_error(answers, estimator.predict(rows))), 2)
    return {**metrics, "held_out_rows": len(rows)}


# --- data -------------------------------------------------------------------------------------------------------------


def _load_iris() -> tuple[Any, Any]:
    rows, answers = datasets.load_iris(return_X_y=True)
    return rows, answers


def _load_breast_cancer() -> tuple[Any, Any]:
    rows, answers = datasets.load_breast_cancer(return_X_y=True)
    return rows, answers


def _load_digits() -> tuple[Any, Any]:
    rows, answers = datasets.load_digits(return_X_y=True)
    return rows, answers


def _load_diabetes() -> tuple[Any, Any]:
    rows, answers = datasets.load_diabetes(return_X_y=True)
    return rows, answers


def _load_wine() -> tuple[Any, Any]:
    bundle = datasets.load_wine(as_frame=True)
    return bundle.data, bundle.target_names[bundle.target]


def _load_mixed() -> tuple[Any, Any]:
    """Return the diabetes data in their original units, with some numbers as groups and every tenth cell missing.

    The groups are the World Health Organization's classes of the body mass index; the data set does not say which sex
    is coded 1 and which 2. The answer is whether the disease progressed more than it did for half of the patients.
    """
    source = datasets.load_diabetes(as_frame=True, scaled=False)
    frame = source.data
    groups = pd.cut(frame.bmi, [0, 18.5, 25, 30, np.inf], right=False, labels=["under", "normal", "over", "obese"])
    rows = pd.DataFrame(
        {
            "age": frame.age,
            "sex": "coded " + frame.sex.astype(int).astype(str),
            "bmi_group": groups.astype(object),
            "blood_pressure": frame.bp,
            "log_triglycerides": frame.s5,
            "is_over_60": frame.age > 60,
        }
    )
    random = np.random.default_rng(SEED)
    for column in ("bmi_group", "blood_pressure", "log_triglycerides"):
        rows.loc[random.random(len(rows)) < 0.1, column] = np.nan
    return rows, np.where(source.target > source.target.median(), "fast", "slow")


# --- estimators -------------------------------------------------------------------------------------------------------


def _build_scaled(estimator: Any) -> Any:
    return make_pipeline(StandardScaler(), estimator)


def _build_forest() -> Any:
    return RandomForestClassifier(n_estimators=100, n_jobs=2, random_state=SEED)


def _build_network() -> Any:
    return _build_scaled(MLPClassifier((48,), tol=1e-3, random_state=SEED))


def _build_boosted(trees: int) -> Any:
    return GradientBoostingRegressor(n_estimators=trees, max_depth=2, random_state=SEED)


def _build_mixed_pipeline() -> Any:
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    groups = OneHotEncoder(handle_unknown="ignore")  # a missing value is a group of its own
    columns = make_column_transformer(
        (numbers, ["age", "blood_pressure", "log_triglycerides"]),
        (groups, ["sex", "bmi_group"]),
        ("passthrough", ["is_over_60"]),
    )
    return make_pipeline(columns, LogisticRegression())
