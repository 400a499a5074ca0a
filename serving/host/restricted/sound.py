"""What each kind of object with unchecked numbers must be: a problem as a sentence, or None.

By name of the class, where it is defined, so that a class of the operator's with the same name is left alone. Methods
are taken from the class and arrays by exact type: what a file holds may look like either. Computes only; any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_LEAF = -1
_BITSET_WORDS = 8
_NO_ROWS = "it points to rows it does not have"
_NO_FEATURE = "it splits on a feature it does not have"
_LOOP = "a child does not come after its parent"


def problem_of(part: Any) -> str | None:
    """Say what is wrong with one object, None where nothing is known to be."""
    kind = type(part)
    check = _CHECKS.get(f"{kind.__module__}.{kind.__qualname__}")
    if check is not None:
        return check(part)
    if sparse.issparse(part):
        return _sparse_problem(part)
    if kind.__module__.startswith("sklearn.") and hasattr(part, "__dict__"):
        return _fitted_problem(vars(part))
    return None


def _tree_problem(tree: Any) -> str | None:
    """Look at a `sklearn.tree._tree.Tree`: children come after their parent, so that every walk ends."""
    if not 0 < tree.node_count <= tree.capacity:  # before any array is asked for: they are as long as the file says
        return f"it has {tree.capacity} nodes and counts {tree.node_count}"
    # columns of a table of 64 bytes a node: each is read once and copied, what follows is quick
    left, right, feature = map(np.ascontiguousarray, (tree.children_left, tree.children_right, tree.feature))
    places = np.arange(tree.node_count)
    is_leaf = left == _LEAF
    if not np.array_equal(is_leaf, right == _LEAF):
        return "a node has one child"
    if not (is_leaf | (np.minimum(left, right) > places) & (np.maximum(left, right) < tree.node_count)).all():
        return _LOOP
    return None if (is_leaf | (feature >= 0) & (feature < tree.n_features)).all() else _NO_FEATURE


def _come_after(children: NDArray[Any], parents: NDArray[Any], count: int) -> bool:
    return bool(((children > parents) & (children < count)).all())


def _predictor_problem(predictor: Any) -> str | None:
    """Look at a tree of histogram gradient boosting; what features there are is known to its ensemble."""
    nodes = vars(predictor).get("nodes")
    wanted = {"left", "right", "feature_idx", "is_leaf", "is_categorical", "bitset_idx"}
    if type(nodes) is not np.ndarray or nodes.ndim != 1 or not wanted <= set(nodes.dtype.names or ()):
        return "its nodes are no table of nodes"
    if not len(nodes):
        return "it has no nodes"
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    if not all(_come_after(nodes[side][inner], inner, len(nodes)) for side in ("left", "right")):
        return _LOOP
    if (nodes["feature_idx"][inner] < 0).any():
        return _NO_FEATURE
    return _bitsets_problem(predictor, nodes["bitset_idx"][inner[nodes["is_categorical"][inner] != 0]])


def _bitsets_problem(predictor: Any, places: NDArray[Any]) -> str | None:
    for name in ("binned_left_cat_bitsets", "raw_left_cat_bitsets"):
        bitsets = vars(predictor).get(name)
        if type(bitsets) is not np.ndarray or bitsets.ndim != 2 or bitsets.shape[1] != _BITSET_WORDS:
            return "its categories are no table of bits"
        if (places >= len(bitsets)).any():
            return "it splits on categories it does not have"
    return None


def _fitted_problem(attributes: dict[str, Any]) -> str | None:
    """Look at an estimator whose trees are walked over rows that only the estimator has checked."""
    features = attributes.get("n_features_in_")
    for tree in _trees_of(attributes):
        if tree.n_features != features:
            return "it takes other rows than its trees"
    for predictor in _predictors_of(attributes):
        nodes = predictor.nodes
        inner = nodes[nodes["is_leaf"] == 0]
        if (inner["feature_idx"] >= features).any():
            return _NO_FEATURE
        known = vars(attributes["_bin_mapper"])["is_categorical_"]  # in the order of the nodes, not of the columns
        if (inner["is_categorical"] > known[inner["feature_idx"]]).any():
            return "it splits on categories of a feature that has none"
    grid = attributes.get("estimators_")
    per_round = attributes.get("n_trees_per_iteration_")
    if per_round is not None and isinstance(grid, np.ndarray) and (grid.ndim != 2 or grid.shape[1] != per_round):
        return "it has another number of trees for each round"
    return None


def _trees_of(attributes: dict[str, Any]) -> list[Any]:
    owners = [attributes]
    grid = attributes.get("estimators_")
    if isinstance(grid, np.ndarray):
        owners += [vars(one) for one in np.asarray(grid).ravel().tolist() if hasattr(one, "__dict__")]
    trees = [owner.get("tree_") for owner in owners]
    return [tree for tree in trees if type(tree).__module__ == "sklearn.tree._tree"]


def _predictors_of(attributes: dict[str, Any]) -> list[Any]:
    rounds = attributes.get("_predictors")
    if not isinstance(rounds, list):
        return []
    flat = [one for each in rounds if isinstance(each, list) for one in each]
    return [one for one in flat if type(one).__name__ == "TreePredictor" and _predictor_problem(one) is None]


def _neighbours_problem(tree: Any) -> str | None:
    """Look at a KD tree or ball tree: every node spans rows that exist, and has bounds."""
    state = tree.__getstate__()
    data, places, nodes, bounds = (np.asarray(array) for array in state[:4])
    count, metric = state[6], state[11]
    rows = len(data)
    if len(places) != rows or not ((places >= 0) & (places < rows)).all():
        return _NO_ROWS
    if len(nodes) != count or bounds.ndim != 3 or bounds.shape[1:] != (count, data.shape[1]) or not len(bounds):
        return "it does not have the nodes it counts"
    starts, ends = nodes["idx_start"], nodes["idx_end"]
    if not ((starts >= 0) & (starts <= ends) & (ends <= rows)).all():
        return "a node spans rows it does not have"
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    if (2 * inner + 2 >= len(nodes)).any():
        return "a node has no children"
    try:
        metric._validate_data(data)
    except ValueError as error:
        return f"its metric does not fit its rows ({error})"
    return None


def _sparse_problem(matrix: Any) -> str | None:
    kind = type(matrix)
    try:
        if matrix.format in ("csr", "csc", "bsr"):
            kind.check_format(matrix, full_check=True)
        elif matrix.format == "coo":
            kind._check(matrix)
        elif matrix.format == "dia" and matrix.data.shape[:1] != matrix.offsets.shape:
            return "it has not as many diagonals as offsets"
        elif matrix.format == "lil":
            return _lists_problem(matrix)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0][:200]
    return None


def _lists_problem(matrix: Any) -> str | None:
    columns = matrix.shape[1]
    if len(matrix.rows) != matrix.shape[0] or list(map(len, matrix.rows)) != list(map(len, matrix.data)):
        return _NO_ROWS
    return None if all(0 <= place < columns for row in matrix.rows for place in row) else "a column is out of range"


def _spline_problem(spline: Any) -> str | None:
    parts = vars(spline)
    knots, degree = parts.get("_t", parts.get("t")), parts.get("k")
    weights = parts.get("_c", parts.get("c"))
    if type(knots) is not np.ndarray or type(weights) is not np.ndarray or not isinstance(degree, int):
        return "it is no spline"
    is_whole = knots.ndim == 1 and degree >= 0 and len(knots) >= 2 * degree + 2 and weights.ndim >= 1
    if not is_whole or len(weights) < len(knots) - degree - 1 or not (np.diff(knots) >= 0).all():
        return "its knots do not fit its degree"
    return None


def _vectorizer_problem(vectorizer: Any) -> str | None:
    source = vars(vectorizer).get("input", "content")
    if type(source) is not str or source != "content":
        return f"{type(vectorizer).__name__}(input={str(source)[:40]!r}) would open files named by requests"
    return None


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "sklearn.feature_extraction.text.CountVectorizer": _vectorizer_problem,
    "sklearn.feature_extraction.text.TfidfVectorizer": _vectorizer_problem,
    "sklearn.feature_extraction.text.HashingVectorizer": _vectorizer_problem,
    "sklearn.tree._tree.Tree": _tree_problem,
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": _predictor_problem,
    "sklearn.neighbors._kd_tree.KDTree": _neighbours_problem,
    "sklearn.neighbors._kd_tree.KDTree64": _neighbours_problem,
    "sklearn.neighbors._kd_tree.KDTree32": _neighbours_problem,
    "sklearn.neighbors._ball_tree.BallTree": _neighbours_problem,
    "sklearn.neighbors._ball_tree.BallTree64": _neighbours_problem,
    "sklearn.neighbors._ball_tree.BallTree32": _neighbours_problem,
    "scipy.interpolate._bsplines.BSpline": _spline_problem,
}
