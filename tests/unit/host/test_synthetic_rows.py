"""Made-up rows: always the same rows, values like those of the training, nulls where they are allowed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.naive_bayes import CategoricalNB, GaussianNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeRegressor

from serving.domain.signature import Container, Dtype, Feature, Signature
from serving.host.input_columns import InputColumn, learn_columns, make_known_texts
from serving.host.signature_of_estimator import examine_estimator
from serving.host.synthetic_rows import make_batch
from serving.rows.batch import Batch

RANDOM = np.random.default_rng(4)
ROWS = RANDOM.uniform(1000, 2000, size=(200, 2))
TARGET = ROWS.sum(axis=1) + 0.0


def make_signature(*features: Feature) -> Signature:
    return Signature(features=features, methods=("predict",))


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), LinearRegression()),
        make_pipeline(MinMaxScaler(), LinearRegression()),
        make_pipeline(RobustScaler(), LinearRegression()),
        make_pipeline(MaxAbsScaler(), LinearRegression()),
        make_pipeline(QuantileTransformer(n_quantiles=50), LinearRegression()),
        make_pipeline(KBinsDiscretizer(quantile_method="averaged_inverted_cdf"), LinearRegression()),
        make_pipeline(SimpleImputer(), LinearRegression()),
        KNeighborsRegressor(),
        RandomForestRegressor(5),
        GradientBoostingRegressor(n_estimators=5),
        DecisionTreeRegressor(),
        make_pipeline(GaussianNB()),
    ],
    ids=str,
)
def test_numbers_are_in_the_range_of_the_training_rows(model: Any) -> None:
    target = (TARGET > 3000).astype(float)
    batch = examine_estimator(model.fit(ROWS, target)).make_rows(50)
    assert batch.matrix is not None
    assert batch.matrix.min() >= 100
    assert batch.matrix.max() <= 2400
    assert len(np.unique(batch.matrix)) > 1


def test_whole_training_rows_are_used_where_the_estimator_keeps_them() -> None:
    batch = examine_estimator(KNeighborsRegressor().fit(ROWS, TARGET)).make_rows(5)
    assert batch.matrix is not None
    assert batch.matrix.tolist() == ROWS[:5].tolist()


def test_unknown_numbers_are_positive_and_not_near_zero() -> None:
    batch = examine_estimator(LinearRegression().fit(ROWS, TARGET)).make_rows(100)
    assert batch.matrix is not None
    assert 0.2 < batch.matrix.min() < batch.matrix.max() < 1.8


def test_category_numbers_stay_within_their_counts() -> None:
    model = examine_estimator(CategoricalNB().fit(RANDOM.integers(0, 4, (50, 2)), np.arange(50) % 2))
    batch = model.make_rows(9)
    assert batch.matrix is not None
    assert set(batch.matrix.ravel().tolist()) <= {0.0, 1.0, 2.0, 3.0}


def test_large_integers_are_those_from_training() -> None:
    ids = np.array([[2**53 + 1, 3], [2**53 + 3, 4]] * 5)
    model = examine_estimator(make_pipeline(OneHotEncoder(), LinearRegression()).fit(ids, np.arange(10.0)))
    columns = model.make_rows(4).columns
    assert columns is not None
    assert np.asarray(columns[0]).tolist() == [2**53 + 1, 2**53 + 3] * 2
    assert len(model.answer("predict", model.make_rows(4)).tensors[0]) == 4


def test_the_same_rows_are_made_each_time() -> None:
    model = examine_estimator(make_pipeline(StandardScaler(), LinearRegression()).fit(ROWS, TARGET))
    first, second = model.make_rows(7), model.make_rows(7)
    assert first.matrix is not None
    assert second.matrix is not None
    assert first.matrix.tolist() == second.matrix.tolist()


def columns_of(batch: Batch) -> list[list[Any]]:
    return [list(column) for column in batch.columns or ()]


def test_strings_and_bools_are_values_from_training() -> None:
    contract = make_signature(
        Feature(name="city", dtype=Dtype.STRING),
        Feature(name="flag", dtype=Dtype.BOOL),
        Feature(name="thing", dtype=Dtype.ANY),
        Feature(name="word", dtype=Dtype.STRING),
    )
    known = [
        InputColumn(values=["Rome", "Oslo"]),
        InputColumn(),
        InputColumn(values=["x", 1]),
        InputColumn(values=[1.0]),
    ]
    city, flag, thing, word = columns_of(make_batch(contract, known, 3))
    assert city == ["Rome", "Oslo", "Rome"]
    assert flag == [False, True, False]
    assert thing == ["x", 1, "x"]
    assert word == ["a", "b", "c"]  # declared a string, although the values were numbers


def test_nulls_are_in_the_first_row_and_in_some_of_the_others() -> None:
    contract = make_signature(Feature(name="a"), Feature(name="b"), Feature(name="c"))
    batch = make_batch(contract, [InputColumn(), InputColumn(), InputColumn()], 6, [True, False, True])
    assert batch.matrix is not None
    missing = np.isnan(batch.matrix)
    assert missing[0].tolist() == [True, False, True]
    assert not missing[:, 1].any()
    assert 0 < missing[1:].sum() < 10
    mixed = make_signature(
        Feature(name="a"), Feature(name="b", dtype=Dtype.BOOL), Feature(name="c", dtype=Dtype.STRING)
    )
    size, flag, word = columns_of(make_batch(mixed, [InputColumn(), InputColumn(), InputColumn()], 2, [True] * 3))
    assert np.isnan(size[0])
    assert (flag[0], word[0]) == (None, None)


def test_texts_are_made_of_known_words() -> None:
    vectorizer = TfidfVectorizer().fit(["good morning", "bad evening"])
    words = {word for text in make_known_texts(vectorizer) for word in text.split()}
    assert words == {"good", "morning", "bad", "evening"}
    assert make_known_texts(TfidfVectorizer()) != []
    contract = Signature(
        features=(Feature(name="text", dtype=Dtype.STRING),), methods=("predict",), container=Container.TEXTS
    )
    [texts] = columns_of(make_batch(contract, learn_columns(vectorizer, None, 1), 3))
    assert len(texts) == 3
