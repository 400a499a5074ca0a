"""The models that are served: the usual small ones, and a forest of about a gigabyte."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.memory import MB
from serving import publish

X, y = load_breast_cancer(return_X_y=True)
ROW = [float(value) for value in X[0]]
BODY = json.dumps({"instances": [ROW]}).encode()
GOLDEN_ROWS = 5
FITTED_TREES = 8
LARGE_ROWS, LARGE_FEATURES = 100_000, 20
LOGISTIC, FOREST, BOOSTING = "logistic pipeline", "random forest, 100 trees", "histogram gradient boosting"
NEIGHBOURS, MIXED = "nearest neighbours", "mixed columns"
MIXED_NUMBERS = 6


def logistic(strength: float = 1.0) -> Any:
    """Return a fitted pipeline of a scaler and a logistic regression; another `strength` makes another model."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength)).fit(X, y)


def mixed_frame() -> pd.DataFrame:
    """Return the same data as people have it: some numbers beside categories as strings."""
    frame = pd.DataFrame(X[:, :MIXED_NUMBERS], columns=[f"n{number}" for number in range(MIXED_NUMBERS)])
    frame["size"] = pd.cut(X[:, 20], 4, labels=["small", "medium", "large", "huge"]).astype(str)
    frame["site"] = [f"site {number % 7}" for number in range(len(X))]
    return frame.astype({"size": object, "site": object})


def _mixed() -> Any:
    frame = mixed_frame()
    columns = make_column_transformer(
        (StandardScaler(), list(frame.columns[:MIXED_NUMBERS])),
        (OneHotEncoder(handle_unknown="ignore"), ["size", "site"]),
    )
    return make_pipeline(columns, LogisticRegression()).fit(frame, y)


KINDS: Mapping[str, Callable[[], Any]] = {
    LOGISTIC: logistic,
    FOREST: lambda: RandomForestClassifier(100, random_state=0).fit(X, y),
    BOOSTING: lambda: HistGradientBoostingClassifier(random_state=0).fit(X, y),
    NEIGHBOURS: lambda: KNeighborsClassifier().fit(X, y),
    MIXED: _mixed,
}


def training_rows(kind: str) -> Any:
    """Return what a model of this kind was fitted on."""
    return mixed_frame() if kind == MIXED else X


def body_of(kind: str, count: int) -> bytes:
    """Return a JSON body of so many rows, as arrays: the first rows of the data, then the same slightly changed."""
    rows = training_rows(kind).values.tolist() if kind == MIXED else X.tolist()
    random = np.random.default_rng(0)
    chosen = [rows[number % len(rows)] for number in range(count)]
    for row in range(len(rows), count):
        factor = float(1 + random.normal() / 100)
        chosen[row] = [cell if isinstance(cell, str) else float(f"{cell * factor:.6g}") for cell in chosen[row]]
    return json.dumps({"instances": chosen}).encode()


def publish_logistic(store: Path, model: str, version: int, *, strength: float = 1.0) -> Path:
    """Publish a small model with manifest and golden examples, as `serving.publish` does, and return its directory."""
    store.mkdir(parents=True, exist_ok=True)
    estimator = logistic(strength + version / 100)
    return publish(estimator, model, version=str(version), store=store, X=X, golden=X[:GOLDEN_ROWS], check=False).path


def large_forests(cache: Path, megabytes: int, versions: int) -> list[Path]:
    """Return published version directories of a random forest of so many megabytes; made once, kept in `cache`.

    A few trees are grown on noise until every leaf is pure and copied until the file is large enough: to a loader that
    is the same work as as many trees grown one by one. Each version has one tree less than the one before, so that no
    bytes of it are known already.
    """
    store = cache / f"large-{megabytes}mb"
    paths = [store / "large" / str(version) for version in range(1, versions + 1)]
    if all(path.is_dir() for path in paths):
        return paths
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir(parents=True)
    forest, rows = _grow(megabytes)
    for path in paths:
        aside = publish(
            forest, "large", version=path.name, store=store, X=rows, golden=rows[:GOLDEN_ROWS], check=False
        ).path
        size = (aside / "model.joblib").stat().st_size
        if not 0.9 * megabytes * 1e6 <= size <= 1.1 * megabytes * 1e6:
            raise RuntimeError(f"the forest has {size} bytes")
        forest.estimators_.pop()
        forest.n_estimators -= 1
    return paths


def _grow(megabytes: int) -> tuple[RandomForestClassifier, Any]:
    random = np.random.default_rng(0)
    noise, answers = random.normal(size=(LARGE_ROWS, LARGE_FEATURES)), random.integers(0, 2, LARGE_ROWS)
    forest = RandomForestClassifier(FITTED_TREES, max_features=1, n_jobs=-1, random_state=0).fit(noise, answers)
    state = [tree.tree_.__getstate__() for tree in forest.estimators_]
    bytes_per_tree = sum(one["nodes"].nbytes + one["values"].nbytes for one in state) / FITTED_TREES
    wanted = round(megabytes * 1e6 / bytes_per_tree)
    fitted = list(forest.estimators_)
    forest.estimators_ = [copy.deepcopy(fitted[number % FITTED_TREES]) for number in range(wanted)]
    forest.n_estimators = wanted
    forest.n_jobs = None
    return forest, noise[:1000]


def size_mb(version: Path) -> float:
    """Return the size of a published model file."""
    return (version / "model.joblib").stat().st_size / MB
