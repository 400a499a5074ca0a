"""Keep decision trees of any library as one table of nodes, and draw that table as one node of a graph.

The node is TreeEnsemble of ai.onnx.ml 5: float64 in and out, one number and one target at each leaf. If leaves hold
several numbers, each tree gives the position of the leaf where a row ends, and a Gather looks the numbers up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.compiling.drawing import Drawing, NotCompilable, make_tensor

ML = "ai.onnx.ml"
_LEQ = 0
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TreeTable:
    """The nodes of all trees of a model, one tree after the other.

    `left` and `right` are positions in the table, -1 at leaves; ``x <= threshold`` leads to the left child. NaN goes to
    the left where `missing_left` is true. Only the `values` of leaves count: (nodes,) or (nodes, outputs).
    """

    roots: Integers
    feature: Integers
    threshold: NDArray[np.floating[Any]]
    left: Integers
    right: Integers
    missing_left: NDArray[np.bool_]
    values: NDArray[np.floating[Any]]

    @property
    def is_leaf(self) -> NDArray[np.bool_]:
        """Which nodes are leaves."""
        return np.asarray(self.left < 0)

    @property
    def tree(self) -> Integers:
        """Which tree each node belongs to."""
        return np.repeat(np.arange(len(self.roots)), np.diff(np.append(self.roots, len(self.feature))))

    def prepend_leaves(self, values: Sequence[float]) -> TreeTable:
        """Return the table with single leaves as its first trees: sums begin with their `values`."""
        return join_tables([*(make_single_leaf(value, self.values.dtype) for value in values), self])


def make_single_leaf(value: float, dtype: Any = np.float64) -> TreeTable:
    """Return one tree that always gives `value`."""
    none = np.array([-1])
    return TreeTable(
        np.array([0]), np.array([0]), np.zeros(1, dtype), none, none, np.array([False]), np.array([value], dtype)
    )


def join_tables(tables: Sequence[TreeTable]) -> TreeTable:
    """Return the trees of several tables as one table."""
    starts = np.cumsum([0] + [len(table.feature) for table in tables[:-1]])

    def shift_children(children: Integers, start: int) -> Integers:
        return np.where(children < 0, -1, children + start)

    return TreeTable(
        roots=np.concatenate([table.roots + start for table, start in zip(tables, starts, strict=True)]),
        feature=np.concatenate([table.feature for table in tables]),
        threshold=np.concatenate([table.threshold for table in tables]),
        left=np.concatenate([shift_children(table.left, start) for table, start in zip(tables, starts, strict=True)]),
        right=np.concatenate([shift_children(table.right, start) for table, start in zip(tables, starts, strict=True)]),
        missing_left=np.concatenate([table.missing_left for table in tables]),
        values=np.concatenate([table.values for table in tables]),
    )


def round_for_float32(threshold: NDArray[np.floating[Any]], *, is_strict: bool = False) -> NDArray[np.float64]:
    """Return float64 thresholds t: for every float64 x, ``x <= t`` is the same as ``float32(x) <= threshold``.

    t is half way between the largest float32 that is not above the threshold (with `is_strict`: that is below it, for
    ``float32(x) < threshold``) and the next float32. An x exactly there is rounded to the one whose last bit is 0. This
    saves the graph two Casts.
    """
    threshold = np.asarray(threshold, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        low = threshold.astype(np.float32)
        is_above = low >= threshold if is_strict else low > threshold
        low = np.where(is_above, np.nextafter(low, np.float32(-np.inf)), low)
        high = np.nextafter(low, np.float32(np.inf))
        # numbers round to infinity from half way to 2**128 on, which would be the next float32
        middle = np.clip(low.astype(np.float64), -(2.0**128), 2.0**128) / 2
        middle += np.clip(high.astype(np.float64), -(2.0**128), 2.0**128) / 2
    is_even = (low.view(np.uint32) & 1) == 0
    made = np.where(is_even, middle, np.nextafter(middle, -np.inf))
    return np.where(np.isposinf(low), np.inf, made)


def draw_leaf_values(drawing: Drawing, table: TreeTable, matrix: str) -> str:
    """Return the values of the leaf where each row ends in each tree: (rows, trees) or (rows, trees, outputs)."""
    if table.values.ndim == 1:
        return draw_ensemble(drawing, replace(table, values=table.values), matrix, table.tree, len(table.roots))
    ordinal = np.cumsum(table.is_leaf) - 1
    places = replace(table, values=ordinal.astype(np.float64))
    found = draw_ensemble(drawing, places, matrix, table.tree, len(table.roots))
    known = drawing.add_constant(table.values[table.is_leaf])
    return drawing.draw_node("Gather", known, drawing.draw_node("Cast", found, to=TensorProto.INT64), axis=0)


def draw_sums_in_turn(drawing: Drawing, table: TreeTable, matrix: str, outputs: int) -> str:
    """Return (rows, outputs): trees belong to the outputs in turn, and each output is the sum of its trees."""
    return draw_ensemble(drawing, table, matrix, table.tree % outputs, outputs)


def draw_sum(drawing: Drawing, table: TreeTable, matrix: str) -> str:
    """Return the sum over all trees, in their order: (rows, 1), or (rows, outputs) where a leaf holds several."""
    if table.values.ndim == 2 and table.values.shape[1] == 1:
        table = replace(table, values=table.values[:, 0])
    if table.values.ndim == 1:
        return draw_ensemble(drawing, table, matrix, np.zeros(len(table.feature), np.int64), 1)
    # ReduceSum promises no order, and ties between classes are ties only in the order of the trees
    sums = drawing.draw_node(
        "CumSum", draw_leaf_values(drawing, table, matrix), drawing.add_constant(np.array(1, dtype=np.int64))
    )
    return drawing.draw_node(
        "Gather", sums, drawing.add_constant(np.array(len(table.roots) - 1, dtype=np.int64)), axis=1
    )


def draw_ensemble(drawing: Drawing, table: TreeTable, matrix: str, targets: Integers, outputs: int) -> str:
    """Return (rows, outputs): for each output the sum of its leaves; `targets` holds the output of each node.

    Comparisons, sums and the result have the dtype of ``table.values``: float32 or float64.
    """
    if len(table.feature) > drawing.max_tree_nodes:
        raise refuse_nodes(len(table.feature), drawing.max_tree_nodes)
    table, targets = _add_roots(table, targets)
    is_leaf = table.is_leaf
    inner = np.flatnonzero(~is_leaf)
    place = np.where(is_leaf, np.cumsum(is_leaf) - 1, np.cumsum(~is_leaf) - 1)
    left, right = table.left[inner], table.right[inner]
    attributes: dict[str, Any] = {
        "n_targets": outputs,
        "aggregate_function": 1,
        "post_transform": 0,
        "tree_roots": place[table.roots].tolist(),
        "nodes_featureids": table.feature[inner].tolist(),
        "nodes_splits": make_tensor(table.threshold[inner].astype(table.values.dtype)),
        "nodes_modes": make_tensor(np.full(len(inner), _LEQ, np.uint8)),
        "nodes_truenodeids": place[left].tolist(),
        "nodes_trueleafs": is_leaf[left].astype(np.int64).tolist(),
        "nodes_falsenodeids": place[right].tolist(),
        "nodes_falseleafs": is_leaf[right].astype(np.int64).tolist(),
        "leaf_targetids": targets[is_leaf].tolist(),
        "leaf_weights": make_tensor(table.values[is_leaf]),
    }
    if table.missing_left[inner].any():
        attributes["nodes_missing_value_tracks_true"] = table.missing_left[inner].astype(np.int64).tolist()
    return drawing.draw_node("TreeEnsemble", matrix, domain=ML, **attributes)


def refuse_nodes(nodes: int, limit: int) -> NotCompilable:
    """Return the refusal of trees above the limit."""
    return NotCompilable(f"the trees have {nodes} nodes, at most {limit} are compiled")


def _add_roots(table: TreeTable, targets: Integers) -> tuple[TreeTable, Integers]:
    """Give every tree that is a single leaf an inner node with that leaf on both sides: a root must not be a leaf."""
    bare = np.flatnonzero(table.is_leaf[table.roots])
    if not len(bare):
        return table, targets
    total = len(table.feature)
    leaves = table.roots[bare]
    roots = table.roots.copy()
    roots[bare] = total + np.arange(len(bare))
    zeros = np.zeros(len(bare), np.int64)

    def append_values(array: NDArray[Any], extra: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([array, extra.astype(array.dtype)])

    return replace(
        table,
        roots=roots,
        feature=append_values(table.feature, zeros),
        threshold=append_values(table.threshold, zeros),
        left=append_values(table.left, leaves),
        right=append_values(table.right, leaves),
        missing_left=append_values(table.missing_left, zeros),
        values=append_values(table.values, np.zeros((len(bare), *table.values.shape[1:]))),
    ), append_values(targets, zeros)
