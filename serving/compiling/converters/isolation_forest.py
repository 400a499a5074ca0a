"""IsolationForest: the depth at which each tree ends, from ``_decision_path_lengths`` of sklearn.ensemble._iforest."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble._iforest import _average_path_length

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import draw_answer, register_converter
from serving.compiling.converters.forests import make_table
from serving.compiling.converters.labels import flatten_column
from serving.compiling.converters.linear import draw_inlier_labels
from serving.compiling.tree_table import draw_sum


@register_converter("IsolationForest")
def draw_isolation_forest(part: Any, rows: Rows, method: str) -> Any:
    """Draw ``-2 ** (-depths / normal depth)``, less ``offset_`` for the decision."""
    drawing = rows.drawing
    if method != "score_samples":
        decision = drawing.draw_node(
            "Sub", draw_answer(part, rows, "score_samples"), drawing.add_constant(float(part.offset_))
        )
        return decision if method == "decision_function" else draw_inlier_labels(drawing, decision)
    trees = [member.tree_ for member in part.estimators_]
    depths = [
        part._decision_path_lengths[place] + part._average_path_length_per_tree[place] - 1.0
        for place in range(len(trees))
    ]
    features = None if part._max_features == part.n_features_in_ else part.estimators_features_
    total = flatten_column(drawing, draw_sum(drawing, make_table(trees, depths, features), rows.draw_matrix()))
    normal = float(len(trees) * _average_path_length([part._max_samples])[0])
    share = (
        drawing.draw_node("Div", total, drawing.add_constant(-normal))
        if normal
        else drawing.draw_node("Sub", total, total)
    )
    if not normal:
        share = drawing.draw_node("Sub", share, drawing.add_constant(1.0))
    return drawing.draw_node("Neg", drawing.draw_node("Pow", drawing.add_constant(np.array(2.0)), share))
