"""Checks of neighbour trees and their estimators: each node spans rows that exist, and each row has one label.

From ``sklearn/neighbors/_binary_tree.pxi.tp`` and ``metrics/_pairwise_distances_reduction/``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.metrics._dist_metrics import DistanceMetric
from sklearn.neighbors._ball_tree import BallTree
from sklearn.neighbors._kd_tree import KDTree

from serving.host.restricted.sound.requirements import (
    Check,
    get_attributes,
    require,
    require_array,
    require_indices,
    require_integer,
)

_TREES = {"kd_tree": KDTree, "ball_tree": BallTree}
# the parameters of metrics that are arrays, with their number of dimensions; each has the width of the rows
_SIZED = {"w": 1, "V": 2, "VI": 2}
_OTHER_METRIC = "its metric does not fit its rows"


def _check_tree(tree: Any) -> None:
    state = tree.__getstate__()
    data, places, nodes, bounds = (np.asarray(array) for array in state[:4])
    count, metric, weights = state[6], state[11], state[12]
    rows = len(data)
    require(count >= 1 and state[4] >= 1, "it has no nodes, or leaves of no rows")
    require(weights is None or np.shape(weights) == (rows,), "it does not have a weight for each row")
    require(len(places) == rows and ((places >= 0) & (places < rows)).all(), "it points to rows it does not have")
    is_whole = len(nodes) == count and bounds.shape == (_count_corners(tree), count, data.shape[1])
    require(is_whole, "it does not have the nodes it counts")
    starts, ends = nodes["idx_start"], nodes["idx_end"]
    spans = ((starts >= 0) & (starts <= ends) & (ends <= rows)).all()
    require(spans, "a node spans rows it does not have")
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    require((2 * inner + 2 < len(nodes)).all(), "a node has no children")
    _check_metric(metric, data)


def _count_corners(tree: Any) -> int:
    """Return the number of points that bound a node: two corners of a box, or the center of a ball."""
    return 2 if type(tree).__name__.startswith("KD") else 1


def _check_metric(metric: Any, rows: NDArray[Any]) -> None:
    """Check a compiled metric: its arrays must fit the width of the rows, and scikit-learn checks one of them only."""
    vector, matrix = metric.__getstate__()[1:3]
    width = rows.shape[1]
    try:
        metric._validate_data(rows)
    except ValueError as error:
        require(False, f"{_OTHER_METRIC} ({error})")
    if "Mahalanobis" in type(metric).__name__:
        require(np.shape(matrix) == (width, width), _OTHER_METRIC)
    require(np.ndim(vector) == 1, _OTHER_METRIC)


def _count_rows(rows: Any) -> int:
    require(
        sparse.issparse(rows) or (isinstance(rows, np.ndarray) and rows.ndim == 2), "it has no rows to compare with"
    )
    return int(rows.shape[0])


def _check_neighbours(estimator: Any) -> None:
    parts = get_attributes(estimator)
    if "_fit_X" not in parts and "_tree" not in parts:
        return
    features = require_integer(parts["n_features_in_"], "n_features_in_")
    count = _count_rows(parts["_fit_X"])
    require(require_integer(parts["n_samples_fit_"], "n_samples_fit_") == count, "it counts rows that it does not have")
    require(parts["_fit_X"].shape[1] == features, "it compares rows of another width")
    if parts.get("n_neighbors") is not None:
        require_integer(parts["n_neighbors"], "n_neighbors", 1)
    _check_parameters(parts, features)
    kind = _TREES.get(parts["_fit_method"])
    tree = parts.get("_tree")
    require(tree is None if kind is None else isinstance(tree, kind), "it has no tree of the kind it says")
    if tree is not None:
        require(np.shape(tree.data) == (count, features), "its tree holds other rows")
    if "_y" in parts:
        _check_labels(parts, count)


def _check_parameters(parts: dict[str, Any], width: int) -> None:
    """Check the parameters that compiled code gets beside the rows. A metric written in Python may have any."""
    metric, given = parts["effective_metric_"], parts["effective_metric_params_"]
    if isinstance(metric, DistanceMetric):
        _check_metric(metric, np.zeros((1, width)))
    if callable(metric) or not given:
        return
    require(set(given) <= {"p", "missing_values", *_SIZED}, "its metric has parameters that it does not take")
    for name in _SIZED.keys() & given.keys():
        shape = np.shape(given[name])
        is_fit = shape == (width,) * _SIZED[name] or (name == "V" and shape == (width,)) or given[name] is None
        require(is_fit, _OTHER_METRIC)


def _check_labels(parts: dict[str, Any], count: int) -> None:
    """Check that the labels of a classifier are places among its classes: compiled code counts votes by them."""
    labels = parts["_y"]
    require(len(labels) == count, "it does not have a label for each row")
    if "classes_" not in parts:
        return
    is_several = parts.get("outputs_2d_")
    classes = parts["classes_"] if is_several else [parts["classes_"]]
    columns = (
        require_array(labels, "_y", rank=2, kinds="iu").T if is_several and np.ndim(labels) == 2 else [np.ravel(labels)]
    )
    require(len(columns) == len(classes), "it has labels of other outputs")
    for column, known in zip(columns, classes, strict=True):
        require_indices(np.asarray(column), "_y", len(known))


def _check_density(density: Any) -> None:
    parts = get_attributes(density)
    if "tree_" in parts:
        require(isinstance(parts["tree_"], tuple(_TREES.values())), "it has no tree")
        require(np.shape(parts["tree_"].data)[1] == parts["n_features_in_"], "its tree holds rows of another width")


def _check_birch(birch: Any) -> None:
    """Check the stored lengths of the centers: the search uses them unchecked."""
    parts = get_attributes(birch)
    if "subcluster_centers_" in parts:
        centers = require_array(parts["subcluster_centers_"], "subcluster_centers_", rank=2)
        require(centers.shape[1] == parts["n_features_in_"], "its centers are of another width")
        lengths = require_array(parts["_subcluster_norms"], "_subcluster_norms", rank=1)
        require(len(lengths) == len(centers) == len(parts["subcluster_labels_"]), "its centers and labels do not agree")


CHECKS: dict[str, Check] = {
    **dict.fromkeys(
        (
            f"sklearn.neighbors._{module}.{name}{bits}"
            for module, name in (("kd_tree", "KDTree"), ("ball_tree", "BallTree"))
            for bits in ("", "32", "64")
        ),
        _check_tree,
    ),
    "sklearn.neighbors._base.NeighborsBase": _check_neighbours,
    "sklearn.neighbors._kde.KernelDensity": _check_density,
    "sklearn.cluster._birch.Birch": _check_birch,
}
