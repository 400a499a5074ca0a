"""Boosters fitted on pandas categories: plain values get the answers that the library gives for the table."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from serving.domain.errors import InvalidInput
from serving.domain.signature import Dtype
from serving.domain.version import Format
from serving.host.estimator_model import EstimatorModel
from serving.host.loading import load_model
from serving.host.model import LoadRefused
from serving.host.pandas_categories import assign_columns
from serving.host.signature_of_estimator import examine_estimator
from serving.rows.batch import Batch
from serving.rows.parsing import rows_to_batch
from tests.unit.host import booster_cases, category_cases

RANDOM = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "age": RANDOM.normal(size=200),
        "city": pd.Categorical(RANDOM.choice(["Oslo", "Bergen", "Voss"], 200)),
        "level": pd.Categorical(RANDOM.choice([1, 3, 7], 200)),
        "one": pd.Categorical(["only"] * 200),
    }
)
BOUGHT = ((TABLE["city"] == "Voss") | (TABLE["level"] == 3)).astype(int)


def make_lightgbm_model() -> Any:
    return lightgbm.LGBMClassifier(n_estimators=5, verbose=-1)


def make_xgboost_model(**options: Any) -> Any:
    return xgboost.XGBClassifier(n_estimators=5, enable_categorical=True, **options)


def save_and_load(estimator: Any) -> Any:
    file = io.BytesIO()
    joblib.dump(estimator, file)
    return joblib.load(file)


def make_reordering_transformer() -> ColumnTransformer:
    """Return a transformer to a table with the columns in another order and with other names."""
    scaled = ("scaled", StandardScaler(), ["age"])
    return ColumnTransformer([("same", "passthrough", ["one", "level", "city"]), scaled]).set_output(transform="pandas")


MODELS: dict[str, Callable[[], Any]] = {
    "lightgbm": make_lightgbm_model,
    "xgboost": make_xgboost_model,
    "xgboost dart": lambda: make_xgboost_model(booster="dart"),
    "in a pipeline": lambda: make_pipeline(make_lightgbm_model()),
    "behind a column transformer": lambda: make_pipeline(make_reordering_transformer(), make_lightgbm_model()),
    "in a search": lambda: GridSearchCV(make_xgboost_model(), {"max_depth": [2]}, cv=2),
    "calibrated": lambda: CalibratedClassifierCV(make_lightgbm_model(), cv=2),
}


def compute_scores(model: EstimatorModel, rows: list[Any]) -> Any:
    return model.answer("predict_proba", rows_to_batch(model.signature, rows)).tensors[0]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_plain_values_are_answered_like_categories_by_the_library(make: Callable[[], Any]) -> None:
    fitted = save_and_load(make().fit(TABLE, BOUGHT))
    model = examine_estimator(fitted)
    features = [(feature.dtype, feature.nullable) for feature in model.signature.features]
    assert features == [(Dtype.NUMBER, True), (Dtype.STRING, True), (Dtype.NUMBER, True), (Dtype.STRING, True)]
    head = TABLE.head(30)
    np.testing.assert_allclose(compute_scores(model, head.to_numpy().tolist()), fitted.predict_proba(head))
    for row in ([0.5, "Voss", 3, "only"], [None, None, None, None], [0.5, "Oslo", None, "only"]):
        alone = pd.DataFrame([row], columns=TABLE.columns)
        for name in ("city", "level", "one"):
            alone[name] = pd.Categorical(alone[name], categories=TABLE[name].cat.categories)
        alone["age"] = alone["age"].astype(float)
        np.testing.assert_allclose(compute_scores(model, [row]), fitted.predict_proba(alone))


def test_columns_of_numbers_alone_are_categories_too() -> None:
    table = TABLE[["age", "level"]]
    for fitted in (make_lightgbm_model().fit(table, BOUGHT), make_xgboost_model().fit(table, BOUGHT)):
        rows = table.head(9).to_numpy(dtype=float).tolist()
        np.testing.assert_allclose(compute_scores(examine_estimator(fitted), rows), fitted.predict_proba(table.head(9)))


def test_unknown_values_are_missing_for_lightgbm_and_refused_for_xgboost() -> None:
    row, missing = [0.5, "Paris", 3, "only"], [0.5, None, 3, "only"]
    model = examine_estimator(make_lightgbm_model().fit(TABLE, BOUGHT))
    np.testing.assert_array_equal(compute_scores(model, [row]), compute_scores(model, [missing]))
    model = examine_estimator(make_xgboost_model().fit(TABLE, BOUGHT))
    with pytest.raises(InvalidInput, match=r"'Paris' is not among the categories of the training \('Bergen', 'Oslo', "):
        compute_scores(model, [row])


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("texts", "LGBMRegressor"), ("integers", "LGBMRegressor"), ("bools", "LGBMRegressor"),
        ("ordered and not", "LGBMRegressor"), ("texts", "XGBClassifier one-hot"), ("integers", "XGBClassifier one-hot"),
        ("unused levels", "xgboost dart"),
    ],
)  # fmt: skip
def test_every_saved_form_answers_plain_rows(tmp_path: Path, kind: str, name: str) -> None:
    table = category_cases.make_tables()[kind]
    fit = dict(category_cases.list_models(table))[name]
    for form in booster_cases.save_forms(name, fit(), tmp_path):
        compared, differences = category_cases.compare_with_library(form, table)
        assert (differences, compared > 500) == ([], True)


@pytest.mark.parametrize("listed", ["auto", ["zip"]])
@pytest.mark.parametrize("order", [["age", "level", "zip"], ["zip", "one", "level", "age"]])
def test_lightgbms_categories_are_found_where_no_other_column_can_hold_them(listed: Any, order: list[str]) -> None:
    table = TABLE.assign(level=pd.Categorical(TABLE["level"], ordered=True), zip=RANDOM.integers(1000, 2000, 200))
    table = table[order]
    with warnings.catch_warnings(action="ignore"):
        fitted = make_lightgbm_model().fit(table, BOUGHT, categorical_feature=listed)
    model = examine_estimator(fitted)
    rows = table.head(30).astype(object).to_numpy().tolist()
    np.testing.assert_array_equal(compute_scores(model, rows), fitted.predict_proba(table.head(30)))


@pytest.mark.parametrize(
    ("seen", "counts", "listed", "texts", "places"),
    [
        (["[0:2]", "[0:2]"], [3], [], True, []),  # both columns could hold the categories
        (["[0:1]", "[0:2]"], [3], [], True, [1]),  # a wrong column would require texts
        (["[0:1]", "[0:2]"], [3], [], False, []),  # a wrong column would take numbers for other categories
        (["[0:1]", "[0:9]"], [3], [], False, [0]),
        (["1:0", "[0:2]", "0:1"], [2, 3, 2], [0, 2], True, [0, 1, 2]),
        (["1:0", "[0:2]", "0:1"], [2, 2], [0, 2], False, [0, 2]),
        (["-1:1:0", "none", "[-1:2]"], [2, 1], [0], True, [0, 1]),
        (["5:7", "[0:2]"], [3], [0], True, [1]),  # categorical_feature named another column
        (["5:7", "[0:3]"], [3], [0], True, []),
    ],
)
def test_lightgbm_lists_categories_in_the_order_of_columns(
    seen: list[str], counts: list[int], listed: list[int], texts: bool, places: list[int]
) -> None:
    values: list[Any] = [pd.Index([str(n) if texts else n + 5 for n in range(count)]) for count in counts]
    assert assign_columns(values, seen, set(listed)) == places


def test_models_that_lost_their_categories_are_refused_with_the_reason(tmp_path: Path) -> None:
    ordered = TABLE.assign(level=pd.Categorical(TABLE["level"], ordered=True), flag=BOUGHT)[["level", "flag", "age"]]
    make_lightgbm_model().fit(ordered, BOUGHT).booster_.save_model(tmp_path / "ordered")
    make_xgboost_model().fit(TABLE.assign(city=pd.Categorical(["K\u00f6ln", "Ulm"] * 100)), BOUGHT).save_model(
        tmp_path / "x.ubj"
    )
    booster = xgboost.train({}, xgboost.DMatrix(TABLE, BOUGHT, enable_categorical=True), 5)
    model = json.loads(bytes(booster.save_raw("json")))
    del model["learner"]["gradient_booster"]["model"]["cats"]
    (tmp_path / "old").write_text(json.dumps(model | {"version": [2, 1, 4]}))
    for name, kind, reason in (
        ("ordered", Format.LIGHTGBM, "does not tell which columns its pandas categories belong to"),
        ("x.ubj", Format.XGBOOST, "cuts off categories that are not plain ASCII"),
        ("old", Format.XGBOOST, "kept no categories for the categorical columns"),
    ):
        with pytest.raises(LoadRefused, match=f"{reason}.*: train it again"):
            load_model(str(tmp_path / name), kind)


@pytest.mark.filterwarnings("ignore:.*scikit-learn")
def test_lost_categories_are_noticed_inside_other_estimators(tmp_path: Path) -> None:
    fitted = make_xgboost_model().fit(TABLE, BOUGHT)
    model = json.loads(bytes(fitted.get_booster().save_raw("json")))
    del model["learner"]["gradient_booster"]["model"]["cats"]
    fitted.load_model(bytearray(json.dumps(model).encode()))
    search = GridSearchCV(make_pipeline(fitted), {})
    search.best_estimator_ = make_pipeline(fitted)
    joblib.dump(search, tmp_path / "blob")
    with pytest.raises(LoadRefused, match="kept no categories"):
        load_model(str(tmp_path / "blob"), Format.JOBLIB)


@pytest.mark.parametrize("make", [make_lightgbm_model, make_xgboost_model])
def test_unfitted_estimators_are_refused_with_that_reason(tmp_path: Path, make: Callable[[], Any]) -> None:
    joblib.dump(make(), tmp_path / "blob")
    with pytest.raises(LoadRefused, match="is not fitted"):
        load_model(str(tmp_path / "blob"), Format.JOBLIB)


def test_positions_of_categories_in_an_array_are_passed_unchanged(tmp_path: Path) -> None:
    rows = np.column_stack([TABLE["age"], TABLE["level"].cat.codes.astype(float)])
    data = xgboost.DMatrix(rows, BOUGHT, feature_types=["q", "c"])
    booster = xgboost.train({"max_cat_to_onehot": 9}, data, 5)
    booster.save_model(tmp_path / "m.json")
    model: Any = load_model(str(tmp_path / "m.json"), Format.XGBOOST)
    assert {feature.dtype for feature in model.signature.features} == {Dtype.NUMBER}
    np.testing.assert_array_equal(model.answer("predict", Batch(200, rows)).tensors[0], booster.predict(data))
