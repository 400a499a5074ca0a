"""The rules of ensembles of trees: they check the nodes, which the kernels follow without a check.

Every node is a root or the child of exactly one other node, and is reached from a root in at most `MOST_DEPTH` steps.
Every feature is a column of the input, every target a column of the output. When a session opens, kernels follow the
children by recursion, and copy a node once for each path to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.host.graph_check.ml_operators import require_labels, require_matrix
from serving.host.graph_check.operation import ML, AbstractTensor, Operation, rule
from serving.host.graph_check.sizes import Size

MOST_DEPTH = 4096
SCORE_BYTES = 16  # a sum, and whether it has a value
_MODES = frozenset({b"BRANCH_LEQ", b"BRANCH_LT", b"BRANCH_GTE", b"BRANCH_GT", b"BRANCH_EQ", b"BRANCH_NEQ", b"LEAF"})
_MOST_MODE = 5  # the mode after it looks a value up in a set
Outputs = Sequence[AbstractTensor]
Integers = NDArray[np.int64]


@rule("TreeEnsemble", domain=ML)
def sum_trees(operation: Operation) -> Outputs:
    """Sum trees in the form that our converters draw: inner nodes and leaves in separate lists."""
    first, rows, width = require_matrix(operation)
    features, targets = _require_integers(operation, "nodes_featureids"), _require_integers(operation, "leaf_targetids")
    count, leaves = len(features), len(targets)
    children, is_leaf = [], []
    for side in ("true", "false"):
        children.append(_require_integers(operation, f"nodes_{side}nodeids", count))
        is_leaf.append(_require_integers(operation, f"nodes_{side}leafs", count) != 0)
        limits = np.where(is_leaf[-1], leaves, count)
        _require_within(operation, children[-1], limits, "a child is no node")
    tracks = operation.get_integers("nodes_missing_value_tracks_true")
    operation.require(tracks is None or len(tracks) == count, "its lists of nodes have not one length")
    roots = _require_integers(operation, "tree_roots")
    _require_within(operation, roots, count, "a root is no node")
    _require_within(operation, features, width, "a node reads a column that does not exist")
    outputs = operation.get_integer("n_targets", 1)
    _require_within(operation, targets, outputs, "a leaf adds to an output that does not exist")
    _require_tensors(operation, first.dtype, count, leaves)
    inner = [np.where(leaf, -1, child) for child, leaf in zip(children, is_leaf, strict=True)]
    return _describe_sums(operation, inner, roots, rows, outputs, first.dtype)


def _require_tensors(operation: Operation, dtype: int, count: int, leaves: int) -> None:
    for name, length, wanted in (
        ("nodes_splits", count, dtype),
        ("nodes_hitrates", count, dtype),
        ("leaf_weights", leaves, dtype),
        ("nodes_modes", count, TensorProto.UINT8),
    ):
        found = operation.get_array(name)
        if name == "nodes_hitrates" and found is None:
            continue
        is_right = found is not None and found.shape == (length,) and operation.attributes[name].t.data_type == wanted
        operation.require(is_right, f"{name} is not as it should be")
    modes = operation.get_array("nodes_modes")
    operation.require(modes is not None and modes.max(initial=0) <= _MOST_MODE, "a node compares in a way not known")
    operation.require("membership_values" not in operation.attributes, "a node compares with a set")


@rule("TreeEnsembleRegressor", domain=ML)
def sum_old_trees(operation: Operation) -> Outputs:
    """Sum trees in the form of ``ai.onnx.ml`` 1 to 3: nodes and leaves in one list, found by their numbers."""
    _, rows, _ = require_matrix(operation)
    outputs = operation.get_integer("n_targets", 1)
    inner, roots = _check_old_nodes(operation, "target", outputs)
    return _describe_sums(operation, inner, roots, rows, outputs, TensorProto.FLOAT)


@rule("TreeEnsembleClassifier", domain=ML)
def classify_by_old_trees(operation: Operation) -> Outputs:
    """Give a label for each row and a score for each class, from trees in the form of ``ai.onnx.ml`` 1 to 3."""
    _, rows, _ = require_matrix(operation)
    dtype, count = require_labels(operation)
    inner, roots = _check_old_nodes(operation, "class", count)
    scores = _describe_sums(operation, inner, roots, rows, count, TensorProto.FLOAT)
    return [AbstractTensor(dtype, (rows,)), *scores][: operation.outputs]


def _check_old_nodes(operation: Operation, kind: str, outputs: int) -> tuple[list[Integers], Integers]:
    """Return the children of each node, -1 at leaves, and the roots, both as places in the list."""
    _, _, width = require_matrix(operation)
    trees = _require_integers(operation, "nodes_treeids")
    count = len(trees)
    numbers = _require_integers(operation, "nodes_nodeids", count)
    modes = operation.get_texts("nodes_modes") or []
    operation.require(len(modes) == count and _MODES.issuperset(modes), "a node compares in a way not known")
    is_leaf = np.array([mode == b"LEAF" for mode in modes])
    features = _require_integers(operation, "nodes_featureids", count)
    _require_within(operation, features[~is_leaf], width, "a node reads a column that does not exist")
    _require_within(operation, np.concatenate([trees, numbers]), 1 << 31, "a number is not one of a node")
    tracks = operation.get_integers("nodes_missing_value_tracks_true")
    operation.require(tracks is None or len(tracks) in (0, count), "its lists of nodes have not one length")
    for name in ("nodes_values", "nodes_hitrates"):
        _require_floats(operation, name, count, is_needed=name == "nodes_values")
    keys = (trees << 31) | numbers
    order = np.argsort(keys, kind="stable")
    operation.require(len(np.unique(keys)) == count, "two nodes have one number")
    inner = [
        np.where(
            is_leaf,
            -1,
            _find_places(operation, keys[order], order, trees, _require_integers(operation, name, count), is_leaf),
        )
        for name in ("nodes_truenodeids", "nodes_falsenodeids")
    ]
    starts = np.flatnonzero(np.append(True, trees[1:] != trees[:-1])) if count else np.empty(0, np.int64)
    operation.require(len(starts) == len(np.unique(trees)), "the nodes of a tree are not one after another")
    _require_weights(operation, kind, outputs, keys, is_leaf)
    return inner, starts


def _find_places(
    operation: Operation,
    keys: Integers,
    order: Integers,
    trees: Integers,
    children: Integers,
    is_leaf: NDArray[np.bool_],
) -> Integers:
    """Return where in the list the children of inner nodes stand."""
    children = np.where(is_leaf, 0, children)
    _require_within(operation, children, 1 << 31, "a child is no node")
    wanted = (trees << 31) | children
    found = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    operation.require((is_leaf | (keys[found] == wanted)).all(), "a child is no node")
    return order[found]


def _require_weights(operation: Operation, kind: str, outputs: int, keys: Integers, is_leaf: NDArray[np.bool_]) -> None:
    trees = _require_integers(operation, f"{kind}_treeids")
    nodes = _require_integers(operation, f"{kind}_nodeids", len(trees))
    targets = _require_integers(operation, f"{kind}_ids", len(trees))
    _require_within(operation, targets, outputs, "a leaf adds to an output that does not exist")
    _require_floats(operation, f"{kind}_weights", len(trees), is_needed=True)
    base = operation.get_floats("base_values")
    operation.require(base is None or len(base) in (0, 1, outputs), "base_values are not one for each output")
    _require_within(operation, np.concatenate([trees, nodes]), 1 << 31, "a number is not one of a node")
    held = (trees << 31) | nodes
    operation.require(np.isin(held, keys[is_leaf]).all(), "a weight belongs to no leaf")
    operation.require(np.isin(keys[is_leaf], held).all(), "a leaf has no weight")


def _require_floats(operation: Operation, name: str, length: int, *, is_needed: bool) -> None:
    operation.require(f"{name}_as_tensor" not in operation.attributes, f"{name}_as_tensor is not known")
    found = operation.get_floats(name)
    is_right = not is_needed if found is None or not len(found) else len(found) == length
    operation.require(is_right, f"{name} has not {length} numbers")


def _describe_sums(
    operation: Operation, inner: Sequence[Integers], roots: Integers, rows: Size, outputs: int, dtype: int
) -> Outputs:
    """Return the output of trees. `inner` are the children on both sides that are inner nodes, -1 elsewhere."""
    operation.require(len(roots) >= 1 and outputs >= 1, "it has no trees")
    operation.steps = _count_steps(operation, inner, roots)
    operation.scratch = (rows + Size(0, 1)).scale(SCORE_BYTES * (len(roots) + outputs))
    return [AbstractTensor(dtype, (rows, Size(0, outputs)))]


def _count_steps(operation: Operation, inner: Sequence[Integers], roots: Integers) -> int:
    """Return the largest number of nodes that one row visits in all trees; refuses nodes that form no trees."""
    count = len(inner[0])
    parents = np.bincount(roots, minlength=count)
    for children in inner:
        parents += np.bincount(children[children >= 0], minlength=count)
    operation.require(parents.max(initial=0) <= 1, "a node has two parents")
    level, owners, seen, total, depth = roots, np.arange(len(roots)), 0, 0, 0
    while len(level):
        operation.require(depth < MOST_DEPTH, f"a tree is deeper than {MOST_DEPTH} nodes")
        seen, depth = seen + len(level), depth + 1
        total += int(np.count_nonzero(np.bincount(owners)))
        below = np.concatenate([children[level] for children in inner])
        owners = np.concatenate([owners] * len(inner))[below >= 0]
        level = below[below >= 0]
    operation.require(seen == count, "a node is reached from no root")
    return total


def _require_integers(operation: Operation, name: str, length: int | None = None) -> Integers:
    found = operation.get_integers(name)
    if found is None:
        operation.refuse(f"{name} is missing")
    operation.require(length is None or len(found) == length, "its lists of nodes have not one length")
    return found


def _require_within(operation: Operation, values: Integers, limit: int | Integers, reason: str) -> None:
    operation.require(((values >= 0) & (values < limit)).all(), reason)
