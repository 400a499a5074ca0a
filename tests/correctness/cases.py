"""What is asked: every estimator and option, tables, boosters, categories, ONNX and other files, as subjects.

Fits are taken from where they are already: tests/sound has every estimator with every option, tests/unit/host those of
XGBoost and LightGBM. A subject is fitted when it comes out of a generator, and written by its `write`.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import skops.io
from sklearn.impute import SimpleImputer
from sklearn.utils import all_estimators

from tests.correctness.asking import Methods, methods_of
from tests.correctness.material import Material, material_like
from tests.sound.estimators import Fitted, of_kind

# options that change how rows are answered, not only how a model is found
OPTIONS = frozenset((
    "activation", "add_indicator", "affinity", "algorithm", "alternate_sign", "analyzer", "binary",
    "break_ties", "centering", "chain_method", "clip", "covariance_type", "criterion",
    "decision_function_shape", "degree", "dense_output", "drop", "dtype", "effective_metric_", "encode",
    "encoded_missing_value", "estimator", "ensemble", "extrapolation", "fill_value", "final_estimator",
    "fit_intercept", "flatten_transform", "func", "handle_missing", "handle_unknown", "imputation_order",
    "include_bias", "init", "initial_strategy", "interaction_only", "inverse_func", "kernel",
    "keep_empty_features", "knots", "link", "loss", "max_categories", "method", "metric", "min_frequency",
    "missing_values", "mode", "multi_class", "multi_strategy", "n_components", "norm", "novelty", "order",
    "out_of_bounds", "outlier_label", "output_distribution", "p", "passthrough", "positive", "power", "priors",
    "probability", "remainder", "response_method", "scaling", "shrink_threshold", "shrinkage", "smooth",
    "smooth_idf", "sparse", "sparse_output", "split_sign", "stack_method", "standardize", "strategy", "subset",
    "sublinear_tf", "target_type", "threshold", "transform_algorithm", "transform", "unit_variance",
    "unknown_value", "use_idf", "voting", "weights", "whiten", "with_centering", "with_mean", "with_scaling",
    "with_std", "zero_order_info", "stop_words", "kernel_params", "features", "categorical_features",
    "categories",
))  # fmt: skip
# data that changes what a row is, beside options
DATA = (
    "text labels", "two classes", "bools", "several outputs", "floats", "float32", "a table", "a table of categories",
    "objects", "integers as objects", "bools as objects", "texts", "gaps", "one feature",
)  # fmt: skip
# take no rows of a table, or answer each with a million numbers, and so have no place here
NO_ROWS = frozenset(
    {
        "FeatureHasher",
        "HashingVectorizer",
        "LabelBinarizer",
        "LabelEncoder",
        "MultiLabelBinarizer",
        "PatchExtractor",
        "TSNE",
    }
)
# keep nothing of what they were fitted on, so that only numbers can be asked of them
BLIND = frozenset({"DummyClassifier", "DummyRegressor", "FunctionTransformer", "MissingIndicator"})
NO_NUMBERS = ("objects", "texts", "of categories", "gaps")
FORMS = ("joblib", "pickle 2", "pickle 3", "pickle 4", "pickle 5", "skops")


@dataclass(frozen=True)
class Subject:
    """One model: what sort it is, its name, how it is written into a version directory, its own methods, its rows.

    `may_lack` are methods that need not be offered.
    """

    kind: str
    name: str
    write: Callable[[Path], None]
    itself: Methods
    material: Material
    may_lack: frozenset[str] = frozenset()


def write_as(form: str, estimator: Any, directory: Path) -> None:
    """Write an estimator into a directory, in one of `FORMS`."""
    directory.mkdir(parents=True)
    if form == "joblib":
        joblib.dump(estimator, directory / "model.joblib")
    elif form == "skops":
        skops.io.dump(estimator, directory / "model.skops")
    else:
        (directory / "model.pkl").write_bytes(pickle.dumps(estimator, protocol=int(form[-1])))


def subject(kind: str, fitted: Fitted, form: str = "joblib") -> Subject | None:
    """Make a subject of a fitted estimator; None where its rows are none that can be sent."""
    rows = fitted.rows
    if isinstance(fitted.estimator, SimpleImputer) and isinstance(rows, np.ndarray) and rows.dtype == object:
        rows = np.where(rows == np.array(None), np.nan, rows)  # null is what the imputer fills: NaN, not None
    material = material_like(rows)
    if material is None or not methods_of(fitted.estimator):
        return None
    kept = pickle.dumps(fitted.estimator)  # the lists fit one estimator again and again
    own = pickle.loads(kept)
    label = fitted.label if form == "joblib" else f"{fitted.label}, {form}"
    itself = _with_its_floats(methods_of(pickle.loads(kept)), material.rows)
    return Subject(kind, label, lambda directory: write_as(form, own, directory), itself, material)


def _with_its_floats(itself: Methods, rows: Any) -> Methods:
    """Return methods that are asked in float32, all of them, where one of them takes nothing else."""
    if not isinstance(rows, np.ndarray) or rows.dtype != np.float64:
        return itself
    if not any(_wants_float32(method, rows) for method in itself.values()):
        return itself
    return {name: lambda rows, method=method: method(rows.astype(np.float32)) for name, method in itself.items()}


def _wants_float32(method: Callable[[Any], Any], rows: Any) -> bool:
    with warnings.catch_warnings(action="ignore"):
        try:
            method(rows)
        except (ValueError, TypeError) as error:
            return "dtype mismatch" in str(error) or "same dtype" in str(error)
        except Exception:  # noqa: BLE001  (another reason)
            return False
    return False


def estimators(share: int = 0, shares: int = 1) -> Iterator[Subject]:
    """Yield every estimator of scikit-learn, with every option in `OPTIONS`, in all forms by turns."""
    turn, place = count(), count()
    for name, kind in all_estimators():
        if name in NO_ROWS:
            continue
        group = kind.__module__.split(".")[1]
        choice = _choice(name)
        for fitted in of_kind(name, kind, lambda label, mine=choice: mine(label) and next(place) % shares == share):
            if name in BLIND and fitted.label.endswith(NO_NUMBERS):
                continue
            form = FORMS[next(turn) % len(FORMS)]
            found = subject(group, fitted, form) or subject(group, fitted)
            if found is not None:
                yield found


def _choice(name: str) -> Callable[[str], bool]:
    """Return what chooses labels of one class: each once, and of options those that change how rows are answered."""
    seen: set[str] = set()

    def is_wanted(label: str) -> bool:
        if label in seen:
            return False
        seen.add(label)
        if label.startswith(f"{name}("):
            return label[len(name) + 1 :].split("=", 1)[0] in OPTIONS
        return "#" in label or label.removeprefix(f"{name} on ") in DATA

    return is_wanted


def compositions() -> Iterator[Subject]:
    """Yield pipelines, searches, wrappers, texts, functions and kernels; not those that only their files tell apart."""
    from tests.sound.composed import compositions as made

    out = ("splitter ", "scorer ", "random numbers", "dtype ", "memory")
    turn = count()
    seen: set[str] = set()
    for fitted in made():
        if fitted.label in seen or fitted.label.startswith(out) or fitted.label.endswith((" matrix", " array")):
            continue
        seen.add(fitted.label)
        found = subject("compositions", fitted, FORMS[next(turn) % 5])
        if found is not None:
            yield found


def boosters(share: int = 0, shares: int = 1, only: Collection[str] = ()) -> Iterator[Subject]:
    """Yield XGBoost's and LightGBM's models with every objective and option, in their forms by turns."""
    from tests.unit.host.booster_cases import list_cases, make_queries

    rows = make_queries()
    edges = tuple(rows[place : place + 1] for place in range(150, 190))
    names = None
    for place, (name, fit) in enumerate(list_cases().items()):
        if place % shares == share and (not only or name in only):
            yield from _booster(
                "XGBoost" if name.lower().startswith("xgb") else "LightGBM",
                name,
                fit,
                place // shares,
                Material(rows[:500], edges, names),
            )


def _booster(kind: str, name: str, fit: Callable[[], Any], turn: int, material: Material) -> Iterator[Subject]:
    import tempfile

    import xgboost

    from tests.unit.host.booster_cases import save_forms

    with warnings.catch_warnings(action="ignore"):
        try:
            model = fit()
        except Exception:  # noqa: BLE001  (the case list says which cannot be fitted)
            return
        directory = Path(tempfile.mkdtemp())
        made = list(save_forms(name, model, directory))
    form = made[turn % len(made)]
    fitted_names = getattr(model, "feature_names_in_", None)
    if fitted_names is None and isinstance(model, xgboost.Booster):
        fitted_names = model.feature_names
    answers: Any = dict(form.answers)
    answers |= _further(answers, form.path)
    if fitted_names is not None and form.path.suffix != ".txt":
        answers = {method: _named(answer, list(fitted_names)) for method, answer in answers.items()}

    def write(version: Path) -> None:
        version.mkdir(parents=True)
        suffix = form.path.suffix
        target = {".json": "model.json", ".txt": "model.txt"}.get(suffix, f"model{suffix}")
        (version / target).write_bytes(form.path.read_bytes())

    yield Subject(kind, form.name, write, answers, material, frozenset(answers) - frozenset(form.answers))


def _further(answers: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return what the server calls methods and a booster has as options: both shares of two classes, raw scores."""
    import lightgbm
    import scipy.special
    import xgboost

    if "predict_proba" in answers:
        return {}
    predict = answers["predict"]

    def shares(rows: Any) -> Any:
        if isinstance(loaded, xgboost.Booster) and _objective(loaded) == "multi:softmax":
            margins = loaded.predict(xgboost.DMatrix(rows, nthread=1), output_margin=True)
            return scipy.special.softmax(margins, axis=1)
        second = np.asarray(predict(rows))
        return second if second.ndim == 2 else np.column_stack([1 - second, second])

    loaded = joblib.load(path) if path.suffix == ".joblib" else None
    loaded = lightgbm.Booster(model_file=path) if path.suffix == ".txt" else loaded
    loaded = xgboost.Booster(model_file=path) if path.suffix in (".ubj", ".json") else loaded
    if not isinstance(loaded, lightgbm.Booster):
        return {"predict_proba": shares}
    return {
        "predict_proba": shares,
        "decision_function": lambda rows: loaded.predict(rows, raw_score=True, num_threads=1),
    }


def _objective(booster: Any) -> str:
    return str(json.loads(booster.save_config())["learner"]["objective"]["name"])


def _named(answer: Callable[[Any], Any], names: list[str]) -> Callable[[Any], Any]:
    import pandas as pd

    return lambda rows: answer(pd.DataFrame(rows, columns=names) if isinstance(rows, np.ndarray) else rows)


def categories(share: int = 0, shares: int = 1, only: Collection[str] = ()) -> Iterator[Subject]:
    """Yield boosters that were fitted on pandas categories of every kind, in the forms they are saved in by turns."""
    from tests.unit.host.category_cases import list_models, make_tables

    place = 0
    for kind, table in make_tables().items():
        for name, fit in list_models(table):
            place += 1
            if place % shares == share and (not only or f"{kind}, {name}" in only):
                material = material_like(table)
                assert material is not None
                yield from _booster("categories", f"{kind}, {name}", fit, place // shares, material)
