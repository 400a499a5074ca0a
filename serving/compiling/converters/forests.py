"""Decision trees, extra trees and forests of scikit-learn, from ``tree_`` (sklearn.tree._tree.Tree).

They cast rows to float32 and compare these with float64 thresholds. The graph compares the float64 rows with other
thresholds, which decide alike (`round_for_float32`). ``tree_.value`` is (nodes, outputs, classes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import (
    draw_answer,
    draw_answers,
    draw_transform,
    register_converter,
    register_transform,
)
from serving.compiling.converters.labels import draw_label_by_largest, flatten_column, take_labels
from serving.compiling.tree_table import TreeTable, draw_leaf_values, draw_sum, join_tables, round_for_float32


def make_table(trees: Sequence[Any], values: Sequence[Any], features: Sequence[Any] | None = None) -> TreeTable:
    """Return ``tree_`` objects as one table; `values` has an array for each, `features` its columns (bagging)."""
    return join_tables(
        [
            _read_table(tree, value, None if features is None else features[place])
            for place, (tree, value) in enumerate(zip(trees, values, strict=True))
        ]
    )


def _read_table(tree: Any, values: NDArray[np.float64], features: Any) -> TreeTable:
    nodes = tree.__getstate__()["nodes"]
    feature = np.maximum(nodes["feature"].astype(np.int64), 0)
    return TreeTable(
        roots=np.array([0]),
        feature=feature if features is None else np.asarray(features, dtype=np.int64)[feature],
        threshold=round_for_float32(nodes["threshold"]),
        left=nodes["left_child"].astype(np.int64),
        right=nodes["right_child"].astype(np.int64),
        missing_left=nodes["missing_go_to_left"].astype(np.bool_),
        values=np.asarray(values, dtype=np.float64),
    )


def list_trees(part: Any) -> list[Any]:
    """Return the ``tree_`` of a tree, or those of a forest."""
    members = getattr(part, "estimators_", None)
    return [part.tree_] if members is None else [member.tree_ for member in np.ravel(members)]


@register_transform("RandomTreesEmbedding")
def draw_embedding(part: Any, rows: Rows) -> Rows:
    """Draw a column for each leaf of each tree: 1 where a row ends there."""
    trees = list_trees(part)
    table = make_table(trees, [np.arange(tree.node_count) for tree in trees])
    leaves = rows.with_matrix(draw_leaf_values(rows.drawing, table, rows.draw_matrix()), len(trees))
    return draw_transform(part.one_hot_encoder_, leaves)


@register_converter("DecisionTreeRegressor", "ExtraTreeRegressor", "ExtraTreesRegressor", "RandomForestRegressor")
def draw_regressor(part: Any, rows: Rows, method: str) -> Any:
    """Draw the mean of the trees."""
    if method != "predict":
        return NotImplemented
    drawing = rows.drawing
    trees = list_trees(part)
    total = draw_sum(drawing, make_table(trees, [tree.value[:, :, 0] for tree in trees]), rows.draw_matrix())
    total = flatten_column(drawing, total) if part.n_outputs_ == 1 else total
    return total if len(trees) == 1 else drawing.draw_node("Div", total, drawing.add_constant(float(len(trees))))


@register_converter("DecisionTreeClassifier", "ExtraTreeClassifier", "ExtraTreesClassifier", "RandomForestClassifier")
def draw_classifier(part: Any, rows: Rows, method: str) -> Any:
    """Draw the mean of the probabilities at the leaves, or the label where it is largest."""
    if method == "predict" and part.n_outputs_ == 1:
        return _draw_label(part, rows)
    if method == "predict":
        return _draw_labels(part, rows)
    if method != "predict_proba":
        return NotImplemented
    if part.n_outputs_ == 1:
        return _draw_probabilities(part, rows, 0, part.n_classes_)
    return [_draw_probabilities(part, rows, output, count) for output, count in enumerate(part.n_classes_)]


def _draw_labels(part: Any, rows: Rows) -> str:
    drawing = rows.drawing
    found = []
    dtype = np.result_type(*part.classes_) if np.asarray(part.classes_[0]).dtype.kind in "OU" else np.float64
    shares = draw_answers(part, rows, "predict_proba")
    for output, classes in enumerate(part.classes_):
        labels = np.asarray(classes).astype(dtype)  # several outputs: scikit-learn gives numbers as float64
        index = drawing.draw_node("ArgMax", shares[output], axis=1, keepdims=1)
        found.append(drawing.draw_node("Gather", drawing.add_constant(labels), index, axis=0))
    return drawing.draw_node("Concat", *found, axis=1)


def _draw_probabilities(part: Any, rows: Rows, output: int, classes: int) -> str:
    drawing = rows.drawing
    trees = list_trees(part)
    values = [tree.value[:, output, :classes] for tree in trees]
    total = draw_sum(drawing, make_table(trees, values), rows.draw_matrix())
    return total if len(trees) == 1 else drawing.draw_node("Div", total, drawing.add_constant(float(len(trees))))


def _draw_label(part: Any, rows: Rows) -> str:
    drawing = rows.drawing
    trees = list_trees(part)
    if len(trees) > 1:
        return draw_label_by_largest(drawing, part.classes_, draw_answer(part, rows, "predict_proba"))
    winners = np.argmax(trees[0].value[:, 0, :], axis=1)
    index = flatten_column(drawing, draw_sum(drawing, make_table(trees, [winners]), rows.draw_matrix()))
    return take_labels(drawing, part.classes_, drawing.draw_node("Cast", index, to=TensorProto.INT64))
