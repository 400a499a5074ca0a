"""Run by the Python of another environment: trains models, and writes each with its own answers beside it.

``python trained_elsewhere.py DIRECTORY`` writes NAME.joblib, and NAME.json with rows and what the estimator itself
answers, for each of `MODELS`; and constant-N.joblib, which answer N to rows of two numbers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import joblib
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

MODELS = {
    "forest": (RandomForestClassifier(20, random_state=0), load_iris),
    "numbers": (RandomForestRegressor(20, random_state=0), load_diabetes),
    "boosted": (GradientBoostingClassifier(n_estimators=20, random_state=0), load_iris),
    "histogram": (HistGradientBoostingClassifier(max_iter=20, random_state=0), load_iris),
    "pipeline": (make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), load_iris),
    "vectors": (SVC(probability=True, random_state=0), load_iris),
}
CONSTANTS = 12


def train_mixed(directory: Path) -> None:
    """Write a pipeline of named columns of texts and numbers."""
    import pandas as pd

    rows = [{"colour": colour, "size": size} for colour in ("red", "green", "blue") for size in (0.5, 1.5, 2.5, 3.5)]
    frame = pd.DataFrame(rows)
    columns = make_column_transformer((OneHotEncoder(), ["colour"]), (StandardScaler(), ["size"]))
    model = make_pipeline(columns, RandomForestClassifier(10, random_state=0)).fit(frame, np.arange(len(rows)) % 3)
    write(directory, "mixed", model, rows, frame)


def write(directory: Path, name: str, model: object, rows: list[object], inputs: object) -> None:
    """Write a model and its answers."""
    joblib.dump(model, directory / f"{name}.joblib")
    answers = {"predict": model.predict(inputs).tolist()}
    if hasattr(model, "predict_proba"):
        answers["predict_proba"] = model.predict_proba(inputs).tolist()
    (directory / f"{name}.json").write_text(json.dumps({"instances": rows, "expected": answers}))


def main(directory: Path) -> None:
    """Train everything."""
    for name, (model, load) in MODELS.items():
        rows, labels = load(return_X_y=True)
        some = rows[::7]
        write(directory, name, model.fit(rows, labels), some.tolist(), some)
    train_mixed(directory)
    for number in range(1, CONSTANTS + 1):
        dummy = DummyRegressor(strategy="constant", constant=float(number))
        joblib.dump(dummy.fit(np.zeros((2, 2)), np.zeros(2)), directory / f"constant-{number}.joblib")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
