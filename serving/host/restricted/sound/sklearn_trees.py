"""Checks of scikit-learn's trees and their ensembles, because compiled code follows the nodes without a check.

Children come after their parent, and the features and categories of splits exist. An ensemble takes rows of the width
that its trees take, because only the ensemble checks rows. From ``sklearn/tree/_tree.pyx``,
``ensemble/_gradient_boosting.pyx`` and ``ensemble/_hist_gradient_boosting/``.
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

from serving.host.restricted.sound.requirements import (
    Check,
    get_attributes,
    require,
    require_array,
    require_indices,
    require_integer,
)

_LEAF = -1
_BITSET_WORDS, _MOST_CATEGORIES = 8, 256
_NO_FEATURE = "it splits on a feature it does not have"
_LOOP = "a child does not come after its parent"
_OTHER_ROWS = "it takes other rows than its trees"
_ROW_COUNTS = (1, 3)


def _check_tree(tree: Any) -> None:
    """Check a `Tree`: every walk down from the root ends."""
    count = tree.node_count
    # checked before any array is read: the arrays are as long as the file claims
    require(0 < count <= tree.capacity, f"it has {tree.capacity} nodes and counts {count}")
    # these are columns of a table with 64 bytes for each node: copying each once makes the checks below fast
    left, right, feature = map(np.ascontiguousarray, (tree.children_left, tree.children_right, tree.feature))
    places = np.arange(count)
    is_leaf = left == _LEAF
    require(np.array_equal(is_leaf, right == _LEAF), "a node has one child")
    comes_after = (np.minimum(left, right) > places) & (np.maximum(left, right) < count)
    require((is_leaf | comes_after).all(), _LOOP)
    require((is_leaf | ((feature >= 0) & (feature < tree.n_features))).all(), _NO_FEATURE)


def _check_one_tree(estimator: Any) -> None:
    parts = get_attributes(estimator)
    if "tree_" in parts:
        require(type(parts["tree_"]) is Tree, "its tree is no tree")
        require(parts["tree_"].n_features == parts.get("n_features_in_"), _OTHER_ROWS)


def _list_trees(estimators: Any) -> Iterator[Any]:
    """Yield the trees of the estimators in a list or an array."""
    for one in np.asarray(estimators, dtype=object).ravel().tolist():
        tree = get_attributes(one).get("tree_")
        require(type(tree) is Tree, "one of its estimators is no tree")
        yield tree


def _check_forest(forest: Any) -> None:
    parts = get_attributes(forest)
    for tree in _list_trees(parts.get("estimators_", [])):
        require(tree.n_features == parts["n_features_in_"], _OTHER_ROWS)


def _check_isolation_forest(forest: Any) -> None:
    """Check that each tree takes the columns drawn for it, or all if that many were drawn."""
    parts = get_attributes(forest)
    if "estimators_" not in parts:
        return
    features = require_integer(parts["n_features_in_"], "n_features_in_")
    trees, drawn = list(_list_trees(parts["estimators_"])), parts["estimators_features_"]
    require(all(map(_has_its_depth, trees)), "one of its trees is deeper than it says")
    require(len(drawn) == len(trees), "it does not have columns for each tree")
    takes_all = parts["_max_features"] == features
    for tree, columns in zip(trees, drawn, strict=True):
        given = features if takes_all else len(require_indices(columns, "estimators_features_", features))
        require(tree.n_features == given, _OTHER_ROWS)


def _has_its_depth(tree: Any) -> bool:
    """Return True if no leaf is deeper than the tree says. Before 1.3 that is the room compiled code has for a path."""
    left, right, level = tree.children_left, tree.children_right, np.zeros(1, np.int64)
    for _ in range(tree.max_depth + 1):
        inner = level[left[level] != _LEAF]
        if not inner.size:
            return True
        level = np.unique(np.concatenate([left[inner], right[inner]]))
    return False


def _check_boosted_trees(boosted: Any) -> None:
    """Check boosted trees: their answers are summed in a table with a column for each tree of a round.

    The estimator `init_` gives the first values of that table.
    """
    parts = get_attributes(boosted)
    if "estimators_" not in parts:
        return
    grid, features = parts["estimators_"], require_integer(parts["n_features_in_"], "n_features_in_")
    require(type(grid) is np.ndarray and grid.ndim == 2 and grid.size, "its trees are no table")
    width = require_integer(parts.get("n_trees_per_iteration_", grid.shape[1]), "n_trees_per_iteration_")
    require(width == grid.shape[1], "it has another number of trees for each round")
    for tree in _list_trees(grid):
        require(tree.n_features == features, _OTHER_ROWS)
        require(tree.n_outputs == 1, "one of its trees has several answers")
    require(is_classifier(boosted) or width == 1, "it has several trees for one answer")
    losses = [parts[name] for name in ("_loss", "loss_") if name in parts]  # the second name before scikit-learn 1.1
    require(losses and all(_is_loss_for(loss, width) for loss in losses), "its loss is one for other answers")
    require(_starts_at_zero(parts) or isinstance(parts["init_"], BaseEstimator), "its first estimator is no estimator")


def _is_loss_for(loss: Any, width: int) -> bool:
    kind = type(loss)
    if hasattr(kind, "is_multiclass"):
        return bool(kind.is_multiclass == (width > 1))
    # before scikit-learn 1.4 the loss counts the trees of a round, too, and makes a table of that width
    return bool(kind.is_multi_class == (width > 1)) and require_integer(get_attributes(loss)["K"], "K") == width


def _starts_at_zero(parts: dict[str, Any]) -> bool:
    return type(parts["init_"]) is str and parts["init_"] == "zero"


def _try_first_answers(boosted: Any) -> None:
    """Let the first estimator answer: the size of its answer is the size of the table that compiled code writes to."""
    parts = get_attributes(boosted)
    if "estimators_" not in parts or _starts_at_zero(parts):
        return
    first, width = parts["init_"], parts["estimators_"].shape[1]
    answer = first.predict_proba if is_classifier(boosted) else first.predict
    wanted = max(2, width) if is_classifier(boosted) else None
    for rows in _ROW_COUNTS:
        shape = np.shape(answer(np.zeros((rows, parts["n_features_in_"]), np.float32)))
        require(
            shape == ((rows,) if wanted is None else (rows, wanted)),
            "the answers of its first estimator have another shape",
        )


def _check_predictor(predictor: Any) -> None:
    """Check a tree of histogram gradient boosting; its ensemble checks the features."""
    nodes = get_attributes(predictor).get("nodes")
    wanted = {"left", "right", "feature_idx", "is_leaf", "is_categorical", "bitset_idx"}
    is_table = type(nodes) is np.ndarray and nodes.ndim == 1 and wanted <= set(nodes.dtype.names or ())
    require(is_table, "its nodes are no table of nodes")
    assert nodes is not None
    require(len(nodes), "it has no nodes")
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    for side in ("left", "right"):
        require(_are_later(nodes[side][inner], inner, len(nodes)), _LOOP)
    require((nodes["feature_idx"][inner] >= 0).all(), _NO_FEATURE)
    _check_bitsets(predictor, nodes["bitset_idx"][inner[nodes["is_categorical"][inner] != 0]])


def _are_later(children: NDArray[Any], parents: NDArray[Any], count: int) -> bool:
    return bool(((children > parents) & (children < count)).all())


def _check_bitsets(predictor: Any, places: NDArray[Any]) -> None:
    for name in ("binned_left_cat_bitsets", "raw_left_cat_bitsets"):
        bitsets = require_array(get_attributes(predictor).get(name), name, rank=2, kinds="iu")
        require(bitsets.shape[1] == _BITSET_WORDS, "its categories are no table of bits")
        require((places < len(bitsets)).all(), "it splits on categories it does not have")


def _check_histograms(boosted: Any) -> None:
    """Check histogram gradient boosting: preprocessor, trees, and categories as bits in a table of 256 columns."""
    parts = get_attributes(boosted)
    if "_predictors" not in parts:
        return
    require("_in_fit" not in parts, "it was saved while it was fitted")
    features = require_integer(parts["n_features_in_"], "n_features_in_")
    rounds, width = parts["_predictors"], require_integer(parts["n_trees_per_iteration_"], "n_trees_per_iteration_")
    require(type(rounds) is list and all(type(each) is list for each in rounds), "its rounds are no lists of trees")
    require(all(len(each) == width for each in rounds), "it has another number of trees for each round")
    is_categorical = _find_categorical_features(parts["_bin_mapper"], features)
    for predictor in (one for each in rounds for one in each):
        require(type(predictor) is TreePredictor, "one of its trees is no tree")
        _check_predictor(predictor)
        nodes = predictor.nodes
        inner = nodes[nodes["is_leaf"] == 0]
        require((inner["feature_idx"] < features).all(), _NO_FEATURE)
        no_categories = "it splits on categories of a feature that has none"
        require((inner["is_categorical"] <= is_categorical[inner["feature_idx"]]).all(), no_categories)
    if parts.get("_preprocessor") is not None:
        _check_preprocessor(parts["_preprocessor"], features)


def _find_categorical_features(mapper: Any, features: int) -> NDArray[Any]:
    """Return which features are categorical according to the mapper, in the order of the nodes, not of the columns."""
    parts = get_attributes(mapper)
    is_categorical = require_array(parts["is_categorical_"], "is_categorical_", rank=1, kinds="biu")
    require(len(is_categorical) == features, "it knows the categories of other features")
    known = parts["bin_thresholds_"]
    require(type(known) is list and len(known) == features, "it has thresholds of other features")
    for place in np.flatnonzero(is_categorical):
        values = require_array(known[place], "bin_thresholds_", rank=1)
        is_code = np.isfinite(values) & (values >= 0) & (values < _MOST_CATEGORIES)
        require(is_code.all(), "one of its categories has no place")
    return is_categorical


def _check_preprocessor(preprocessor: Any, features: int) -> None:
    """Check that the preprocessor keeps the number of columns: codes of the categories, then unchanged numbers."""
    parts = get_attributes(preprocessor)
    steps = [each for each in parts["transformers_"] if each[1:] != ("drop", [False] * features)]
    masks = [each[2] for each in steps if type(each[1]).__name__ in ("OrdinalEncoder", "FunctionTransformer")]
    is_known = len(steps) == len(masks) == 2 and parts["n_features_in_"] == features
    require(
        is_known and all(np.shape(mask) == (features,) for mask in masks),
        "its preprocessor is not the one of scikit-learn",
    )
    require(
        (np.asarray(masks[0], bool) != np.asarray(masks[1], bool)).all(),
        "its preprocessor does not take each column once",
    )
    for _, transformer, _ in steps:
        function = get_attributes(transformer).get("func")
        require(function is None or type(function) is partial, "its preprocessor changes the numbers")


CHECKS: dict[str, Check] = {
    "sklearn.tree._tree.Tree": _check_tree,
    "sklearn.tree._classes.BaseDecisionTree": _check_one_tree,
    "sklearn.ensemble._forest.BaseForest": _check_forest,
    "sklearn.ensemble._iforest.IsolationForest": _check_isolation_forest,
    "sklearn.ensemble._gb.BaseGradientBoosting": _check_boosted_trees,
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": _check_predictor,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.BaseHistGradientBoosting": _check_histograms,
}

# checks that let an object answer, after all other checks have passed
ANSWER_CHECKS: dict[str, Check] = {"sklearn.ensemble._gb.BaseGradientBoosting": _try_first_answers}
