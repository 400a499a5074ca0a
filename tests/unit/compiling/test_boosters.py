"""XGBoost and LightGBM as graphs, on rows made to fall on the edges of their splits."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import make_classification

from serving.compiling.convert import NotCompilable, convert_estimator
from serving.host.boosters import wrap_bare_booster
from serving.host.signature_of_estimator import examine_estimator
from serving.rows.batch import Batch
from tests.unit.compiling.test_convert import run_graph
from tests.unit.compiling.test_tree_table import make_edge_rows
from tests.unit.host import booster_cases, category_cases

xgboost = pytest.importorskip("xgboost")
lightgbm = pytest.importorskip("lightgbm")

RANDOM = np.random.default_rng(0)
ROWS, CLASSES = make_classification(400, 6, n_informative=5, n_redundant=0, n_classes=3, random_state=0)
NULLS = np.where(RANDOM.random(ROWS.shape) < 0.1, np.nan, ROWS)
VALUES = np.exp(ROWS[:, 0] / 2) + ROWS[:, 1] ** 2
QUIET: dict[str, Any] = {"n_jobs": 1, "n_estimators": 12, "random_state": 0}


def assert_alike(estimator: Any, *matrices: NDArray[Any], tolerance: float) -> None:
    """Check that all methods answer alike: equal labels, dtypes and shapes, numbers within `tolerance`."""
    model = examine_estimator(estimator, X=matrices[0])
    graph = convert_estimator(model)
    for method in model.signature.methods:
        for matrix in matrices:
            batch = Batch(len(matrix), matrix=np.ascontiguousarray(matrix, dtype=np.float64))
            its = model.answer(method, batch).tensors[0]
            mine = run_graph(graph, model, method, batch)[0]
            if isinstance(its, list):
                assert mine.tolist() == its
                continue
            assert (mine.dtype, mine.shape) == (its.dtype, its.shape)
            if mine.dtype.kind == "f":
                np.testing.assert_allclose(mine, its, rtol=tolerance, atol=tolerance)
            else:
                np.testing.assert_array_equal(mine, its)


def split_rows(frame: Any, feature: str, threshold: str) -> NDArray[np.float64]:
    frame = frame[frame[threshold].notna()]
    places = frame[feature].str.extract(r"(\d+)")[0].astype(int).to_numpy()
    return make_edge_rows(NULLS, places, frame[threshold].to_numpy(dtype=np.float64))


@pytest.mark.parametrize("labels", [CLASSES, (CLASSES > 0).astype(int)], ids=["three", "two"])
@pytest.mark.parametrize(
    "options",
    [{}, {"booster": "dart", "rate_drop": 0.3}, {"num_parallel_tree": 3, "subsample": 0.5}],
    ids=["trees", "dart", "parallel"],
)
def test_xgboost_classifiers_agree_on_the_edges(labels: Any, options: dict[str, Any]) -> None:
    estimator = xgboost.XGBClassifier(**QUIET, **options).fit(NULLS, labels)
    rows = split_rows(estimator.get_booster().trees_to_dataframe(), "Feature", "Split")
    assert_alike(estimator, NULLS, rows, tolerance=1e-6)


def test_xgboost_regressors_forests_and_early_stopping_answer_alike() -> None:
    estimator = xgboost.XGBRegressor(**QUIET).fit(NULLS, VALUES)
    rows = split_rows(estimator.get_booster().trees_to_dataframe(), "Feature", "Split")
    assert_alike(estimator, NULLS, rows, tolerance=0)  # sums of float32, bit by bit
    assert_alike(xgboost.XGBRFRegressor(**QUIET).fit(NULLS, VALUES), NULLS, tolerance=0)
    assert_alike(xgboost.XGBRegressor(objective="count:poisson", **QUIET).fit(NULLS, VALUES), NULLS, tolerance=1e-6)
    early = xgboost.XGBRegressor(n_estimators=200, n_jobs=1, early_stopping_rounds=2, learning_rate=0.9)
    early.fit(ROWS[:200], VALUES[:200], eval_set=[(ROWS[200:], -VALUES[200:])], verbose=False)
    assert early.best_iteration < early.get_booster().num_boosted_rounds() - 1
    assert_alike(early, ROWS, tolerance=0)


@pytest.mark.parametrize("labels", [CLASSES, np.where(CLASSES > 0, "yes", "no")], ids=["three", "two"])
@pytest.mark.parametrize("kind", ["gbdt", "rf"])
def test_lightgbm_classifiers_agree_on_the_edges(labels: Any, kind: str) -> None:
    options = {"subsample": 0.5, "subsample_freq": 1} if kind == "rf" else {}
    with warnings.catch_warnings(action="ignore"):
        estimator = lightgbm.LGBMClassifier(boosting_type=kind, verbose=-1, **QUIET, **options).fit(NULLS, labels)
        rows = split_rows(estimator.booster_.trees_to_dataframe(), "split_feature", "threshold")
        assert_alike(estimator, NULLS, rows, tolerance=1e-12)


def test_lightgbm_treats_tiny_numbers_and_unseen_null_as_zero() -> None:
    centered = np.round(ROWS, 1)
    with warnings.catch_warnings(action="ignore"):
        random_forest = lightgbm.LGBMRegressor(boosting_type="rf", subsample=0.5, subsample_freq=1, verbose=-1, **QUIET)
        assert_alike(random_forest.fit(ROWS, VALUES), ROWS, tolerance=1e-12)
        estimator = lightgbm.LGBMRegressor(verbose=-1, **QUIET).fit(centered, VALUES)
        tiny = float(np.float32(1e-35))
        odd = np.concatenate(
            [np.full((5, 6), value) for value in (np.nan, 0.0, -0.0, tiny, -tiny, 2 * tiny, -2 * tiny)]
        )
        mixed = np.where(RANDOM.random((2000, 6)) < 0.5, odd[RANDOM.integers(0, len(odd), 2000)], 1.0)
        assert_alike(estimator, centered, odd, mixed, NULLS, tolerance=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        "xgboost stopped", "xgboost multi:softprob stopped", "xgboost multi:softmax", "xgboost reg:tweedie",
        "lightgbm binary stopped", "lightgbm multiclassova", "lightgbm rf two classes", "lightgbm poisson",
    ],
)  # fmt: skip
def test_bare_boosters_answer_alike(name: str) -> None:
    with warnings.catch_warnings(action="ignore"):
        booster = wrap_bare_booster(booster_cases.list_cases()[name]())
        rows = booster_cases.make_queries()
        rows = np.where(np.abs(rows) < 1e20, rows, 1.5)
        model = examine_estimator(booster)
        assert_alike(booster, rows, booster_cases.move_to_thresholds(model, rows), tolerance=1e-6)


def test_lightgbm_categories_go_the_same_way() -> None:
    rows = NULLS.copy()
    rows[:, 0] = RANDOM.integers(0, 40, len(rows))
    labels = np.where(rows[:, 0].astype(int) * 7 % 5 < 2, 1, 0)
    with warnings.catch_warnings(action="ignore"):
        estimator = lightgbm.LGBMClassifier(verbose=-1, min_data_per_group=5, cat_smooth=1, **QUIET)
        estimator.fit(rows, labels, categorical_feature=[0])
        assert (estimator.booster_.trees_to_dataframe().decision_type == "==").any()
        odd = rows.copy()
        odd[:, 0] = RANDOM.integers(-3, 60, len(odd)) + RANDOM.choice([0.0, 0.5, 0.999, 1e12], len(odd))
        odd[::9, 0] = np.nan
        assert_alike(estimator, rows, odd, tolerance=1e-12)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("unused levels", "LGBMClassifier"), ("bools", "LGBMRegressor"), ("ordered and not", "LGBMRegressor"),
        ("with missing ones", "XGBClassifier one-hot"), ("many", "XGBRegressor"), ("several", "xgboost dart"),
    ],
)  # fmt: skip
def test_pandas_categories_go_the_same_way(tmp_path: Path, kind: str, name: str) -> None:
    table = category_cases.make_tables()[kind]
    form = next(booster_cases.save_forms(kind, dict(category_cases.list_models(table))[name](), tmp_path))
    compared, differences = category_cases.compare_with_library(form, table, is_proven=True)
    assert (differences, compared >= 1200) == ([], True)


def test_numbers_of_categories_stay_in_their_host() -> None:
    rows = np.column_stack([ROWS[:, 0], CLASSES])
    data = xgboost.DMatrix(rows, VALUES, feature_types=["q", "c"])
    model = examine_estimator(wrap_bare_booster(xgboost.train({"max_cat_to_onehot": 9}, data, 5)))
    with pytest.raises(NotCompilable, match="numbers of categories"):
        convert_estimator(model)


def test_unknown_settings_of_boosters_are_refused() -> None:
    linear = xgboost.XGBRegressor(booster="gblinear", n_jobs=1, n_estimators=2)
    several = xgboost.XGBRegressor(multi_strategy="multi_output_tree", **QUIET)
    for estimator, values in (
        (linear, VALUES),
        (several, np.column_stack([VALUES, VALUES])),
        (lightgbm.LGBMRegressor(zero_as_missing=True, verbose=-1, **QUIET), VALUES),
        (lightgbm.LGBMRegressor(linear_tree=True, verbose=-1, **QUIET), VALUES),
        (xgboost.XGBRegressor(missing=-1.0, **QUIET), VALUES),
    ):
        with warnings.catch_warnings(action="ignore"):
            estimator.fit(ROWS, values)
            model = examine_estimator(estimator, X=ROWS)
        with pytest.raises(NotCompilable, match="has no compiled form"):
            convert_estimator(model)


def test_boosters_count_against_the_limit_of_nodes() -> None:
    model = examine_estimator(xgboost.XGBRegressor(**QUIET).fit(ROWS, VALUES), X=ROWS)

    with pytest.raises(NotCompilable, match="nodes, at most 50 are compiled"):
        convert_estimator(model, max_nodes=50)
