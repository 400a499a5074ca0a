"""Models of XGBoost and LightGBM with every objective and option, in every saved form, with the library's answers.

`list_cases` lists the models, `save_forms` saves one in all forms, `compare_with_library` compares the answers. The
tests run a few of them; ``python -m tests.unit.host.booster_cases`` runs all.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import xgboost
from numpy.typing import NDArray

from serving.compiling.convert import NotCompilable, convert_estimator
from serving.compiling.prove import prove_graphs
from serving.compiling.thresholds import find_thresholds
from serving.domain.compiled_form import Guard
from serving.domain.errors import InvalidInput, ServingError
from serving.domain.signature import Container
from serving.domain.version import Format
from serving.host.estimator_model import EstimatorModel
from serving.host.loading import Trust, load_model
from serving.plane.graph import GraphSession
from serving.rows.apply_guard import GuardCheck
from serving.rows.batch import Batch

TOLERANCE = 1e-5  # engine.compile_tolerance
RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(300, 4))
ROWS[::7, 1] = np.nan
ROWS[:, 2] = RANDOM.integers(0, 6, 300)
NUMBERS = np.nan_to_num(ROWS[:, 0] * 2 + ROWS[:, 1]) + RANDOM.normal(size=300) / 5
POSITIVE = np.exp(NUMBERS / 3)
TWO = (NUMBERS > 0).astype(int)
THREE = np.digitize(NUMBERS, [-1, 1])
SEVERAL = np.column_stack([NUMBERS, -NUMBERS, NUMBERS**2])
NAMES = ["age, years", "price per m2", "k\u00f6ln", "x<y"]
PLAIN_NAMES = ["age years", "price/m2", "k\u00f6ln", "naive_bayes"]
GROUPS = np.arange(300) // 10

Fit = Callable[[], Any]
Answer = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class SavedForm:
    """One saved model: its path, its format, and the answers of its library for each method."""

    name: str
    path: Path
    format: Format
    answers: dict[str, Answer]


# --- models -----------------------------------------------------------------------------------------------------------


def _xgboost_trainer(
    y: Any, rounds: int = 6, rows: Any = ROWS, label: dict[str, Any] | None = None, **params: Any
) -> Fit:
    def fit() -> Any:
        data = xgboost.DMatrix(rows, y, **(label or {}), feature_types=params.pop("feature_types", None))
        for name in ("label_lower_bound", "label_upper_bound"):
            if name in params:
                data.set_info(**{name: params.pop(name)})
        return xgboost.train({"max_depth": 3, "nthread": 1, **params}, data, rounds)

    return fit


def _stopped_xgboost_trainer(objective: str, y: Any, **options: Any) -> Fit:
    def fit() -> Any:
        parts = [xgboost.DMatrix(ROWS[half], y[half]) for half in (slice(200), slice(200, 300))]
        params = {"objective": objective, "eta": 0.9, "nthread": 1, **options}
        booster = xgboost.train(
            params, parts[0], 60, evals=[(parts[1], "v")], early_stopping_rounds=2, verbose_eval=False
        )
        assert booster.best_iteration < booster.num_boosted_rounds() - 1
        return booster

    return fit


def _train_xgboost_with_saved_best() -> Any:
    parts = [xgboost.DMatrix(ROWS[half], TWO[half]) for half in (slice(200), slice(200, 300))]
    callback = xgboost.callback.EarlyStopping(2, save_best=True)
    params = {"objective": "binary:logistic", "eta": 0.9}
    return xgboost.train(params, parts[0], 60, evals=[(parts[1], "v")], callbacks=[callback], verbose_eval=False)


def _xgboost_fitter(name: str, y: Any, X: Any = ROWS, fit: dict[str, Any] | None = None, **params: Any) -> Fit:
    params = {"n_estimators": 6, "max_depth": 3, "n_jobs": 1, **params}
    if params.get("early_stopping_rounds"):
        half = slice(200, 300)
        more = {"eval_set": [(X[half], y[half])], "verbose": False}
        return lambda: getattr(xgboost, name)(**params).fit(X[:200], y[:200], **more)
    return lambda: getattr(xgboost, name)(**params).fit(X, y, **(fit or {}))


def _custom_objective(y: Any, predicted: Any) -> tuple[Any, Any]:
    """Return the gradient and the Hessian of a squared error: a custom objective."""
    y = y if isinstance(y, np.ndarray) else y.get_label()
    return 2 * (predicted - y), np.full(len(y), 2.0)


def _train_xgboost_with_custom_objective() -> Any:
    return xgboost.train(
        {"max_depth": 3},
        xgboost.DMatrix(ROWS, NUMBERS),
        5,
        obj=lambda predicted, data: _custom_objective(data, predicted),
    )


def _lightgbm_fitter(name: str, y: Any, X: Any = ROWS, fit: dict[str, Any] | None = None, **params: Any) -> Fit:
    params = {"n_estimators": 6, "num_leaves": 7, "min_child_samples": 5, "verbose": -1, "n_jobs": 1, **params}
    return lambda: getattr(lightgbm, name)(**params).fit(X, y, **(fit or {}))


def _lightgbm_trainer(y: Any, rounds: int = 6, rows: Any = ROWS, **params: Any) -> Fit:
    params = {"num_leaves": 7, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1, **params}
    return lambda: lightgbm.train(params, lightgbm.Dataset(rows, y), rounds)


def _stopped_lightgbm_trainer(objective: str, y: Any, **params: Any) -> Fit:
    def fit() -> Any:
        parts = [lightgbm.Dataset(ROWS[half], y[half]) for half in (slice(200), slice(200, 300))]
        stop = lightgbm.early_stopping(2, verbose=False)
        params_ = {"objective": objective, "learning_rate": 0.9, "verbose": -1, "min_data_in_leaf": 5, **params}
        booster = lightgbm.train(params_, parts[0], 60, valid_sets=[parts[1]], callbacks=[stop])
        assert booster.best_iteration > 0
        return booster

    return fit


def _stopped_lightgbm_fitter(name: str, y: Any) -> Fit:
    more = {"eval_X": ROWS[200:], "eval_y": y[200:], "callbacks": [lightgbm.early_stopping(2, verbose=False)]}
    return lambda: getattr(lightgbm, name)(n_estimators=60, learning_rate=0.9, verbose=-1).fit(
        ROWS[:200], y[:200], **more
    )


def _make_linear_rows() -> NDArray[np.float64]:
    return np.nan_to_num(ROWS)


def _make_named_table(names: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=names)


def list_cases() -> dict[str, Fit]:
    """Return functions that fit a model, by the name of the model."""
    words = np.array(["no", "yes"])[TWO]
    grades = np.array(["good", "bad", "ugly"])[THREE]
    rank = {"qid": GROUPS}
    groups = {"group": [10] * 30}
    stop = {"n_estimators": 60, "learning_rate": 0.9, "early_stopping_rounds": 2}
    three, low, high = {"num_class": 3}, POSITIVE, np.where(TWO, POSITIVE, np.inf)
    found: dict[str, Fit] = {}
    for objective, y in {
        "reg:squarederror": NUMBERS, "reg:squaredlogerror": POSITIVE, "reg:absoluteerror": NUMBERS,
        "reg:pseudohubererror": NUMBERS, "reg:logistic": TWO, "binary:logistic": TWO, "binary:logitraw": TWO,
        "binary:hinge": TWO, "count:poisson": THREE, "reg:gamma": POSITIVE, "reg:tweedie": POSITIVE,
        "survival:cox": POSITIVE,
    }.items():  # fmt: skip
        found[f"xgboost {objective}"] = _xgboost_trainer(y, objective=objective)
        if objective.startswith(("reg:", "count:", "survival:")):
            found[f"XGBRegressor {objective}"] = _xgboost_fitter("XGBRegressor", y, objective=objective)
        else:
            found[f"XGBClassifier {objective}"] = _xgboost_fitter("XGBClassifier", y, objective=objective)
    for distribution in ("normal", "logistic", "extreme"):
        found[f"xgboost survival:aft {distribution}"] = _xgboost_trainer(
            None, objective="survival:aft", aft_loss_distribution=distribution,
            label_lower_bound=low, label_upper_bound=high,
        )  # fmt: skip
    for alphas in (0.3, [0.1, 0.5, 0.9]):
        found[f"xgboost quantiles {alphas}"] = _xgboost_trainer(
            NUMBERS, objective="reg:quantileerror", quantile_alpha=alphas
        )
        found[f"XGBRegressor quantiles {alphas}"] = _xgboost_fitter(
            "XGBRegressor", NUMBERS, objective="reg:quantileerror", quantile_alpha=alphas
        )
        found[f"xgboost expectiles {alphas}"] = _xgboost_trainer(
            NUMBERS, objective="reg:expectileerror", expectile_alpha=alphas
        )
    for objective in ("multi:softprob", "multi:softmax"):
        found[f"xgboost {objective}"] = _xgboost_trainer(THREE, objective=objective, **three)
        found[f"xgboost {objective} stopped"] = _stopped_xgboost_trainer(objective, THREE, **three)
        found[f"XGBClassifier {objective}"] = _xgboost_fitter("XGBClassifier", THREE, objective=objective)
    for objective in ("rank:ndcg", "rank:map", "rank:pairwise"):
        found[f"XGBRanker {objective}"] = _xgboost_fitter("XGBRanker", TWO, fit=rank, objective=objective)
    for booster, options in {
        "dart": {"booster": "dart", "rate_drop": 0.4, "one_drop": 1},
        "gblinear": {"booster": "gblinear"},
        "parallel": {"num_parallel_tree": 3, "subsample": 0.5},
        "lossguide": {"grow_policy": "lossguide", "max_leaves": 9, "tree_method": "hist"},
        "exact": {"tree_method": "exact"},
        "base_score": {"base_score": 0.3},
        "no depth": {"max_depth": 0, "grow_policy": "lossguide", "max_leaves": 1},
        "deep": {"max_depth": 12, "min_child_weight": 0},
    }.items():
        rows = _make_linear_rows() if booster == "gblinear" else ROWS
        found[f"xgboost {booster}"] = _xgboost_trainer(NUMBERS, rows=rows, **options)
        found[f"xgboost {booster} two classes"] = _xgboost_trainer(
            TWO, rows=rows, objective="binary:logistic", **options
        )
        found[f"XGBRegressor {booster}"] = _xgboost_fitter("XGBRegressor", NUMBERS, rows, **options)
        found[f"XGBClassifier {booster} three"] = _xgboost_fitter("XGBClassifier", THREE, rows, **options)
    found |= {
        "XGBClassifier stopped": _xgboost_fitter("XGBClassifier", TWO, **stop),
        "XGBRegressor stopped": _xgboost_fitter("XGBRegressor", NUMBERS, **stop),
        "XGBRegressor dart stopped": _xgboost_fitter(
            "XGBRegressor", NUMBERS, **stop, booster="dart"
        ),
        "XGBClassifier parallel stopped": _xgboost_fitter(
            "XGBClassifier", THREE, **stop, num_parallel_tree=2
        ),
        "xgboost stopped": _stopped_xgboost_trainer("binary:logistic", TWO),
        "xgboost stopped numbers": _stopped_xgboost_trainer("reg:squarederror", NUMBERS),
        "xgboost stopped dart": _stopped_xgboost_trainer("binary:logistic", TWO, booster="dart", rate_drop=0.2),
        "xgboost saved best": _train_xgboost_with_saved_best,
        "xgboost slice": lambda: _xgboost_trainer(TWO, 10, objective="binary:logistic")()[2:7],
        "xgboost slice by two": lambda: _xgboost_trainer(NUMBERS, 10)()[1:9:2],
        "xgboost no rounds": _xgboost_trainer(NUMBERS, 0),
        "xgboost base margin": _xgboost_trainer(TWO, objective="binary:logistic", label={"base_margin": NUMBERS}),
        "xgboost own objective": _train_xgboost_with_custom_objective,
        "xgboost outputs": _xgboost_trainer(SEVERAL),
        "xgboost outputs at once": _xgboost_trainer(SEVERAL, multi_strategy="multi_output_tree", tree_method="hist"),
        "xgboost labels": _xgboost_trainer(SEVERAL > 0, objective="binary:logistic"),
        "xgboost names": lambda: xgboost.train({}, xgboost.DMatrix(_make_named_table(PLAIN_NAMES), NUMBERS), 5),
        "xgboost float32": lambda: xgboost.train({}, xgboost.DMatrix(ROWS.astype(np.float32), NUMBERS), 5),
        "XGBRegressor outputs": _xgboost_fitter("XGBRegressor", SEVERAL),
        "XGBRegressor outputs at once": _xgboost_fitter(
            "XGBRegressor", SEVERAL, multi_strategy="multi_output_tree", tree_method="hist"
        ),
        "XGBClassifier labels": _xgboost_fitter("XGBClassifier", (SEVERAL > 0).astype(int)),
        "XGBClassifier two labels": _xgboost_fitter("XGBClassifier", (SEVERAL[:, :2] > 0).astype(int)),
        "XGBClassifier labels at once": _xgboost_fitter(
            "XGBClassifier", (SEVERAL > 0).astype(int), multi_strategy="multi_output_tree", tree_method="hist"
        ),
        "XGBRegressor missing 0": _xgboost_fitter("XGBRegressor", NUMBERS, np.nan_to_num(ROWS), missing=0.0),
        "XGBRegressor missing -999": _xgboost_fitter(
            "XGBRegressor", NUMBERS, np.nan_to_num(ROWS, nan=-999.0), missing=-999.0
        ),
        "XGBClassifier names": _xgboost_fitter("XGBClassifier", TWO, _make_named_table(PLAIN_NAMES)),
        "XGBClassifier weighted": _xgboost_fitter("XGBClassifier", TWO, scale_pos_weight=3.0),
        "XGBRFClassifier": _xgboost_fitter("XGBRFClassifier", TWO),
        "XGBRFClassifier three": _xgboost_fitter("XGBRFClassifier", THREE),
        "XGBRFRegressor": _xgboost_fitter("XGBRFRegressor", NUMBERS),
        "XGBRegressor monotone": _xgboost_fitter("XGBRegressor", NUMBERS, monotone_constraints=(1, 0, 0, 0)),
        "XGBRegressor constant": _xgboost_fitter("XGBRegressor", np.ones(300)),
    }  # fmt: skip
    for objective, y in {
        "regression": NUMBERS, "regression_l1": NUMBERS, "huber": NUMBERS, "fair": NUMBERS, "quantile": NUMBERS,
        "mape": POSITIVE, "poisson": POSITIVE, "gamma": POSITIVE, "tweedie": POSITIVE, "cross_entropy": TWO,
        "cross_entropy_lambda": TWO, "binary": TWO,
    }.items():  # fmt: skip
        found[f"lightgbm {objective}"] = _lightgbm_trainer(y, objective=objective)
        found[f"lightgbm {objective} stopped"] = _stopped_lightgbm_trainer(objective, y)
        found[f"LGBM {objective}"] = _lightgbm_fitter(
            "LGBMClassifier" if objective == "binary" else "LGBMRegressor", y, objective=objective
        )
    for objective in ("multiclass", "multiclassova"):
        found[f"lightgbm {objective}"] = _lightgbm_trainer(THREE, objective=objective, **three)
        found[f"LGBMClassifier {objective}"] = _lightgbm_fitter("LGBMClassifier", THREE, objective=objective)
        found[f"LGBMClassifier {objective} words"] = _lightgbm_fitter("LGBMClassifier", grades, objective=objective)
    for objective in ("lambdarank", "rank_xendcg"):
        found[f"LGBMRanker {objective}"] = _lightgbm_fitter("LGBMRanker", THREE, fit=groups, objective=objective)
    for booster, options in {
        "dart": {"boosting": "dart", "drop_rate": 0.5},
        "rf": {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1},
        "goss": {"data_sample_strategy": "goss"},
        "linear": {"linear_tree": True},
        "extra": {"extra_trees": True},
        "sqrt": {"reg_sqrt": True},
        "zero": {"zero_as_missing": True},
        "no missing": {"use_missing": False},
        "no average": {"boost_from_average": False},
        "few bins": {"max_bin": 7},
        "sigmoid": {"sigmoid": 2.5},
    }.items():
        found[f"lightgbm {booster}"] = _lightgbm_trainer(NUMBERS, objective="regression", **options)
        found[f"lightgbm {booster} two classes"] = _lightgbm_trainer(TWO, objective="binary", **options)
        found[f"lightgbm {booster} three"] = _lightgbm_trainer(THREE, objective="multiclassova", **three, **options)
        found[f"LGBMClassifier {booster}"] = _lightgbm_fitter("LGBMClassifier", TWO, **_to_sklearn_options(options))
        found[f"LGBMRegressor {booster}"] = _lightgbm_fitter("LGBMRegressor", NUMBERS, **_to_sklearn_options(options))
    found |= {
        "LGBMClassifier stopped": _stopped_lightgbm_fitter("LGBMClassifier", TWO),
        "LGBMClassifier three stopped": _stopped_lightgbm_fitter("LGBMClassifier", THREE),
        "LGBMRegressor stopped": _stopped_lightgbm_fitter("LGBMRegressor", NUMBERS),
        "LGBMClassifier words": _lightgbm_fitter("LGBMClassifier", words),
        "LGBMClassifier bools": _lightgbm_fitter("LGBMClassifier", TWO.astype(bool)),
        "LGBMClassifier labels 3 7": _lightgbm_fitter("LGBMClassifier", np.where(TWO, 7, 3)),
        "LGBMClassifier weighted": _lightgbm_fitter("LGBMClassifier", words, class_weight="balanced"),
        "LGBMClassifier unbalanced": _lightgbm_fitter("LGBMClassifier", TWO, is_unbalance=True),
        "LGBMClassifier early exit": _lightgbm_fitter("LGBMClassifier", TWO, n_estimators=60, pred_early_stop=True),
        "LGBMRegressor own objective": _lightgbm_fitter("LGBMRegressor", NUMBERS, objective=_custom_objective),
        "LGBMRegressor part of the rounds": _lightgbm_fitter("LGBMRegressor", NUMBERS, num_iteration_predict=3),
        "LGBMRegressor raw": _lightgbm_fitter("LGBMRegressor", POSITIVE, objective="poisson", predict_raw_score=True),
        "LGBMRegressor codes": _lightgbm_fitter(
            "LGBMRegressor", NUMBERS, fit={"categorical_feature": [2]}, min_data_per_group=5
        ),
        "LGBMClassifier codes": _lightgbm_fitter(
            "LGBMClassifier", TWO, fit={"categorical_feature": [2]}, min_data_per_group=5
        ),
        "LGBMClassifier names": _lightgbm_fitter("LGBMClassifier", TWO, _make_named_table(PLAIN_NAMES)),
        "LGBMRegressor constant": _lightgbm_fitter("LGBMRegressor", np.ones(300)),
        "lightgbm no rounds": _lightgbm_trainer(NUMBERS, 0),
        "lightgbm one round": _lightgbm_trainer(NUMBERS, 1),
        "lightgbm monotone": _lightgbm_trainer(NUMBERS, monotone_constraints=[1, 0, 0, 0]),
    }
    return found


def _to_sklearn_options(options: dict[str, Any]) -> dict[str, Any]:
    names = {"boosting": "boosting_type", "bagging_fraction": "subsample", "bagging_freq": "subsample_freq"}
    return {names.get(name, name): value for name, value in options.items()}


# --- forms ------------------------------------------------------------------------------------------------------------


def save_forms(name: str, model: Any, directory: Path) -> Iterator[SavedForm]:
    """Save a fitted model in every form, and yield each with the answers of its library, which reads it again."""
    booster = model
    if hasattr(model, "get_booster"):
        booster = model.get_booster()
    elif hasattr(model, "booster_"):
        booster = model.booster_
    if booster is not model:
        path = directory / "estimator.joblib"
        joblib.dump(model, path)
        yield SavedForm(f"{name}, joblib", path, Format.JOBLIB, _list_answers(joblib.load(path)))
    path = directory / "booster.joblib"
    joblib.dump(booster, path)
    yield SavedForm(f"{name}, joblib of the booster", path, Format.JOBLIB, _list_answers(joblib.load(path)))
    if isinstance(booster, lightgbm.Booster):
        yield from _save_text_forms(name, booster, directory)
        return
    for suffix in ("ubj", "json"):
        path = directory / f"booster.{suffix}"
        booster.save_model(path)
        yield SavedForm(
            f"{name}, {suffix} of the booster", path, Format.XGBOOST, _list_answers(xgboost.Booster(model_file=path))
        )
        if booster is not model:
            path = directory / f"estimator.{suffix}"
            model.save_model(path)
            loaded = type(model)(n_jobs=1)
            loaded.load_model(path)
            yield SavedForm(f"{name}, {suffix}", path, Format.XGBOOST, _list_answers(loaded))


def _save_text_forms(name: str, booster: Any, directory: Path) -> Iterator[SavedForm]:
    for more, options in {
        "": {},
        " of all rounds": {"num_iteration": -1},
        " of 3 rounds": {"num_iteration": 3},
    }.items():
        path = directory / f"booster{len(more)}.txt"
        booster.save_model(path, **options)
        loaded = lightgbm.Booster(model_file=path)
        yield SavedForm(f"{name}, text{more}", path, Format.LIGHTGBM, _list_answers(loaded))


def _list_answers(loaded: Any) -> dict[str, Answer]:
    if isinstance(loaded, xgboost.Booster):
        return {"predict": lambda X: loaded.predict(_make_dmatrix(loaded, X))}
    if isinstance(loaded, lightgbm.Booster):
        return {"predict": lambda X: loaded.predict(X, num_threads=1)}
    methods = ("predict", "predict_proba", "decision_function")
    return {method: getattr(loaded, method) for method in methods if hasattr(loaded, method)}


def _make_dmatrix(booster: Any, X: Any) -> Any:
    types = booster.feature_types if isinstance(X, np.ndarray) else None
    return xgboost.DMatrix(X, feature_types=types, enable_categorical=True, nthread=1)


# --- rows -------------------------------------------------------------------------------------------------------------


def make_queries() -> NDArray[np.float64]:
    """Return 600 rows: training rows, whole numbers, missing values, tiny and large numbers, and both zeros."""
    random = np.random.default_rng(1)
    rows = random.normal(size=(600, 4))
    rows[:, 2] = random.integers(-1, 8, 600)
    rows[:100] = ROWS[:100]
    rows[100:150] = random.integers(-3, 4, (50, 4))
    odd = np.array([np.nan, 0.0, -0.0, 1e-40, -1e-40, 1e-35, -1e-35, 5e-324, 1e-300, 1e30, -1e30, 0.5, 2.5, -999.0])
    where = random.random((450, 4)) < 0.3
    rows[150:] = np.where(where, random.choice(odd, (450, 4)), rows[150:])
    return rows


def move_to_thresholds(model: EstimatorModel, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rows with numbers equal to, and next to, the thresholds of the trees, as float64 and as float32."""
    random = np.random.default_rng(2)
    made = np.nan_to_num(rows.copy())
    try:
        found = find_thresholds(model.estimator, rows.shape[1])
    except ValueError:  # XGBoost lists neither trees of several outputs nor linear ones
        return made
    for column, splits in found.items():
        chosen = random.choice(splits, len(rows))
        single = chosen.astype(np.float32)
        ways = [chosen, np.nextafter(chosen, np.inf), np.nextafter(chosen, -np.inf), single.astype(float)]
        ways.append(np.nextafter(single, np.float32(-np.inf)).astype(float))
        made[:, column] = np.choose(random.integers(0, len(ways), len(rows)), ways)
    return made


# --- comparing --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class FormComparison:
    """The result for one form: the number of compared answers, whether it was compiled, and the differences."""

    compared: int = 0
    is_compiled: bool = False
    reason: str = ""
    differences: tuple[str, ...] = ()


def compare_with_library(form: SavedForm, *, is_proven: bool = False) -> FormComparison:
    """Load a form as the server does and compare all its answers; with `is_proven`, those of its compiled form too."""
    with warnings.catch_warnings(action="ignore"):
        model = load_model(str(form.path), form.format, Trust(is_restricted=False))
        assert isinstance(model, EstimatorModel)
        outcome = FormComparison()
        rows = make_queries()
        tables = [rows, move_to_thresholds(model, rows)]
        infinite = rows[:40].copy()
        infinite[::3, 0], infinite[1::3, 1] = np.inf, -np.inf
        found: list[str] = []
        for matrix in (*tables, infinite):
            found += _compare_hosted(model, form, matrix, outcome)
        if is_proven:
            found += _compare_compiled(model, tables, outcome)
        outcome.differences = tuple(found)
        return outcome


def _compare_hosted(
    model: EstimatorModel, form: SavedForm, matrix: NDArray[np.float64], outcome: FormComparison
) -> Iterator[str]:
    data: Any = matrix
    if model.signature.container is Container.DATAFRAME:
        data = pd.DataFrame(matrix, columns=[feature.name for feature in model.signature.features])
    if "predict" not in model.signature.methods:
        yield f"{form.name}: offers no predict"
    for method in model.signature.methods:
        try:
            wanted = form.answers[method](data) if method in form.answers else None
        except (ValueError, lightgbm.basic.LightGBMError) as error:  # XGBoost's own is a ValueError
            wanted = error
        try:
            given: Any = model.answer(method, Batch(len(matrix), matrix=np.ascontiguousarray(matrix))).tensors[0]
        except InvalidInput as error:
            given = error
        if method == "predict_proba" and wanted is None:
            yield from _compare_shares(form, model, given, data)
        elif isinstance(wanted, Exception) or isinstance(given, Exception):
            if not (isinstance(wanted, Exception) and isinstance(given, Exception)):
                yield f"{form.name}: {method}: {given!r:.200} for {wanted!r:.200}"
        elif wanted is not None:
            outcome.compared += len(matrix)
            if not _are_same(np.asarray(wanted), np.asarray(given)):
                yield f"{form.name}: {method}: {np.asarray(given)[:3]} for {np.asarray(wanted)[:3]}"


def _compare_shares(form: SavedForm, model: EstimatorModel, given: Any, data: Any) -> Iterator[str]:
    """Compare ``predict_proba`` of a booster, which has only ``predict``, with the numbers of ``predict``."""
    del model
    if isinstance(given, Exception):
        return
    wanted = np.asarray(form.answers["predict"](data))
    if wanted.ndim == 1 and given.shape[1] == 2:
        given = given[:, 1]
    elif wanted.ndim == 1:
        given = given.argmax(axis=1).astype(wanted.dtype)
    if not _are_same(wanted, given):
        yield f"{form.name}: predict_proba: {given[:3]} for {wanted[:3]}"


def _are_same(wanted: NDArray[Any], given: NDArray[Any]) -> bool:
    if wanted.shape != given.shape:
        return False
    if wanted.dtype.kind in "OUT" or given.dtype.kind in "OUT":
        return bool(wanted.tolist() == given.tolist())
    return wanted.dtype == given.dtype and wanted.tobytes() == given.tobytes()


def _compare_compiled(
    model: EstimatorModel, tables: Sequence[NDArray[np.float64]], outcome: FormComparison
) -> Iterator[str]:
    try:
        graph = convert_estimator(model)
        compilation = prove_graphs(model, [graph], TOLERANCE, [])
    except NotCompilable as error:
        outcome.reason = str(error)
        return
    outcome.is_compiled = True
    session = GraphSession(graph)
    check = GuardCheck(compilation.guard or Guard(), model.signature)
    for matrix in tables:
        inside = matrix[[_is_accepted(check, row) for row in matrix]]
        batch = Batch(len(inside), matrix=np.ascontiguousarray(inside))
        for method in model.signature.methods:
            wanted, given = (which.answer(method, batch).tensors[0] for which in (model, session))
            outcome.compared += len(inside)
            if not is_close(np.asarray(wanted), np.asarray(given)):
                yield f"{model.name}: compiled {method} differs"


def _is_accepted(check: GuardCheck, row: NDArray[np.float64]) -> bool:
    try:
        check.check(Batch(1, matrix=row.reshape(1, -1)))
    except ServingError:
        return False
    return True


def is_close(wanted: NDArray[Any], given: NDArray[Any]) -> bool:
    """Say whether a compiled form answers like its estimator: equal labels, numbers within the tolerance of a proof."""
    if wanted.dtype.kind != "f":
        return bool(wanted.tolist() == given.tolist())
    scale = np.maximum(np.abs(wanted), min(1.0, float(np.abs(wanted).max(initial=0.0)) or 1.0))
    is_same = (wanted == given) | (np.isnan(wanted) & np.isnan(given))
    return wanted.shape == given.shape and bool((is_same | (np.abs(wanted - given) <= TOLERANCE * scale)).all())


def compare_all(
    fits: Iterable[tuple[str, Fit]], compare_form: Callable[[SavedForm], tuple[int, str, list[str]]]
) -> int:
    """Fit models, compare every form of each, print the results, and return how many forms differ.

    `compare_form` returns the number of compared answers, a note on the form, and the differences.
    """
    differing = compared = count = 0
    for name, fit in fits:
        with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings(action="ignore"):
            try:
                model = fit()
            except Exception as error:  # noqa: BLE001
                print(f"{name}: CANNOT BE FITTED {type(error).__name__}: {error!s:.200}")
                continue
            for form in save_forms(name, model, Path(directory)):
                count += 1
                try:
                    answers, remark, differences = compare_form(form)
                except Exception as error:  # noqa: BLE001
                    answers, remark, differences = 0, "FAILED", [f"{type(error).__name__}: {error!s:.300}"]
                compared += answers
                differing += bool(differences)
                print(f"{form.name}: {remark}", flush=True)
                for difference in differences:
                    print("  DIFFERS", difference, flush=True)
    print(f"{count} forms, {compared} answers compared, {differing} forms differ")
    return differing


def is_selected(name: str, parts: Sequence[str]) -> bool:
    """Say whether a name contains one of `parts`, or `parts` is empty."""
    return not parts or any(part in name for part in parts)


def main(names: Sequence[str]) -> int:
    """Compare every form of every case whose name contains one of `names`, or of all; return how many differ."""

    def compare_form(form: SavedForm) -> tuple[int, str, list[str]]:
        outcome = compare_with_library(form, is_proven=True)
        return outcome.compared, "compiled" if outcome.is_compiled else outcome.reason[:160], outcome.differences

    return compare_all(((name, fit) for name, fit in list_cases().items() if is_selected(name, names)), compare_form)


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
