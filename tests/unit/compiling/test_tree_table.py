"""Trees of scikit-learn as graphs, on rows made to fall on the edges of their splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from serving.compiling.convert import convert_estimator
from serving.compiling.tree_table import round_for_float32
from serving.host.signature_of_estimator import examine_estimator
from serving.rows.batch import Batch
from tests.steps import count_calls
from tests.unit.compiling.test_convert import assert_alike, run_graph

RANDOM = np.random.default_rng(0)
ROWS, CLASSES = make_classification(400, 8, n_informative=6, n_classes=3, random_state=0)
VALUES = ROWS @ np.arange(8.0)


def make_edge_rows(
    rows: NDArray[Any], feature: NDArray[Any], threshold: NDArray[Any], count: int = 400
) -> NDArray[np.float64]:
    """Return rows with one number on a threshold, or next to it as a float64 or a float32."""
    made = []
    chosen = RANDOM.integers(0, len(threshold), count)
    exact = threshold[chosen].astype(np.float64)
    narrow = exact.astype(np.float32)
    up, down = (np.nextafter(narrow, np.float32(way)).astype(np.float64) for way in (np.inf, -np.inf))
    for value in (exact, np.nextafter(exact, np.inf), np.nextafter(exact, -np.inf), narrow, up, down,
                  (narrow + up) / 2, (narrow + down) / 2):  # fmt: skip
        block = rows[RANDOM.integers(0, len(rows), count)].copy()
        block[np.arange(count), feature[chosen]] = value
        made.append(block)
    return np.concatenate(made)


def make_tree_edge_rows(trees: Any) -> NDArray[np.float64]:
    trees = [each.tree_ for each in np.ravel(trees)]
    inner = [tree.children_left >= 0 for tree in trees]
    feature = np.concatenate([tree.feature[keep] for tree, keep in zip(trees, inner, strict=True)])
    return make_edge_rows(
        ROWS, feature, np.concatenate([tree.threshold[keep] for tree, keep in zip(trees, inner, strict=True)])
    )


def test_a_float64_threshold_decides_as_the_float32_one_did() -> None:
    thresholds = np.concatenate([
        RANDOM.normal(size=2000), RANDOM.normal(size=2000).astype(np.float32), [0.0, -0.0, 1e-45, -1e-45, 1e-300],
        [np.finfo(np.float32).max, -np.finfo(np.float32).max, 1e39, -1e39, np.inf],
    ])  # fmt: skip
    with np.errstate(over="ignore"):
        narrow = thresholds.astype(np.float32)
        for strict in (False, True):
            wide = round_for_float32(thresholds, is_strict=strict)
            for start in (thresholds, narrow.astype(np.float64), wide):
                for x in (start, np.nextafter(start, np.inf), np.nextafter(start, -np.inf)):
                    wanted = x.astype(np.float32) < thresholds if strict else x.astype(np.float32) <= thresholds
                    np.testing.assert_array_equal(x <= wide, wanted)


@pytest.mark.parametrize(
    "estimator",
    [
        DecisionTreeClassifier(random_state=0),
        ExtraTreesClassifier(10, random_state=0),
        RandomForestClassifier(10, min_samples_leaf=5, random_state=0),
        RandomForestClassifier(10, min_samples_leaf=7, random_state=0, class_weight="balanced"),
    ],
)
def test_classifiers_agree_on_the_edges_of_their_splits(estimator: Any) -> None:
    estimator.fit(ROWS, CLASSES)
    assert_alike(estimator, make_tree_edge_rows(getattr(estimator, "estimators_", estimator)))


def test_regressors_agree_on_the_edges_of_their_splits() -> None:
    for estimator in (DecisionTreeRegressor(), RandomForestRegressor(10, random_state=0), GradientBoostingRegressor()):
        estimator.fit(ROWS, VALUES)
        assert_alike(estimator, make_tree_edge_rows(getattr(estimator, "estimators_", estimator)))


def test_ties_of_classes_are_decided_alike() -> None:
    rows = RANDOM.integers(0, 3, (300, 2)).astype(np.float64)
    labels = RANDOM.integers(0, 4, 300)
    grid = np.array([[a, b] for a in range(4) for b in range(4)], dtype=np.float64)
    ties = 0
    for seed in range(12):
        forest = RandomForestClassifier(24, max_depth=2, bootstrap=False, max_features=1, random_state=seed)
        forest.fit(rows, labels)
        for tree in forest.estimators_:  # tenths, whose sums depend on their order
            choice = RANDOM.integers(0, 4, tree.tree_.node_count)
            tree.tree_.value[:, 0, :] = np.array([[1, 1, 4, 4], [4, 1, 1, 4], [4, 4, 1, 1], [1, 4, 4, 1]])[choice] / 10
        shares = np.sort(forest.predict_proba(grid), axis=1)
        ties += int((shares[:, -1] - shares[:, -2] < 1e-9).sum())
        assert_alike(forest, grid)
    assert ties > 10


def test_several_outputs_and_single_leaves_answer_alike() -> None:
    several = np.column_stack([CLASSES, CLASSES > 1])
    assert_alike(RandomForestClassifier(4, random_state=0).fit(ROWS, several), ROWS)
    assert_alike(RandomForestRegressor(4, random_state=0).fit(ROWS, np.column_stack([VALUES, -VALUES])), ROWS)
    assert_alike(DecisionTreeRegressor().fit(ROWS, np.full(len(ROWS), 2.5)), ROWS)
    assert_alike(RandomForestClassifier(3, max_depth=1, min_samples_leaf=250).fit(ROWS, CLASSES), ROWS)


def add_nulls(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(RANDOM.random(rows.shape) < 0.15, np.nan, rows)


@pytest.mark.parametrize(
    "estimator",
    [RandomForestClassifier(10, random_state=0), HistGradientBoostingClassifier(max_iter=10), DecisionTreeClassifier()],
)
def test_missing_values_go_the_same_way(estimator: Any) -> None:
    rows = add_nulls(ROWS)
    assert_alike(estimator.fit(rows, CLASSES), rows, add_nulls(ROWS), np.full((1, 8), np.nan), X=rows)


@pytest.mark.parametrize("labels", [CLASSES, CLASSES > 0], ids=["three", "two"])
def test_boosting_agrees_on_the_edges_of_its_splits(labels: Any) -> None:
    hist = HistGradientBoostingClassifier(max_iter=10).fit(ROWS, labels)
    nodes = np.concatenate([predictor.nodes for stage in hist._predictors for predictor in stage])
    nodes = nodes[nodes["is_leaf"] == 0]
    assert_alike(hist, make_edge_rows(ROWS, nodes["feature_idx"], nodes["num_threshold"]))
    gradient = GradientBoostingClassifier(n_estimators=10).fit(ROWS, labels)
    assert_alike(gradient, make_tree_edge_rows(gradient.estimators_))
    ada = AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=10).fit(ROWS, labels)
    assert_alike(ada, make_tree_edge_rows(ada.estimators_))


def test_other_losses_and_the_weighted_median_answer_alike() -> None:
    positive = VALUES - VALUES.min() + 1
    assert_alike(HistGradientBoostingRegressor(loss="poisson", max_iter=10).fit(ROWS, positive), ROWS)
    assert_alike(GradientBoostingClassifier(loss="exponential", n_estimators=10).fit(ROWS, CLASSES > 0), ROWS)
    assert_alike(AdaBoostRegressor(n_estimators=9, random_state=0).fit(ROWS, VALUES), ROWS)


def test_categories_known_unknown_and_missing_go_the_same_way() -> None:
    rows = add_nulls(ROWS)
    rows[:, 0], rows[:, 1] = RANDOM.integers(0, 60, len(rows)), RANDOM.integers(0, 5, len(rows))
    rows[::9, 0] = np.nan
    labels = np.where(np.nan_to_num(rows[:, 0]).astype(int) * 7 % 5 < 2, 0, CLASSES)
    estimator = HistGradientBoostingClassifier(max_iter=10, categorical_features=[0, 1], min_samples_leaf=2)
    estimator.fit(rows, labels)
    assert any(predictor.nodes["is_categorical"].any() for stage in estimator._predictors for predictor in stage)

    odd = add_nulls(ROWS)
    odd[:, 0], odd[:, 1] = RANDOM.integers(-3, 80, len(odd)), RANDOM.integers(-1, 8, len(odd))
    odd[::3, 0] += 0.5
    assert_alike(estimator, rows, odd, X=rows)


@pytest.mark.parametrize("options", [{}, {"max_features": 3, "contamination": 0.1}])
def test_isolation_forests_agree_on_the_edges_of_their_splits(options: dict[str, Any]) -> None:
    forest = IsolationForest(n_estimators=20, random_state=0, **options).fit(ROWS)
    assert_alike(forest, ROWS * 2, make_tree_edge_rows(forest.estimators_) if not options else ROWS)


def test_a_large_forest_is_converted_without_python_code_for_each_node() -> None:
    rows = RANDOM.normal(size=(4000, 6))
    model = examine_estimator(RandomForestClassifier(30, random_state=0).fit(rows, RANDOM.integers(0, 2, 4000)))
    graph, calls = count_calls(lambda: convert_estimator(model))

    nodes = sum(tree.tree_.node_count for tree in model.estimator.estimators_)
    assert nodes > 40_000
    assert calls < nodes
    assert len(graph.content) < 60 * nodes
    batch = Batch(100, matrix=rows[:100].copy())
    assert run_graph(graph, model, "predict", batch)[0].tolist() == model.answer("predict", batch).tensors[0].tolist()
