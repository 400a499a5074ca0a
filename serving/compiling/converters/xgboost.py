"""XGBoost's estimators, from the JSON its booster saves (doc/model.schema of xgboost).

All arithmetic is float32: rows are cast, ``x < threshold`` leads to the left, leaves are added up in the order of the
trees, beginning with the base score.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.booster_categories import SetSplit, add_split_columns, number_categories
from serving.compiling.converters.converter_registry import register_converter
from serving.compiling.converters.labels import flatten_column
from serving.compiling.drawing import Drawing, NotCompilable
from serving.compiling.tree_table import TreeTable, draw_sums_in_turn, join_tables
from serving.host.pandas_categories import Categories, categories_of

_IDENTITY = {
    "reg:squarederror", "reg:linear", "reg:squaredlogerror", "reg:absoluteerror", "reg:pseudohubererror",
    "reg:quantileerror", "rank:ndcg", "rank:map", "rank:pairwise", "binary:logitraw",
}  # fmt: skip
_LOGISTIC = {"binary:logistic", "reg:logistic"}
_LOGARITHMIC = {"count:poisson", "reg:gamma", "reg:tweedie"}
_SOFTMAX = {"multi:softmax", "multi:softprob"}


@dataclass(frozen=True, slots=True)
class _SavedBooster:
    objective: str
    start: NDArray[np.float32]
    table: TreeTable
    splits: list[SetSplit]
    outputs: int
    categories: dict[int, Categories]


@register_converter("XGBRegressor", "XGBRFRegressor", "XGBRanker")
def draw_regressor(part: Any, rows: Rows, method: str) -> Any:
    """Draw the sum of the trees, and the inverse link of the objective."""
    saved: _SavedBooster = rows.drawing.compute_once(("saved", id(part)), lambda: _read_booster(part))
    drawing = rows.drawing
    if method != "predict" or saved.outputs != 1:
        return NotImplemented
    raw = flatten_column(drawing, _draw_raw(saved, rows))
    if saved.objective in _LOGARITHMIC:
        return drawing.draw_node("Exp", raw)
    if saved.objective in _LOGISTIC:
        return _draw_logistic(drawing, raw)
    return raw if saved.objective in _IDENTITY else _refuse_objective(saved.objective)


@register_converter("XGBClassifier", "XGBRFClassifier")
def draw_classifier(part: Any, rows: Rows, method: str) -> Any:
    """Draw probabilities, and the label where they are largest; of two classes above one half."""
    saved: _SavedBooster = rows.drawing.compute_once(("saved", id(part)), lambda: _read_booster(part))
    drawing = rows.drawing
    if saved.objective in _SOFTMAX:
        shares = drawing.draw_node("Softmax", _draw_raw(saved, rows), axis=1)
        return shares if method == "predict_proba" else drawing.draw_node("ArgMax", shares, axis=1, keepdims=0)
    if saved.objective not in _LOGISTIC or saved.outputs != 1:
        return _refuse_objective(saved.objective)
    second = _draw_logistic(drawing, _draw_raw(saved, rows))
    if method == "predict_proba":
        return drawing.draw_node(
            "Concat", drawing.draw_node("Sub", drawing.add_constant(np.float32(1)), second), second, axis=1
        )
    is_second = drawing.draw_node("Greater", flatten_column(drawing, second), drawing.add_constant(np.float32(0.5)))
    return drawing.draw_node("Cast", is_second, to=TensorProto.INT64)


@register_converter("XgboostBooster")
def draw_booster(part: Any, rows: Rows, method: str) -> Any:
    """Draw what ``Booster.predict`` gives: shares of classes where an estimator gives labels."""
    saved: _SavedBooster = rows.drawing.compute_once(("saved", id(part)), lambda: _read_booster(part))
    if method == "predict" and saved.objective == "multi:softprob":
        return draw_classifier(part, rows, "predict_proba")
    if method == "predict" and saved.objective in _LOGISTIC and saved.outputs == 1:
        return flatten_column(rows.drawing, _draw_logistic(rows.drawing, _draw_raw(saved, rows)))
    is_label = saved.objective == "multi:softmax"
    return (
        draw_classifier(part, rows, method) if is_label or method != "predict" else draw_regressor(part, rows, method)
    )


def _refuse_objective(objective: str) -> Any:
    raise NotCompilable(f"XGBoost's objective {objective} has no compiled form")


def _draw_logistic(drawing: Drawing, raw: str) -> str:
    # onnxruntime's float32 Exp is off by an ulp or two, which 1 - p would make large
    grown = drawing.draw_node("Exp", drawing.draw_node("Cast", drawing.draw_node("Neg", raw), to=TensorProto.DOUBLE))
    grown = drawing.draw_node("Cast", grown, to=TensorProto.FLOAT)
    return drawing.draw_node("Reciprocal", drawing.draw_node("Add", grown, drawing.add_constant(np.float32(1))))


def _draw_raw(saved: _SavedBooster, rows: Rows) -> str:
    return str(rows.drawing.compute_once(("raw", id(saved), rows.blocks), lambda: _draw_trees(saved, rows)))


def _draw_trees(saved: _SavedBooster, rows: Rows) -> str:
    rows = number_categories(rows, saved.categories)
    table, rows = add_split_columns(saved.table, rows, saved.splits, is_left_inside=False, missing_is_outside=False)
    narrow = rows.drawing.draw_node("Cast", rows.draw_matrix(), to=TensorProto.FLOAT)
    return draw_sums_in_turn(rows.drawing, table.prepend_leaves(saved.start.tolist()), narrow, saved.outputs)


# --- the saved booster ------------------------------------------------------------------------------------------------


def _read_booster(part: Any) -> _SavedBooster:
    missing = getattr(part, "missing", math.nan)
    if missing is not None and not math.isnan(missing):
        raise NotCompilable("XGBoost with a number that stands for missing values has no compiled form")
    booster = part.get_booster()
    learner = json.loads(bytes(booster.save_raw(raw_format="json")))["learner"]
    parameters = learner["learner_model_param"]
    name = learner["gradient_booster"]["name"]
    if name not in ("gbtree", "dart") or int(parameters.get("num_target", 1)) > 1:
        raise NotCompilable(f"XGBoost's booster {name} with these outputs has no compiled form")
    gbtree = learner["gradient_booster"]["gbtree"] if name == "dart" else learner["gradient_booster"]
    weights = learner["gradient_booster"].get("weight_drop")
    objective = str(learner["objective"]["name"])
    outputs = max(int(parameters["num_class"]), 1)
    groups = gbtree["model"]["tree_info"]
    is_bare = not hasattr(part, "_get_iteration_range")
    first, last = (0, 0) if is_bare else part._get_iteration_range(None)  # a booster uses all rounds
    trees = gbtree["model"]["trees"]
    bounds = gbtree["model"]["iteration_indptr"]
    chosen = slice(bounds[first], bounds[last] if last else len(trees))
    trees, weights = trees[chosen], [1.0] * len(trees[chosen]) if weights is None else weights[chosen]
    order = _order_trees(groups[chosen], outputs)
    table = join_tables([_read_table(trees[at], weights[at]) for at in order])
    roots = zip(order, table.roots.tolist(), strict=True)
    splits = [SetSplit(root + node, members) for at, root in roots for node, members in _find_sets(trees[at])]
    categories = categories_of(part)
    if any(int(table.feature[split.node]) not in categories for split in splits):
        raise NotCompilable("XGBoost with numbers of categories has no compiled form")
    start = _compute_start(str(parameters["base_score"]), objective, outputs)
    return _SavedBooster(objective, start, table, splits, outputs, categories)


def _order_trees(groups: list[int], outputs: int) -> list[int]:
    """Return the order in which outputs take turns, one tree each; in the file, parallel trees follow each other."""
    of_output = [[at for at, group in enumerate(groups) if group == output] for output in range(outputs)]
    if len({len(own) for own in of_output}) != 1:
        raise NotCompilable("XGBoost with unequal numbers of trees for its classes has no compiled form")
    return [at for turn in zip(*of_output, strict=True) for at in turn]


def _find_sets(tree: dict[str, Any]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield the nodes that split by a set of categories, each with its set; members lead to the right."""
    names = ("categories_nodes", "categories_segments", "categories_sizes")
    categories = np.array(tree.get("categories", []), dtype=np.int64)
    for node, begin, size in zip(*(tree.get(name, []) for name in names), strict=True):
        yield node, categories[begin : begin + size]


def _compute_start(text: str, objective: str, outputs: int) -> NDArray[np.float32]:
    scores = np.array(json.loads(text) if text.startswith("[") else [float(text)], dtype=np.float32)
    if objective in _LOGISTIC:
        scores = -np.log(np.float32(1) / scores - np.float32(1))
    elif objective in _LOGARITHMIC:
        scores = np.log(scores)
    return np.broadcast_to(scores.astype(np.float32), (outputs,))


def _read_table(tree: dict[str, Any], weight: float) -> TreeTable:
    if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise NotCompilable("XGBoost with several values at a leaf has no compiled form")
    left = np.array(tree["left_children"], dtype=np.int64)
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    is_leaf = left < 0
    return TreeTable(
        roots=np.array([0]),
        feature=np.where(is_leaf, 0, np.array(tree["split_indices"], dtype=np.int64)),
        threshold=np.nextafter(conditions, np.float32(-np.inf)),
        left=left,
        right=np.array(tree["right_children"], dtype=np.int64),
        missing_left=np.array(tree["default_left"], dtype=np.bool_) & ~is_leaf,
        values=conditions if weight == 1.0 else conditions * np.float32(weight),
    )
