"""LightGBM's estimators, from the text its booster saves (``Tree::ToString`` and ``tree.h`` of LightGBM).

All arithmetic is float64: ``x <= threshold`` leads to the left. ``decision_type`` has bits: 1 categorical, 2 default
left, 4 and 8 which values are missing (none, zero, NaN). A category is the whole part of a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.booster_categories import SetSplit, add_split_columns, number_categories
from serving.compiling.converters.converter_registry import register_converter
from serving.compiling.converters.labels import (
    draw_both_probabilities,
    draw_label_by_largest,
    draw_label_by_truth,
    draw_logistic,
    flatten_column,
)
from serving.compiling.drawing import Drawing, NotCompilable
from serving.compiling.tree_table import TreeTable, draw_sums_in_turn, join_tables
from serving.host.pandas_categories import Categories, categories_of

_CATEGORICAL, _DEFAULT_LEFT, _ZERO, _NAN = 1, 2, 4, 8
_ZERO_THRESHOLD = float(np.float32(1e-35))
_IDENTITY = {"regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg"}
_LOGARITHMIC = {"poisson", "gamma", "tweedie"}
_CLASSES = {"binary", "multiclass", "multiclassova"}


@dataclass(frozen=True, slots=True)
class _SavedBooster:
    objective: list[str]
    outputs: int
    trees: list[dict[str, str]]
    is_average: bool
    categories: dict[int, Categories]

    @property
    def sigmoid(self) -> float:
        return next((float(word.partition(":")[2]) for word in self.objective if word.startswith("sigmoid:")), 1.0)


@register_converter("LGBMRegressor", "LGBMRanker")
def draw_regressor(part: Any, rows: Rows, method: str) -> Any:
    """Draw the sum of the trees, and the inverse link of the objective."""
    saved: _SavedBooster = rows.drawing.compute_once(("saved", id(part)), lambda: _read_booster(part))
    if method != "predict" or saved.outputs != 1:
        return NotImplemented
    raw = flatten_column(rows.drawing, _draw_average(saved, rows.drawing, _draw_raw(saved, rows)))
    if saved.objective[0] in _LOGARITHMIC:
        return rows.drawing.draw_node("Exp", raw)
    return raw if saved.objective[0] in _IDENTITY and "sqrt" not in saved.objective else _refuse_objective(saved)


@register_converter("LGBMClassifier")
def draw_classifier(part: Any, rows: Rows, method: str) -> Any:
    """Draw probabilities, and the label where they are largest."""
    saved: _SavedBooster = rows.drawing.compute_once(("saved", id(part)), lambda: _read_booster(part))
    drawing = rows.drawing
    if method not in ("predict", "predict_proba", "decision_function"):
        return NotImplemented
    raw = _draw_raw(saved, rows)
    if method == "decision_function":  # LightGBM leaves out the division of random forests here
        return flatten_column(drawing, raw) if saved.outputs == 1 else raw
    raw = _draw_average(saved, drawing, raw)
    if saved.objective[0] in ("multiclass", "multiclassova"):
        shares = _draw_shares(saved, drawing, raw)
        return shares if method == "predict_proba" else draw_label_by_largest(drawing, part.classes_, shares)
    if saved.objective[0] != "binary" or saved.outputs != 1:
        return _refuse_objective(saved)
    second = _draw_second_share(saved, drawing, raw)
    if method == "predict_proba":
        return draw_both_probabilities(drawing, second)
    is_second = drawing.draw_node("Greater", second, drawing.draw_node("Sub", drawing.add_constant(1.0), second))
    return draw_label_by_truth(drawing, part.classes_, flatten_column(drawing, is_second))


@register_converter("LightgbmBooster")
def draw_booster(part: Any, rows: Rows, method: str) -> Any:
    """Draw what ``Booster.predict`` gives: shares of classes where an estimator gives labels."""
    saved: _SavedBooster = rows.drawing.compute_once(("saved", id(part)), lambda: _read_booster(part))
    if method == "decision_function" or saved.objective[0] not in _CLASSES:
        return (draw_classifier if method == "decision_function" else draw_regressor)(part, rows, method)
    raw = _draw_average(saved, rows.drawing, _draw_raw(saved, rows))
    if saved.objective[0] != "binary":
        return _draw_shares(saved, rows.drawing, raw)
    second = _draw_second_share(saved, rows.drawing, raw)
    return (
        draw_both_probabilities(rows.drawing, second)
        if method == "predict_proba"
        else flatten_column(rows.drawing, second)
    )


def _draw_second_share(saved: _SavedBooster, drawing: Drawing, raw: str) -> str:
    """Draw the share of the second of two classes."""
    return draw_logistic(
        drawing, drawing.draw_node("Mul", raw, drawing.add_constant(saved.sigmoid)) if saved.sigmoid != 1 else raw
    )


def _draw_shares(saved: _SavedBooster, drawing: Drawing, raw: str) -> str:
    if saved.objective[0] == "multiclass":
        return drawing.draw_node("Softmax", raw, axis=1)
    return draw_logistic(drawing, drawing.draw_node("Mul", raw, drawing.add_constant(saved.sigmoid)))


def _refuse_objective(saved: _SavedBooster) -> Any:
    raise NotCompilable(f"LightGBM's objective {' '.join(saved.objective)} has no compiled form")


def _draw_raw(saved: _SavedBooster, rows: Rows) -> str:
    return str(rows.drawing.compute_once(("raw", id(saved), rows.blocks), lambda: _draw_trees(saved, rows)))


def _draw_trees(saved: _SavedBooster, rows: Rows) -> str:
    table = join_tables([_read_table(tree) for tree in saved.trees])
    splits = _find_set_splits(saved.trees, table)
    rows = number_categories(rows, saved.categories)
    table, rows = add_split_columns(table, rows, splits, is_left_inside=True, missing_is_outside=True)
    return draw_sums_in_turn(rows.drawing, table, rows.draw_matrix(), saved.outputs)


def _draw_average(saved: _SavedBooster, drawing: Drawing, raw: str) -> str:
    if not saved.is_average:
        return raw
    return drawing.draw_node("Div", raw, drawing.add_constant(float(len(saved.trees) // saved.outputs)))


# --- the saved booster ------------------------------------------------------------------------------------------------


def _read_booster(part: Any) -> _SavedBooster:
    booster = part.booster_
    categories = categories_of(part)
    if booster.pandas_categorical and not categories:
        raise NotCompilable("LightGBM that does not tell the columns of its categories has no compiled form")
    head, *blocks = booster.model_to_string().split("\nend of trees")[0].split("\nTree=")
    lines = head.splitlines()
    known = dict(line.split("=", 1) for line in lines if "=" in line)
    trees = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]
    if "objective" not in known:
        raise NotCompilable("LightGBM with an objective of one's own has no compiled form")
    outputs, is_average = int(known["num_tree_per_iteration"]), "average_output" in lines
    return _SavedBooster(known["objective"].split(), outputs, trees, is_average, categories)


def _read_numbers(tree: dict[str, str], key: str, dtype: Any) -> NDArray[Any]:
    return np.array(tree.get(key, "").split(), dtype=np.float64 if dtype is np.float64 else np.int64).astype(dtype)


def _read_table(tree: dict[str, str]) -> TreeTable:
    if tree.get("is_linear", "0") != "0":
        raise NotCompilable("LightGBM with linear trees has no compiled form")
    leaves = _read_numbers(tree, "leaf_value", np.float64)
    decisions = _read_numbers(tree, "decision_type", np.int64)
    thresholds = _read_numbers(tree, "threshold", np.float64)
    inner = len(leaves) - 1
    is_number = (decisions & _CATEGORICAL) == 0
    # LightGBM replaces numbers up to the zero threshold by 0 first (RowPairFunctionFromDenseMatric in c_api.cpp)
    below_zero = np.nextafter(-_ZERO_THRESHOLD, -np.inf)
    thresholds = np.where(is_number & (thresholds >= -_ZERO_THRESHOLD) & (thresholds < 0), below_zero, thresholds)
    thresholds = np.where(is_number & (thresholds >= 0) & (thresholds < _ZERO_THRESHOLD), _ZERO_THRESHOLD, thresholds)
    if (decisions & _ZERO).any():
        raise NotCompilable("LightGBM that takes zero for a missing value has no compiled form")
    # where nothing was missing in training, null counts as 0
    missing_left = np.where(decisions & _NAN, (decisions & _DEFAULT_LEFT) > 0, thresholds >= 0)
    none = np.full(len(leaves), -1)

    def place_children(children: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.concatenate([np.where(children < 0, inner + ~children, children), none])

    zeros = np.zeros(len(leaves))
    return TreeTable(
        roots=np.array([0]),
        feature=np.concatenate([_read_numbers(tree, "split_feature", np.int64)[:inner], zeros.astype(np.int64)]),
        threshold=np.concatenate([thresholds[:inner], zeros]),
        left=place_children(_read_numbers(tree, "left_child", np.int64)[:inner]),
        right=place_children(_read_numbers(tree, "right_child", np.int64)[:inner]),
        missing_left=np.concatenate([missing_left[:inner], zeros]).astype(np.bool_),
        values=np.concatenate([np.zeros(inner), leaves]),
    )


def _find_set_splits(trees: list[dict[str, str]], table: TreeTable) -> list[SetSplit]:
    found = []
    for tree, root in zip(trees, table.roots.tolist(), strict=True):
        decisions = _read_numbers(tree, "decision_type", np.int64)
        bounds, words = _read_numbers(tree, "cat_boundaries", np.int64), _read_numbers(tree, "cat_threshold", np.int64)
        for node in np.flatnonzero(decisions & _CATEGORICAL).tolist():
            at = int(table.threshold[root + node])
            bits = (words[bounds[at] : bounds[at + 1], None] >> np.arange(32)) & 1
            found.append(SetSplit(root + node, np.flatnonzero(bits.ravel())))
    return found
