"""Made-up rows for models with unknown input values: values are tried until the model answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans

from serving.domain.errors import InvalidInput
from serving.host.signature_of_estimator import examine_estimator
from serving.rows.parsing import rows_to_batch
from tests.unit.host.candidates import ROWS


class TakesOnly(BaseEstimator):
    """Refuses rows that do not have the values that `what` names."""

    def __init__(self, what: str) -> None:
        self.what = what

    def fit(self, X: Any, y: Any = None) -> TakesOnly:
        self.n_features_in_ = X.shape[1]
        if isinstance(X, pd.DataFrame):
            self.feature_names_in_ = np.array(X.columns, dtype=object)
        return self

    def predict(self, X: Any) -> Any:
        first = X.iloc[:, 0] if isinstance(X, pd.DataFrame) else pd.Series(X[:, 0])
        if self.what == "dates":
            return pd.to_datetime(first, format="ISO8601").dt.year.to_numpy()
        if self.what == "numbers as text":
            return first.map({"1": 1, "2": 2, "30": 30}).astype(int).to_numpy()
        if self.what == "whole numbers" and (first % 1 != 0).any():
            raise ValueError("whole numbers only")
        if self.what == "years of life" and not first.between(18, 99).all():
            raise ValueError("nobody is that old")
        return np.ones(len(X))


@pytest.mark.parametrize("what", ["dates", "numbers as text", "whole numbers", "years of life"])
def test_values_of_a_table_are_guessed_until_the_model_answers(what: str) -> None:
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0]})
    model = examine_estimator(TakesOnly(what).fit(table))
    assert len(model.answer("predict", model.make_rows(8)).list_rows()) == 8


@pytest.mark.parametrize("what", ["whole numbers", "years of life"])
def test_values_of_an_array_are_guessed_until_the_model_answers(what: str) -> None:
    model = examine_estimator(TakesOnly(what).fit(ROWS))
    assert len(model.answer("predict", model.make_rows(8)).list_rows()) == 8


def test_guessed_rows_differ() -> None:
    columns = examine_estimator(TakesOnly("whole numbers").fit(ROWS)).make_rows(4).columns
    assert columns is not None
    assert len(set(columns[0])) > 1
    assert columns[0] != columns[1]


def test_a_model_that_takes_only_float32_gets_float32() -> None:
    rows = ROWS.astype(np.float32)
    model = examine_estimator(KMeans(3, n_init=1, random_state=0).fit(rows))
    batch = rows_to_batch(model.signature, rows.tolist())
    for method in ("predict", "transform"):
        np.testing.assert_array_equal(model.answer(method, batch).tensors[0], getattr(model.estimator, method)(rows))
    with pytest.raises(InvalidInput, match=r"the model takes numbers within float32, got 1e\+39"):
        model.answer("predict", rows_to_batch(model.signature, [[1e39] * rows.shape[1]]))
