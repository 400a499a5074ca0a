"""HistGradientBoosting of scikit-learn: ``_predictors`` (stages of TreePredictor), all in float64.

Missing values, and categories that the ordinal encoder in front does not know, go where ``missing_go_to_left`` says.
Of the known categories, those in ``raw_left_cat_bitsets`` (8 uint32 for each categorical split) go to the left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import register_converter
from serving.compiling.converters.encoding import draw_split_columns, is_missing
from serving.compiling.converters.gradient_boosting import draw_softmax
from serving.compiling.converters.labels import (
    draw_both_probabilities,
    draw_label_by_largest,
    draw_label_by_sign,
    draw_logistic,
    flatten_column,
)
from serving.compiling.tree_table import TreeTable, draw_sums_in_turn, join_tables


@register_converter("HistGradientBoostingRegressor")
def draw_regressor(part: Any, rows: Rows, method: str) -> Any:
    """Draw the sum of the stages, and the link of the loss."""
    if method != "predict":
        return NotImplemented
    raw = flatten_column(rows.drawing, _draw_raw(part, rows))
    link = type(part._loss.link).__name__
    if link == "LogLink":
        return rows.drawing.draw_node("Exp", raw)
    return raw if link == "IdentityLink" else NotImplemented


@register_converter("HistGradientBoostingClassifier")
def draw_classifier(part: Any, rows: Rows, method: str) -> Any:
    """Draw the sum of the stages, and probabilities or labels from it."""
    drawing = rows.drawing
    if method == "predict_log_proba":
        return NotImplemented
    raw = _draw_raw(part, rows)
    is_binary = part.n_trees_per_iteration_ == 1
    if method == "decision_function":
        return flatten_column(drawing, raw) if is_binary else raw
    if method == "predict":
        if is_binary:
            return draw_label_by_sign(drawing, part.classes_, flatten_column(drawing, raw))
        return draw_label_by_largest(drawing, part.classes_, raw)
    return draw_both_probabilities(drawing, draw_logistic(drawing, raw)) if is_binary else draw_softmax(drawing, raw)


def _draw_raw(part: Any, rows: Rows) -> str:
    return str(rows.drawing.compute_once(("raw", id(part), rows.blocks), lambda: _draw_trees(part, rows)))


def _draw_trees(part: Any, rows: Rows) -> str:
    predictors = [predictor for stage in part._predictors for predictor in stage]
    table = join_tables([_read_table(predictor) for predictor in predictors])
    if part._preprocessor is not None:
        table, rows = _add_split_columns(part, predictors, table, rows)
    table = table.prepend_leaves(np.ravel(part._baseline_prediction).tolist())
    return draw_sums_in_turn(rows.drawing, table, rows.draw_matrix(), part.n_trees_per_iteration_)


def _read_table(predictor: Any) -> TreeTable:
    nodes = predictor.nodes
    is_leaf = nodes["is_leaf"].astype(np.bool_)
    return TreeTable(
        roots=np.array([0]),
        feature=np.where(is_leaf, 0, nodes["feature_idx"]).astype(np.int64),
        threshold=np.where(is_leaf, 0.0, nodes["num_threshold"]),
        left=np.where(is_leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(is_leaf, -1, nodes["right"].astype(np.int64)),
        missing_left=nodes["missing_go_to_left"].astype(np.bool_) & ~is_leaf,
        values=nodes["value"].astype(np.float64),
    )


# --- categorical features ---------------------------------------------------------------------------------------------


def _add_split_columns(part: Any, predictors: list[Any], table: TreeTable, rows: Rows) -> tuple[TreeTable, Rows]:
    """Replace categorical features by columns for their splits; ``_preprocessor`` puts them first, as ordinals."""
    is_categorical = np.asarray(part.is_categorical_)
    columns = np.flatnonzero(is_categorical)
    categories = part._preprocessor.named_transformers_["encoder"].categories_
    is_set_split, sets = _find_sets(predictors)
    others = rows.select_columns(np.flatnonzero(~is_categorical).tolist())
    feature, threshold = (
        np.where(is_set_split, 0, table.feature - len(columns)),
        np.where(is_set_split, 0.5, table.threshold),
    )
    made = []
    start = others.width
    for place, column in enumerate(columns.tolist()):
        nodes = np.flatnonzero(is_set_split & (table.feature == place))
        if not len(nodes):
            continue
        goes_left = np.zeros((len(categories[place]) + 1, len(nodes)), dtype=np.bool_)
        is_known = np.array([not is_missing(value) for value in categories[place].tolist()])
        goes_left[:-1] = sets[nodes, : len(is_known)].T
        goes_left[np.append(~is_known, True)] = table.missing_left[nodes]
        made_columns, chosen = draw_split_columns(rows.select_columns([column]), categories[place], goes_left)
        feature[nodes] = start + chosen
        start += made_columns.width
        made.append(made_columns)
    return replace(table, feature=np.maximum(feature, 0), threshold=threshold), others.append_columns(made)


def _find_sets(predictors: list[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which nodes are categorical splits, and for each node the ordinals (up to 256) that go to the left."""
    flags, sets = [], []
    for predictor in predictors:
        nodes = predictor.nodes
        is_set_split = nodes["is_categorical"].astype(np.bool_) & ~nodes["is_leaf"].astype(np.bool_)
        bits = np.zeros((len(nodes), 8), dtype=np.uint32)
        bits[is_set_split] = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][is_set_split]]
        flags.append(is_set_split)
        sets.append(((bits[:, :, None] >> np.arange(32, dtype=np.uint32)) & 1).reshape(len(nodes), -1))
    return np.concatenate(flags), np.concatenate(sets).astype(np.bool_)
