"""Run by the Python of any scikit-learn: fits every estimator it has, and writes each with its own answers.

``python fit_everything.py DIRECTORY`` writes NAME/1/model.joblib and NAME/1/golden.json, whose numbers must be met
exactly, and failed.json with the reasons of those that could not be fitted or answer nothing. Needs scikit-learn only.
"""

from __future__ import annotations

import inspect
import json
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
from sklearn import preprocessing
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils import all_estimators

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "score_samples")
ROWS = 12
X, Y = load_iris(return_X_y=True)
X, Y = X[::2], Y[::2]
NUMBERS, TARGET = (each[:80] for each in load_diabetes(return_X_y=True))
TEXTS = ["red green blue", "green blue", "red", "blue yellow red", "green", "red red yellow"] * 5
DICTS = [{"a": float(number), "b": float(number % 3)} for number in range(30)]
SHARES = np.abs(X) + 0.1
SPARSE_LABELS = np.column_stack([Y == 0, Y == 1, Y > 0]).astype(int)
SEVERAL = np.column_stack([TARGET, TARGET[::-1]])
# what is fitted, and the rows that are asked afterwards, in the order of the trials
TABLES = (
    (X, Y, X),
    (X, (Y > 0).astype(int), X),
    (NUMBERS, TARGET, NUMBERS),
    (SHARES, Y, SHARES),
    (X, SPARSE_LABELS, X),
    (NUMBERS, SEVERAL, NUMBERS),
    (NUMBERS[:, :1], TARGET, NUMBERS[:, :1]),
    (TEXTS, None, TEXTS),
    (DICTS, None, DICTS),
)
ARGUMENTS = {
    "base_estimator": DecisionTreeClassifier(max_depth=3),
    "dictionary": np.eye(4)[:3],
    "estimator": LogisticRegression(max_iter=1000),
    "estimators": [("a", LogisticRegression(max_iter=1000)), ("b", DecisionTreeClassifier(max_depth=3))],
    "param_distributions": {"C": [0.5, 1.0]},
    "param_grid": {"C": [0.5, 1.0]},
    "steps": [("scaler", preprocessing.StandardScaler()), ("model", LogisticRegression(max_iter=1000))],
    "transformer_list": [("scaler", preprocessing.StandardScaler()), ("components", PCA(2))],
    "transformers": [("scaler", preprocessing.StandardScaler(), [0, 1])],
}
OF_REGRESSORS = {
    "base_estimator": DecisionTreeRegressor(max_depth=3),
    "estimator": Ridge(),
    "estimators": [("a", Ridge()), ("b", DecisionTreeRegressor(max_depth=3))],
    "param_distributions": {"alpha": [0.5, 1.0]},
    "param_grid": {"alpha": [0.5, 1.0]},
}
SETTINGS: dict[str, dict[str, object]] = {
    "GaussianRandomProjection": {"n_components": 2},
    "SparseRandomProjection": {"n_components": 2},
    "SelfTrainingClassifier": {"base_estimator": ARGUMENTS["base_estimator"], "estimator": ARGUMENTS["base_estimator"]},
}
EXPERIMENTAL = ("enable_iterative_imputer", "enable_halving_search_cv", "enable_hist_gradient_boosting")


def make(kind: type, arguments: dict[str, object]) -> object:
    """Make an estimator with what it requires, and a fixed source of random numbers where it takes one."""
    taken = inspect.signature(kind).parameters
    required = {name: arguments[name] for name, each in taken.items() if each.default is inspect.Parameter.empty}
    chosen = {"random_state": 0, **SETTINGS.get(kind.__name__, {})}
    if "estimator" in taken:
        chosen.pop("base_estimator", None)  # its name before
    return kind(**{**required, **{name: value for name, value in chosen.items() if name in taken}})


def answer(model: object, rows: object) -> dict[str, list[object]]:
    """Return what each method answers to these rows, as lists."""
    answers = {}
    for method in METHODS:
        if not hasattr(model, method):
            continue
        try:
            found = getattr(model, method)(rows)
        except Exception:  # noqa: BLE001  (it has the method, and cannot use it)
            continue
        found = found.toarray() if hasattr(found, "toarray") else found
        if not isinstance(found, np.ndarray) or found.ndim > 2 or not np.isfinite(found.astype(float)).all():
            continue
        answers[method] = found.tolist()
    return answers


def fit(kind: type) -> tuple[object, list[object], dict[str, list[object]]]:
    """Return an estimator that is fitted, the rows and its answers; raises the last exception of the trials."""
    last: Exception = ValueError("it answers nothing")
    for arguments in ({**ARGUMENTS}, {**ARGUMENTS, **OF_REGRESSORS}):
        for inputs, targets, rows in TABLES:
            try:
                model = make(kind, arguments).fit(inputs, targets)
            except Exception as error:  # noqa: BLE001  (it takes something else)
                last = error
                continue
            asked = rows[:ROWS]
            answers = answer(model, asked)
            if answers:
                return model, np.asarray(asked).tolist() if isinstance(asked, np.ndarray) else list(asked), answers
    raise last


def main(directory: Path) -> None:
    """Fit and write all."""
    warnings.simplefilter("ignore")
    for name in EXPERIMENTAL:
        try:
            __import__(f"sklearn.experimental.{name}")
        except ImportError:
            continue
    failed = {}
    for name, kind in all_estimators():
        if inspect.isabstract(kind):
            continue
        try:
            model, rows, answers = fit(kind)
        except Exception as error:  # noqa: BLE001  (the report names it)
            failed[name] = f"{type(error).__name__}: {error}"[:200]
            continue
        place = directory / name / "1"
        place.mkdir(parents=True)
        joblib.dump(model, place / "model.joblib")
        golden = {"instances": rows, "expected": answers, "rtol": 0, "atol": 0}
        (place / "golden.json").write_text(json.dumps(golden))
    (directory / "failed.json").write_text(json.dumps(failed, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
