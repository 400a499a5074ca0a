"""Models of allowed classes with wrong numbers that compiled code would use unchecked are refused; sound ones pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.neighbors import BallTree, KDTree
from sklearn.preprocessing import OneHotEncoder, SplineTransformer
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from serving.host.restricted import Distrusted, load_restricted
from serving.host.restricted.soundness import check_soundness

ROWS = np.random.default_rng(0).normal(size=(200, 4))
LABELS = np.arange(200) % 3
LAYOUTS = ("csr", "csc", "coo", "lil", "dok", "dia", "bsr")
CATEGORICAL = np.column_stack([ROWS[:, 0], LABELS, ROWS[:, 1], LABELS % 2])


def problem(model: Any) -> str:
    with pytest.raises(Distrusted, match="that is not sound") as caught:
        check_soundness(model)
    return str(caught.value)


def with_state(made: Any, change: Callable[[Any], Any]) -> Any:
    """Return a new compiled object with a changed state."""
    kind, arguments, state = made.__reduce__()
    fresh = kind(*arguments)
    fresh.__setstate__(change(state))
    return fresh


def tree_with(**fields: tuple[int, int]) -> DecisionTreeClassifier:
    """Return a tree with changed nodes: `fields` maps a field to the node and the new value."""

    def change(state: dict[str, Any]) -> dict[str, Any]:
        nodes = state["nodes"].copy()
        for name, (node, value) in fields.items():
            nodes[name][node] = value
        return {**state, "nodes": nodes}

    model = DecisionTreeClassifier(max_depth=3).fit(ROWS, LABELS)
    model.tree_ = with_state(model.tree_, change)
    return model


SOUND: dict[str, Callable[[], Any]] = {
    "tree": lambda: DecisionTreeRegressor(max_leaf_nodes=9).fit(ROWS, ROWS),
    "forest": lambda: RandomForestClassifier(5, max_features=2).fit(ROWS, LABELS),
    "boosted trees": lambda: GradientBoostingClassifier(n_estimators=4).fit(ROWS, LABELS),
    "isolation forest": lambda: IsolationForest(n_estimators=5, max_features=0.5).fit(ROWS),
    "categories": lambda: HistGradientBoostingClassifier(max_iter=4, categorical_features=[1, 3]).fit(
        CATEGORICAL, LABELS
    ),
    "histograms": lambda: HistGradientBoostingRegressor(max_iter=4).fit(ROWS, LABELS),
    "KD tree": lambda: KDTree(ROWS, leaf_size=5),
    "ball tree": lambda: BallTree(ROWS, leaf_size=5),
    "texts in an order of the owner's": lambda: OneHotEncoder(categories=[["low", "high"]]).fit(
        np.array([["high"], ["low"]], dtype=object)
    ),
    "splines": lambda: SplineTransformer().fit(ROWS),
    "words": lambda: CountVectorizer().fit(["a text"]),
    "sparse": lambda: [getattr(sparse, f"{layout}_matrix")(ROWS[:3]) for layout in LAYOUTS],
}


@pytest.mark.parametrize("name", SOUND)
def test_models_that_libraries_made_are_sound(name: str, tmp_path: Path) -> None:
    model = SOUND[name]()
    joblib.dump(model, tmp_path / "blob")
    check_soundness([model, {"a": (load_restricted(str(tmp_path / "blob")),)}])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"left_child": (0, 0)}, "does not come after its parent"),
        ({"right_child": (0, 0)}, "does not come after its parent"),
        ({"left_child": (0, 1 << 40)}, "does not come after its parent"),
        ({"left_child": (0, -2)}, "does not come after its parent"),
        ({"left_child": (0, -1)}, "one child"),
        ({"feature": (0, 4)}, "a feature it does not have"),
        ({"feature": (0, -3)}, "a feature it does not have"),
    ],
)
def test_a_tree_with_wrong_nodes_is_refused(fields: dict[str, tuple[int, int]], said: str) -> None:
    assert said in problem(tree_with(**fields))


def test_a_tree_with_a_wrong_node_count_is_refused() -> None:
    model = tree_with()
    for count in (0, -1):  # more than there are, it corrects itself
        model.tree_ = with_state(tree_with().tree_, lambda state, count=count: {**state, "node_count": count})
        assert f"nodes and counts {count}" in problem(model)


def test_a_tree_takes_rows_of_the_width_of_its_estimator() -> None:
    model = tree_with()
    model.n_features_in_ = 2
    assert "other rows than its trees" in problem(model)
    boosted = GradientBoostingClassifier(n_estimators=2).fit(ROWS, LABELS)
    boosted.estimators_[1, 2].tree_.n_features = 1 << 20
    assert "other rows than its trees" in problem(boosted)
    boosted = GradientBoostingClassifier(n_estimators=2).fit(ROWS, LABELS)
    boosted.n_trees_per_iteration_ = 1
    assert "another number of trees" in problem(boosted)


def test_the_walk_finds_every_object() -> None:
    bad = tree_with(left_child=(0, 0))
    hidden = np.ma.masked_array(np.array([bad], dtype=object), mask=[True])
    deep: Any = bad
    for _ in range(20_000):
        deep = [deep]
    for model in ([bad], {bad: 1}, {"a": bad}, (frozenset([bad]),), hidden, np.array([[bad]], dtype=object), deep):
        problem(model)


@pytest.mark.parametrize(
    ("field", "node", "value", "said"),
    [
        ("left", 0, 0, "does not come after its parent"),
        ("right", 0, 1 << 31, "does not come after its parent"),
        ("feature_idx", 0, 99, "a feature it does not have"),
        ("feature_idx", 0, -1, "a feature it does not have"),
    ],
)
def test_a_boosted_tree_with_wrong_nodes_is_refused(field: str, node: int, value: int, said: str) -> None:
    model = HistGradientBoostingRegressor(max_iter=2).fit(ROWS, LABELS)
    model._predictors[1][0].nodes[field][node] = value
    assert said in problem(model)


def test_a_boosted_tree_has_its_categories() -> None:
    def fresh() -> tuple[Any, Any]:
        model = HistGradientBoostingClassifier(max_iter=2, categorical_features=[1, 3]).fit(CATEGORICAL, LABELS % 2)
        return model, model._predictors[0][0]

    model, predictor = fresh()
    split = np.flatnonzero(predictor.nodes["is_categorical"])[0]
    predictor.nodes["bitset_idx"][split] = 1000
    assert "categories it does not have" in problem(model)
    model, predictor = fresh()
    predictor.raw_left_cat_bitsets = predictor.raw_left_cat_bitsets[:, :1]
    assert "no table of bits" in problem(model)
    model, predictor = fresh()
    predictor.nodes["feature_idx"][split] = 3
    assert "categories of a feature that has none" in problem(model)
    model, predictor = fresh()
    predictor.nodes = np.ma.masked_array(predictor.nodes, mask=True)
    assert "no table of nodes" in problem(model)


@pytest.mark.parametrize("kind", [KDTree, BallTree])
def test_a_neighbour_tree_with_wrong_nodes_is_refused(kind: Any) -> None:
    def change(place: int, edit: Callable[[Any], Any]) -> Any:
        def of(state: tuple[Any, ...]) -> tuple[Any, ...]:
            return (*state[:place], edit(np.copy(state[place])), *state[place + 1 :])

        return with_state(kind(ROWS, leaf_size=5), of)

    def put(field: str, node: int, value: int) -> Callable[[Any], Any]:
        def edit(nodes: Any) -> Any:
            nodes[field][node] = value
            return nodes

        return edit

    def row(places: Any) -> Any:
        places[7] = 1 << 40
        return places

    assert "rows it does not have" in problem(change(1, row))
    assert "rows it does not have" in problem(change(1, lambda places: places[:-1].copy()))
    assert "rows it does not have" in problem(change(2, put("idx_end", 0, 1 << 40)))
    assert "rows it does not have" in problem(change(2, put("idx_start", 3, -1)))
    assert "no children" in problem(change(2, put("is_leaf", -1, 0)))
    assert "the nodes it counts" in problem(change(2, lambda nodes: nodes[:-2].copy()))
    assert "the nodes it counts" in problem(change(3, lambda bounds: bounds[:, :1].copy()))


def test_a_metric_fits_its_rows() -> None:
    def other_metric(state: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*state[:11], KDTree(ROWS[:, :1], metric="minkowski", p=3).__getstate__()[11], *state[12:])

    check_soundness(with_state(KDTree(ROWS), other_metric))
    narrow = BallTree(ROWS[:, :1], metric="seuclidean", V=[1.0]).__getstate__()[11]
    tree = with_state(BallTree(ROWS, metric="seuclidean", V=np.ones(4)), lambda s: (*s[:11], narrow, *s[12:]))
    assert "metric does not fit" in problem(tree)


@pytest.mark.parametrize("layout", ["csr", "csc", "bsr", "coo", "dia", "lil"])
def test_a_sparse_matrix_with_wrong_indices_is_refused(layout: str) -> None:
    matrix = getattr(sparse, f"{layout}_matrix")(ROWS[:3])
    if layout == "coo":
        matrix.coords[0][3] = 1 << 20
    elif layout == "dia":
        matrix.offsets = np.arange(len(matrix.offsets) + 5)
    elif layout == "lil":
        matrix.rows[0][1] = 1 << 20
    else:
        matrix.indices[3] = 1 << 20
    problem({"a": matrix})


@pytest.mark.parametrize("kind", [float, object])
def test_numbers_out_of_order_are_refused(kind: type) -> None:
    model = OneHotEncoder().fit(np.array([[1.0], [2.0], [3.0]], dtype=kind))
    model.categories_ = [np.array([3.0, 1.0, 2.0], dtype=kind)]
    assert "in an order in which some are not found" in problem(model)


def test_a_spline_has_the_knots_its_degree_needs() -> None:
    model = SplineTransformer().fit(ROWS)
    model.bsplines_[0].k = 50
    assert "knots do not fit" in problem(model)
    model = SplineTransformer().fit(ROWS)
    model.bsplines_[0]._c = model.bsplines_[0]._c[:2]
    assert "knots do not fit" in problem(model)


@pytest.mark.parametrize("kind", [CountVectorizer, TfidfVectorizer, HashingVectorizer])
@pytest.mark.parametrize("source", ["filename", "file", np.str_("filename"), np.ma.masked])
def test_a_vectorizer_that_opens_files_is_refused(kind: Any, source: Any) -> None:
    assert "would open files named by requests" in problem(kind(input=source))


def test_a_class_of_the_operator_with_a_known_name_gets_no_check() -> None:
    check_soundness(type("Tree", (), {})())
