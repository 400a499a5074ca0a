"""Trees are walked without a look at where a node leads: children come after their parent, features and categories are
there, and an ensemble takes the rows that its trees take, because only the ensemble looks at them.

After ``sklearn/tree/_tree.pyx``, ``ensemble/_gradient_boosting.pyx`` and ``ensemble/_hist_gradient_boosting/``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.tree._tree import Tree

from serving.host.restricted.sound.requirements import Check, indices, need, numbers, parts_of, whole_number

_LEAF = -1
_BITSET_WORDS, _MOST_CATEGORIES = 8, 256
_NO_FEATURE = "it splits on a feature it does not have"
_LOOP = "a child does not come after its parent"
_OTHER_ROWS = "it takes other rows than its trees"
_TRIED_ROWS = (1, 3)


def _check_tree(tree: Any) -> None:
    """Look at a `Tree`: every walk ends."""
    count = tree.node_count
    # before any array is asked for: they are as long as the file says
    need(0 < count <= tree.capacity, f"it has {tree.capacity} nodes and counts {count}")
    # columns of a table of 64 bytes a node: each is read once and copied, what follows is quick
    left, right, feature = map(np.ascontiguousarray, (tree.children_left, tree.children_right, tree.feature))
    places = np.arange(count)
    is_leaf = left == _LEAF
    need(np.array_equal(is_leaf, right == _LEAF), "a node has one child")
    comes_after = (np.minimum(left, right) > places) & (np.maximum(left, right) < count)
    need((is_leaf | comes_after).all(), _LOOP)
    need((is_leaf | ((feature >= 0) & (feature < tree.n_features))).all(), _NO_FEATURE)


def _check_one_tree(estimator: Any) -> None:
    parts = parts_of(estimator)
    if "tree_" in parts:
        need(type(parts["tree_"]) is Tree, "its tree is none")
        need(parts["tree_"].n_features == parts.get("n_features_in_"), _OTHER_ROWS)


def _trees(estimators: Any) -> Iterator[Any]:
    """Yield the trees of the estimators in a list or an array."""
    for one in np.asarray(estimators, dtype=object).ravel().tolist():
        tree = parts_of(one).get("tree_")
        need(type(tree) is Tree, "one of its estimators is no tree")
        yield tree


def _check_forest(forest: Any) -> None:
    parts = parts_of(forest)
    for tree in _trees(parts.get("estimators_", [])):
        need(tree.n_features == parts["n_features_in_"], _OTHER_ROWS)


def _check_isolation_forest(forest: Any) -> None:
    """Each tree gets the columns that were drawn for it, or all where as many were drawn."""
    parts = parts_of(forest)
    if "estimators_" not in parts:
        return
    features = whole_number(parts["n_features_in_"], "n_features_in_")
    trees, drawn = list(_trees(parts["estimators_"])), parts["estimators_features_"]
    need(len(drawn) == len(trees), "it does not have columns for each tree")
    takes_all = parts["_max_features"] == features
    for tree, columns in zip(trees, drawn, strict=True):
        given = features if takes_all else len(indices(columns, "estimators_features_", features))
        need(tree.n_features == given, _OTHER_ROWS)


def _check_boosted_trees(boosted: Any) -> None:
    """Answers are added up in a table with a column for each tree of a round, which begins with what `init_` says."""
    parts = parts_of(boosted)
    if "estimators_" not in parts:
        return
    grid, features = parts["estimators_"], whole_number(parts["n_features_in_"], "n_features_in_")
    need(type(grid) is np.ndarray and grid.ndim == 2 and grid.size, "its trees are no table")
    width = whole_number(parts.get("n_trees_per_iteration_", grid.shape[1]), "n_trees_per_iteration_")
    need(width == grid.shape[1], "it has another number of trees for each round")
    for tree in _trees(grid):
        need(tree.n_features == features, _OTHER_ROWS)
        need(tree.n_outputs == 1, "one of its trees has several answers")
    need(is_classifier(boosted) or width == 1, "it has several trees for one answer")
    need(type(parts["_loss"]).is_multiclass == (width > 1), "its loss is one for other answers")
    need(_begins_at_zero(parts) or isinstance(parts["init_"], BaseEstimator), "what it begins with is no estimator")


def _begins_at_zero(parts: dict[str, Any]) -> bool:
    return type(parts["init_"]) is str and parts["init_"] == "zero"


def _try_first_answers(boosted: Any) -> None:
    """Ask what the rounds begin with: its answers decide how large the table is that compiled code writes into."""
    parts = parts_of(boosted)
    if "estimators_" not in parts or _begins_at_zero(parts):
        return
    first, width = parts["init_"], parts["estimators_"].shape[1]
    answer = first.predict_proba if is_classifier(boosted) else first.predict
    wanted = max(2, width) if is_classifier(boosted) else None
    for rows in _TRIED_ROWS:
        shape = np.shape(answer(np.zeros((rows, parts["n_features_in_"]), np.float32)))
        need(shape == ((rows,) if wanted is None else (rows, wanted)), "what it begins with has other answers")


def _check_predictor(predictor: Any) -> None:
    """Look at a tree of histogram gradient boosting; what features there are is known to its ensemble."""
    nodes = parts_of(predictor).get("nodes")
    wanted = {"left", "right", "feature_idx", "is_leaf", "is_categorical", "bitset_idx"}
    is_table = type(nodes) is np.ndarray and nodes.ndim == 1 and wanted <= set(nodes.dtype.names or ())
    need(is_table, "its nodes are no table of nodes")
    assert nodes is not None
    need(len(nodes), "it has no nodes")
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    for side in ("left", "right"):
        need(_come_after(nodes[side][inner], inner, len(nodes)), _LOOP)
    need((nodes["feature_idx"][inner] >= 0).all(), _NO_FEATURE)
    _check_bitsets(predictor, nodes["bitset_idx"][inner[nodes["is_categorical"][inner] != 0]])


def _come_after(children: NDArray[Any], parents: NDArray[Any], count: int) -> bool:
    return bool(((children > parents) & (children < count)).all())


def _check_bitsets(predictor: Any, places: NDArray[Any]) -> None:
    for name in ("binned_left_cat_bitsets", "raw_left_cat_bitsets"):
        bitsets = numbers(parts_of(predictor).get(name), name, rank=2, kinds="iu")
        need(bitsets.shape[1] == _BITSET_WORDS, "its categories are no table of bits")
        need((places < len(bitsets)).all(), "it splits on categories it does not have")


def _check_histograms(boosted: Any) -> None:
    """Rows reach the trees as the preprocessor leaves them, and categories as bits in a table of 256 columns."""
    parts = parts_of(boosted)
    if "_predictors" not in parts:
        return
    need("_in_fit" not in parts, "it was saved while it was fitted")
    features = whole_number(parts["n_features_in_"], "n_features_in_")
    rounds, width = parts["_predictors"], whole_number(parts["n_trees_per_iteration_"], "n_trees_per_iteration_")
    need(type(rounds) is list and all(type(each) is list for each in rounds), "its rounds are no lists of trees")
    need(all(len(each) == width for each in rounds), "it has another number of trees for each round")
    is_categorical = _known_categories(parts["_bin_mapper"], features)
    for predictor in (one for each in rounds for one in each):
        need(type(predictor) is TreePredictor, "one of its trees is none")
        _check_predictor(predictor)
        nodes = predictor.nodes
        inner = nodes[nodes["is_leaf"] == 0]
        need((inner["feature_idx"] < features).all(), _NO_FEATURE)
        no_categories = "it splits on categories of a feature that has none"
        need((inner["is_categorical"] <= is_categorical[inner["feature_idx"]]).all(), no_categories)
    if parts.get("_preprocessor") is not None:
        _check_preprocessor(parts["_preprocessor"], features)


def _known_categories(mapper: Any, features: int) -> NDArray[Any]:
    """Return which features are categorical, by the mapper: in the order of the nodes, not of the columns."""
    parts = parts_of(mapper)
    is_categorical = numbers(parts["is_categorical_"], "is_categorical_", rank=1, kinds="biu")
    need(len(is_categorical) == features, "it knows the categories of other features")
    known = parts["bin_thresholds_"]
    need(type(known) is list and len(known) == features, "it has thresholds of other features")
    for place in np.flatnonzero(is_categorical):
        values = numbers(known[place], "bin_thresholds_", rank=1)
        is_code = np.isfinite(values) & (values >= 0) & (values < _MOST_CATEGORIES)
        need(is_code.all(), "one of its categories has no place")
    return is_categorical


def _check_preprocessor(preprocessor: Any, features: int) -> None:
    """It must leave as many columns as there were: codes of the categories, then the numbers as they are."""
    parts = parts_of(preprocessor)
    steps = [each for each in parts["transformers_"] if each[1:] != ("drop", [False] * features)]
    masks = [each[2] for each in steps if type(each[1]).__name__ in ("OrdinalEncoder", "FunctionTransformer")]
    is_known = len(steps) == len(masks) == 2 and parts["n_features_in_"] == features
    need(is_known and all(np.shape(mask) == (features,) for mask in masks), "its preprocessor is another one")
    need(
        (np.asarray(masks[0], bool) != np.asarray(masks[1], bool)).all(),
        "its preprocessor does not take each column once",
    )
    for _, transformer, _ in steps:
        function = parts_of(transformer).get("func")
        need(function is None or type(function) is partial, "its preprocessor does something to the numbers")


CHECKS: dict[str, Check] = {
    "sklearn.tree._tree.Tree": _check_tree,
    "sklearn.tree._classes.BaseDecisionTree": _check_one_tree,
    "sklearn.ensemble._forest.BaseForest": _check_forest,
    "sklearn.ensemble._iforest.IsolationForest": _check_isolation_forest,
    "sklearn.ensemble._gb.BaseGradientBoosting": _check_boosted_trees,
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": _check_predictor,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.BaseHistGradientBoosting": _check_histograms,
}

# what only shows when it is asked, once all else is known to be sound
TRIALS: dict[str, Check] = {"sklearn.ensemble._gb.BaseGradientBoosting": _try_first_answers}
