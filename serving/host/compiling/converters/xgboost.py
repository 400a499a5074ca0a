"""XGBoost's estimators, from the JSON its booster saves (doc/model.schema of xgboost).

All arithmetic is float32: rows are cast, ``x < threshold`` leads to the left, leaves are added up in the order of the
trees, beginning with the base score.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.host.compiling.converters.blocks import Rows
from serving.host.compiling.converters.labels import flat
from serving.host.compiling.converters.registry import converts
from serving.host.compiling.drawing import Drawing, NotCompilable
from serving.host.compiling.trees import TreeTable, joined, summed_in_turn

_IDENTITY = {
    "reg:squarederror", "reg:linear", "reg:squaredlogerror", "reg:absoluteerror", "reg:pseudohubererror",
    "reg:quantileerror", "rank:ndcg", "rank:map", "rank:pairwise", "binary:logitraw",
}  # fmt: skip
_LOGISTIC = {"binary:logistic", "reg:logistic"}
_LOGARITHMIC = {"count:poisson", "reg:gamma", "reg:tweedie"}
_SOFTMAX = {"multi:softmax", "multi:softprob"}


@dataclass(frozen=True, slots=True)
class _Saved:
    objective: str
    start: NDArray[np.float32]
    table: TreeTable
    outputs: int


@converts("XGBRegressor", "XGBRFRegressor", "XGBRanker")
def regressor(part: Any, rows: Rows, method: str) -> Any:
    """Draw the sum of the trees, and the inverse link of the objective."""
    saved: _Saved = rows.drawing.once(("saved", id(part)), lambda: _read(part))
    drawing = rows.drawing
    if method != "predict" or saved.outputs != 1:
        return NotImplemented
    raw = flat(drawing, _raw(saved, rows))
    if saved.objective in _LOGARITHMIC:
        return drawing.op("Exp", raw)
    if saved.objective in _LOGISTIC:
        return _logistic(drawing, raw)
    return raw if saved.objective in _IDENTITY else _unknown(saved.objective)


@converts("XGBClassifier", "XGBRFClassifier")
def classifier(part: Any, rows: Rows, method: str) -> Any:
    """Draw probabilities, and the label where they are largest; of two classes above one half."""
    saved: _Saved = rows.drawing.once(("saved", id(part)), lambda: _read(part))
    drawing = rows.drawing
    if saved.objective in _SOFTMAX:
        shares = drawing.op("Softmax", _raw(saved, rows), axis=1)
        return shares if method == "predict_proba" else drawing.op("ArgMax", shares, axis=1, keepdims=0)
    if saved.objective not in _LOGISTIC or saved.outputs != 1:
        return _unknown(saved.objective)
    second = _logistic(drawing, _raw(saved, rows))
    if method == "predict_proba":
        return drawing.op("Concat", drawing.op("Sub", drawing.constant(np.float32(1)), second), second, axis=1)
    is_second = drawing.op("Greater", flat(drawing, second), drawing.constant(np.float32(0.5)))
    return drawing.op("Cast", is_second, to=TensorProto.INT64)


@converts("XgboostBooster")
def booster(part: Any, rows: Rows, method: str) -> Any:
    """Draw what ``Booster.predict`` gives: shares of classes where an estimator gives labels."""
    saved: _Saved = rows.drawing.once(("saved", id(part)), lambda: _read(part))
    if method == "predict" and saved.objective == "multi:softprob":
        return classifier(part, rows, "predict_proba")
    if method == "predict" and saved.objective in _LOGISTIC and saved.outputs == 1:
        return flat(rows.drawing, _logistic(rows.drawing, _raw(saved, rows)))
    is_label = saved.objective == "multi:softmax"
    return classifier(part, rows, method) if is_label or method != "predict" else regressor(part, rows, method)


def _unknown(objective: str) -> Any:
    raise NotCompilable(f"XGBoost's objective {objective} has no compiled form")


def _logistic(drawing: Drawing, raw: str) -> str:
    # onnxruntime's float32 Exp is off by an ulp or two, which 1 - p would make large
    grown = drawing.op("Exp", drawing.op("Cast", drawing.op("Neg", raw), to=TensorProto.DOUBLE))
    grown = drawing.op("Cast", grown, to=TensorProto.FLOAT)
    return drawing.op("Reciprocal", drawing.op("Add", grown, drawing.constant(np.float32(1))))


def _raw(saved: _Saved, rows: Rows) -> str:
    return str(rows.drawing.once(("raw", id(saved), rows.blocks), lambda: _draw_raw(saved, rows)))


def _draw_raw(saved: _Saved, rows: Rows) -> str:
    narrow = rows.drawing.op("Cast", rows.matrix(), to=TensorProto.FLOAT)
    table = saved.table.after(saved.start.tolist())
    return summed_in_turn(rows.drawing, table, narrow, saved.outputs)


# --- the saved booster ------------------------------------------------------------------------------------------------


def _read(part: Any) -> _Saved:
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
    tables = [_table(tree, 1.0 if weights is None else weights[at]) for at, tree in enumerate(trees)][chosen]
    tables, groups = _in_turn(tables, groups[chosen], outputs)
    start = _start(str(parameters["base_score"]), objective, outputs)
    return _Saved(objective, start, joined(tables), outputs)


def _in_turn(tables: list[TreeTable], groups: list[int], outputs: int) -> tuple[list[TreeTable], list[int]]:
    """Put the trees so that those of each output come in turn, as parallel trees of one class follow each other."""
    if groups == [place % outputs for place in range(len(groups))]:
        return tables, groups
    of_output = [[table for table, group in zip(tables, groups, strict=True) if group == k] for k in range(outputs)]
    if len({len(own) for own in of_output}) != 1:
        raise NotCompilable("XGBoost with unequal numbers of trees for its classes has no compiled form")
    return [table for turn in zip(*of_output, strict=True) for table in turn], list(range(outputs))


def _start(text: str, objective: str, outputs: int) -> NDArray[np.float32]:
    scores = np.array(json.loads(text) if text.startswith("[") else [float(text)], dtype=np.float32)
    if objective in _LOGISTIC or objective == "binary:logitraw":
        scores = -np.log(np.float32(1) / scores - np.float32(1))
    elif objective in _LOGARITHMIC:
        scores = np.log(scores)
    return np.broadcast_to(scores.astype(np.float32), (outputs,))


def _table(tree: dict[str, Any], weight: float) -> TreeTable:
    if any(tree.get("split_type", ())):
        raise NotCompilable("XGBoost with categorical features has no compiled form")
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
