"""Tables with dates and durations, and the dtypes that a user's own code gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from serving.compiling.compile_model import why_not_compilable
from serving.domain.errors import InvalidInput
from serving.domain.signature import Dtype
from serving.host.signature_of_estimator import examine_estimator
from serving.rows.parsing import rows_to_batch
from serving.rows.tables import Table, table_to_batch
from tests.unit.host.test_estimator_model import assert_answers_like

DATES = pd.DataFrame({"when": pd.to_datetime(["2024-01-15T10:30:00", "2023-07-01"] * 4, format="ISO8601")})
TEXTS = [["2024-01-15T10:30:00"], ["2023-07-01T00:00:00"]]


class ReportsDtypes(BaseEstimator):
    """Answers with the dtypes of its columns."""

    def fit(self, X: Any, y: Any = None) -> ReportsDtypes:
        self.feature_names_in_ = np.array(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: Any) -> Any:
        return np.array([" ".join(map(str, X.dtypes))] * len(X), dtype=object)


def compute_hours(table: pd.DataFrame) -> Any:
    return table["when"].dt.hour.to_frame()


def test_an_encoder_of_dates_gets_dates() -> None:
    model = examine_estimator(
        make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(DATES, [0, 1] * 4)
    )
    assert model.signature.features[0].dtype is Dtype.STRING
    assert_answers_like(model, DATES[:2], TEXTS)
    assert_answers_like(model, DATES[:1], [["2024-01-15T11:30:00+01:00"]])
    with pytest.raises(InvalidInput, match=r"'when' takes a date such as 2024-01-15T10:30:00 \(ISO 8601\)"):
        model.answer("predict", rows_to_batch(model.signature, [["yesterday"]]))
    assert "is dates or durations" in str(why_not_compilable(model))


def test_an_encoder_of_durations_gets_durations() -> None:
    table = pd.DataFrame({"took": pd.to_timedelta(["1D", "36h"] * 4)})
    model = examine_estimator(make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table, [0, 1] * 4))
    assert_answers_like(model, table[:2], [["P1D"], ["PT36H"]])


def test_dates_are_guessed_for_own_code_that_takes_dates() -> None:
    model = examine_estimator(
        make_pipeline(FunctionTransformer(compute_hours), LogisticRegression()).fit(DATES, [0, 1] * 4)
    )
    assert_answers_like(model, DATES[:2], TEXTS)


@pytest.mark.parametrize(
    ("rows", "dtypes"),
    [
        ([[1, 2.5]], "int64 float64"),
        ([[1, 2], [3, 4]], "int64 int64"),
        ([[1, 2], [3.0, 4]], "float64 int64"),
        ([[True, 2]], "bool int64"),
        ([{"b": 1, "a": 2.5}], "float64 int64"),
        ([[2**53 + 1, 2**64 - 1]], "int64 uint64"),
    ],
)
def test_own_code_gets_the_dtypes_that_were_sent(rows: list[Any], dtypes: str) -> None:
    model = examine_estimator(ReportsDtypes().fit(pd.DataFrame({"a": [1], "b": [2]})))
    assert model.signature.is_typed
    assert model.answer("predict", rows_to_batch(model.signature, rows)).list_rows() == [dtypes] * len(rows)


def test_own_code_gets_the_dtypes_of_arrays() -> None:
    model = examine_estimator(ReportsDtypes().fit(pd.DataFrame({"a": [1], "b": [2]})))
    columns = (np.array([1, 2], np.int8), np.array([0.5, 1], np.float32))
    batch = table_to_batch(model.signature, Table(2, columns=columns))
    assert model.answer("predict", batch).list_rows() == ["int8 float32"] * 2
    batch = table_to_batch(model.signature, Table(2, matrix=np.array([[1, 2], [3, 4]], np.uint16)))
    assert model.answer("predict", batch).list_rows() == ["uint16 uint16"] * 2


def test_estimators_of_scikit_learn_need_no_exact_dtypes() -> None:
    table = pd.DataFrame({"a": [1.0, 2], "b": [2.0, 1]})
    assert not examine_estimator(LogisticRegression().fit(table, [0, 1])).signature.is_typed
