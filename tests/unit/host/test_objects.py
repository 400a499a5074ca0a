"""Models that take objects, and columns that a model drops, which clients need not send."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import VotingClassifier
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from serving.domain.errors import InvalidInput
from serving.domain.signature import Container
from serving.host.signature_of_estimator import examine_estimator
from serving.rows.parsing import rows_to_batch
from serving.rows.tables import Table, table_to_batch

OBJECTS = [
    {"city": "Paris", "size": 2.0},
    {"city": "Rome", "size": 1},
    {"tags": ["a", "b"]},
    {"new": True, "size": 3},
] * 3
TABLE = pd.DataFrame(
    {"id": [f"row {place}" for place in range(12)], "size": np.arange(12.0), "city": ["Paris", "Rome"] * 6}
)
LABELS = [0, 1] * 6
USED = ColumnTransformer([("n", StandardScaler(), ["size"]), ("c", OneHotEncoder(), ["city"])])


@pytest.mark.parametrize("vectorizer", [DictVectorizer(), FeatureHasher(16)], ids=lambda each: type(each).__name__)
def test_a_model_of_objects_answers_like_its_pipeline(vectorizer: Any) -> None:
    objects = [each for each in OBJECTS if isinstance(vectorizer, DictVectorizer) or "tags" not in each]
    pipeline = make_pipeline(vectorizer, LogisticRegression()).fit(objects, LABELS[: len(objects)])
    model = examine_estimator(pipeline)
    assert model.signature.container is Container.OBJECTS
    batch = rows_to_batch(model.signature, objects)
    for method in ("predict", "predict_proba"):
        np.testing.assert_array_equal(
            model.answer(method, batch).tensors[0], getattr(pipeline, method)([dict(each) for each in objects])
        )
    assert len(model.answer("predict", model.make_rows(8)).list_rows()) == 8


def test_rows_that_are_not_objects_are_refused() -> None:
    signature = examine_estimator(make_pipeline(DictVectorizer(), LogisticRegression()).fit(OBJECTS, LABELS)).signature
    for rows, reason in (
        ([["Paris", 2.0]], "row 0 is an array: a row is an object"),
        ([{"size": {"deep": 1}}], "row 0 has values that are no numbers, strings, true, false, null or arrays of str"),
        ([{"size": 1}, {"tags": [1]}], "row 1 has values that are no numbers"),
        ([{"size": 2**70}], "row 0 has values"),
    ):
        with pytest.raises(InvalidInput, match=reason):
            rows_to_batch(signature, rows)


def test_rows_of_a_table_become_objects_with_the_column_names() -> None:
    signature = examine_estimator(make_pipeline(DictVectorizer(), LogisticRegression()).fit(OBJECTS, LABELS)).signature
    table = Table(2, columns=(["Paris", None], np.array([1.0, np.nan])), names=("city", "size"))
    assert table_to_batch(signature, table).columns == ([{"city": "Paris", "size": 1.0}, {}],)


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(USED, LogisticRegression()),
        GridSearchCV(make_pipeline(USED, LogisticRegression()), {"logisticregression__C": [1, 2]}, cv=2),
        TransformedTargetRegressor(make_pipeline(USED, LinearRegression())),
    ],
    ids=["pipeline", "search", "target"],
)
def test_a_dropped_column_is_not_required(estimator: Any) -> None:
    fitted = estimator.fit(TABLE, LABELS)
    model = examine_estimator(fitted)
    assert [feature.is_used for feature in model.signature.features] == [False, True, True]
    rows: list[Any] = TABLE.drop(columns="id").to_dict("records")
    expected = fitted.predict(TABLE).tolist()
    everything = TABLE.to_dict("records")
    odd = [{**row, "id": {"anything": ["at", "all"]}} for row in rows]
    for sent in (rows, everything, odd, [[None, *row.values()] for row in rows], TABLE.to_numpy().tolist()):
        assert model.answer("predict", rows_to_batch(model.signature, sent)).list_rows() == expected
    columns = (TABLE["size"].to_numpy(), TABLE["city"].tolist())
    table = Table(12, columns=columns, names=("size", "city"))
    assert model.answer("predict", table_to_batch(model.signature, table)).list_rows() == expected
    with pytest.raises(InvalidInput, match="row 0: missing 'size'"):
        rows_to_batch(model.signature, [{"city": "Rome"}])
    with pytest.raises(InvalidInput, match="row 0: unknown 'colour'"):
        rows_to_batch(model.signature, [{"city": "Rome", "size": 1, "colour": 2}])


def test_a_column_counts_as_used_if_any_part_may_read_it() -> None:
    members: list[Any] = [(str(place), make_pipeline(USED, LogisticRegression())) for place in range(3)]
    other = ColumnTransformer([("i", OneHotEncoder(handle_unknown="ignore"), ["id"])])
    voting = VotingClassifier([*members, ("last", make_pipeline(other, LogisticRegression()))]).fit(TABLE, LABELS)
    assert all(feature.is_used for feature in examine_estimator(voting).signature.features)
    kept = ColumnTransformer([("n", StandardScaler(), ["size"])], remainder=OneHotEncoder(handle_unknown="ignore"))
    model = examine_estimator(make_pipeline(kept, LogisticRegression()).fit(TABLE, LABELS))
    assert all(feature.is_used for feature in model.signature.features)
