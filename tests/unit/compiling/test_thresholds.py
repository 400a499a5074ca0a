"""The numbers at which trees split are found, in terms of the input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from serving.compiling.thresholds import find_thresholds

RANDOM = np.random.default_rng(3)
ROWS = RANDOM.normal(5, 3, size=(200, 3))
LABELS = (ROWS[:, 1] + ROWS[:, 2] > 10).astype(int)


def list_splits(tree: Any, feature: int) -> np.ndarray[Any, Any]:
    return np.unique(tree.tree_.threshold[tree.tree_.feature == feature])


def test_thresholds_of_a_tree_are_found() -> None:
    tree = DecisionTreeClassifier(random_state=0).fit(ROWS, LABELS)
    found = find_thresholds(tree, 3)
    for feature in range(3):
        np.testing.assert_array_equal(found.get(feature, []), list_splits(tree, feature))


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler(), RobustScaler()])
def test_a_scaler_in_front_is_traced_back(scaler: Any) -> None:
    model = make_pipeline(scaler, DecisionTreeClassifier(random_state=0)).fit(ROWS, LABELS)
    found = find_thresholds(model, 3)
    probe = np.zeros((len(found[1]), 3))
    probe[:, 1] = found[1]
    np.testing.assert_allclose(model[0].transform(probe)[:, 1], list_splits(model[1], 1), rtol=1e-12)


@pytest.mark.parametrize(
    "ensemble",
    [
        RandomForestClassifier(5, random_state=0),
        GradientBoostingRegressor(n_estimators=5, random_state=0),
        IsolationForest(n_estimators=5, random_state=0),
        AdaBoostClassifier(n_estimators=5, random_state=0),
        BaggingClassifier(DecisionTreeClassifier(), n_estimators=5, max_features=2, random_state=0),
        HistGradientBoostingClassifier(max_iter=5, random_state=0),
        VotingClassifier([("tree", DecisionTreeClassifier(max_depth=2)), ("line", LogisticRegression())]),
    ],
)
def test_thresholds_of_ensembles_belong_to_the_right_columns(ensemble: Any) -> None:
    """A column with only one value has no threshold, and each threshold lies within the range of its column."""
    rows = np.column_stack([ROWS[:, 1], np.full(len(ROWS), 7.0), ROWS[:, 2] + 100])
    found = find_thresholds(ensemble.fit(rows, LABELS), 3)
    assert {0, 2} == set(found)
    for column in found:
        assert rows[:, column].min() <= found[column].min() <= found[column].max() <= rows[:, column].max()


def test_a_column_transformer_is_traced_through_its_branches() -> None:
    table = pd.DataFrame({"kind": RANDOM.choice(["a", "b"], 200), "x": ROWS[:, 1], "y": ROWS[:, 2]})
    branches = ColumnTransformer([("kinds", OneHotEncoder(), ["kind"]), ("numbers", StandardScaler(), ["y", "x"])])
    model = make_pipeline(branches, DecisionTreeClassifier(random_state=0)).fit(table, LABELS)
    found = find_thresholds(model, 3)
    assert {1, 2} == set(found)
    assert ROWS[:, 2].min() <= found[2].min() <= found[2].max() <= ROWS[:, 2].max()
    assert len(found[2]) == len(list_splits(model[1], 2))


def test_edges_of_bins_are_thresholds() -> None:
    model = make_pipeline(KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"), LogisticRegression())
    found = find_thresholds(model.fit(ROWS, LABELS), 3)
    np.testing.assert_allclose(found[0], model[0].bin_edges_[0])


def test_a_model_without_splits_has_no_thresholds() -> None:
    assert find_thresholds(LogisticRegression().fit(ROWS, LABELS), 3) == {}
