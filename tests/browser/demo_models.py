"""A small store as somebody may have it: compiled and hosted models, one with metrics and examples, one refused."""

from __future__ import annotations

from pathlib import Path

from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression

from serving.offline import publish
from tests.e2e.harness import constant, write_version

HOSTED = "prices"
COMPILED = "iris"
NUMBERS = "diabetes"
REFUSED = (COMPILED, "3")
"""The version that a gate refuses, because its file is no model."""


def fill_store(store: Path) -> None:
    """Publish versions 1 and 2 of `iris` (3 is refused), 1 of `diabetes`, and 1 of `prices`, which has a host."""
    store.mkdir(parents=True, exist_ok=True)
    publish_iris(store, 1, strength=0.001)
    publish_iris(store, 2)
    rows, answers = load_diabetes(return_X_y=True, as_frame=True)
    estimator = LinearRegression().fit(rows, answers)
    publish(estimator, NUMBERS, version=1, store=store, X=rows, golden=rows[:5], check=False)
    write_version(store / HOSTED, 1, constant(1))
    refused = store / REFUSED[0] / REFUSED[1]
    refused.mkdir()
    (refused / "model.joblib").write_bytes(b"<b>no model</b>\n")


def publish_iris(store: Path, version: int, strength: float = 1.0, about: str = "fitted on <b>all</b> rows") -> None:
    """Publish a classifier of four named columns, with golden examples, and metrics whose text is markup."""
    rows, answers = load_iris(return_X_y=True, as_frame=True)
    estimator = LogisticRegression(C=strength, max_iter=1000).fit(rows, answers)
    metrics = {"accuracy": round(float(estimator.score(rows, answers)), 4), "about": about}
    publish(estimator, COMPILED, version=version, store=store, X=rows, golden=rows[::30], metrics=metrics, check=False)
