"""Boosters fitted on pandas categories: plain values are answered as the library answers the table."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.pipeline import make_pipeline

from serving.domain.errors import InvalidInput
from serving.domain.rows import rows_to_batch
from serving.domain.signature import Dtype
from serving.host.categories import categories_of
from serving.host.describe import examine
from serving.host.estimator import EstimatorModel

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


def lightgbm_model() -> Any:
    return lightgbm.LGBMClassifier(n_estimators=5, verbose=-1)


def xgboost_model(**options: Any) -> Any:
    return xgboost.XGBClassifier(n_estimators=5, enable_categorical=True, **options)


def reread(estimator: Any) -> Any:
    file = io.BytesIO()
    joblib.dump(estimator, file)
    return joblib.load(file)


MODELS: dict[str, Callable[[], Any]] = {
    "lightgbm": lightgbm_model,
    "xgboost": xgboost_model,
    "xgboost dart": lambda: xgboost_model(booster="dart"),
    "in a pipeline": lambda: make_pipeline(lightgbm_model()),
}


def scores(model: EstimatorModel, rows: list[Any]) -> Any:
    return model.answer("predict_proba", rows_to_batch(model.signature, rows)).tensors[0]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_plain_values_are_answered_as_the_library_answers_categories(make: Callable[[], Any]) -> None:
    fitted = reread(make().fit(TABLE, BOUGHT))
    model = examine(fitted)
    features = [(feature.dtype, feature.nullable) for feature in model.signature.features]
    assert features == [(Dtype.NUMBER, True), (Dtype.STRING, True), (Dtype.NUMBER, True), (Dtype.STRING, True)]
    head = TABLE.head(30)
    np.testing.assert_allclose(scores(model, head.to_numpy().tolist()), fitted.predict_proba(head))
    for row in ([0.5, "Voss", 3, "only"], [None, None, None, None], [0.5, "Oslo", None, "only"]):
        alone = pd.DataFrame([row], columns=TABLE.columns)
        for name in ("city", "level", "one"):
            alone[name] = pd.Categorical(alone[name], categories=TABLE[name].cat.categories)
        alone["age"] = alone["age"].astype(float)
        np.testing.assert_allclose(scores(model, [row]), fitted.predict_proba(alone))


def test_columns_of_numbers_alone_are_categories_too() -> None:
    table = TABLE[["age", "level"]]
    for fitted in (lightgbm_model().fit(table, BOUGHT), xgboost_model().fit(table, BOUGHT)):
        rows = table.head(9).to_numpy(dtype=float).tolist()
        np.testing.assert_allclose(scores(examine(fitted), rows), fitted.predict_proba(table.head(9)))


def test_other_values_are_missing_to_lightgbm_and_refused_for_xgboost() -> None:
    row, missing = [0.5, "Paris", 3, "only"], [0.5, None, 3, "only"]
    model = examine(lightgbm_model().fit(TABLE, BOUGHT))
    np.testing.assert_array_equal(scores(model, [row]), scores(model, [missing]))
    model = examine(xgboost_model().fit(TABLE, BOUGHT))
    with pytest.raises(InvalidInput, match=r"'Paris' is not among the categories of the training \('Bergen', 'Oslo', "):
        scores(model, [row])


def test_lightgbm_does_not_tell_where_ordered_categories_and_columns_of_numbers_are() -> None:
    table = TABLE.assign(level=pd.Categorical(TABLE["level"], ordered=True), zip=RANDOM.integers(1000, 2000, 200))
    assert categories_of(lightgbm_model().fit(table, BOUGHT)) == {}  # more values than columns
    table = table[["age", "level", "zip"]]
    assert categories_of(lightgbm_model().fit(table, BOUGHT, categorical_feature=["zip"])) == {}  # of another column
