"""Estimators around one other estimator (selected features, transformed targets, thresholds), constants, chains."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.composition import get_inner
from serving.compiling.converters.converter_registry import (
    draw_answer,
    draw_answers,
    draw_numeric_answer,
    register_converter,
    register_transform,
)
from serving.compiling.converters.elementary import draw_expm1
from serving.compiling.converters.labels import draw_label_by_truth, flatten_column, reshape_to_column
from serving.compiling.converters.scaling import draw_selection
from serving.compiling.drawing import Drawing, NotCompilable


@register_converter("RFE", "RFECV")
def draw_feature_elimination(part: Any, rows: Rows, method: str) -> Any:
    """Draw the estimator on the columns that are left."""
    return draw_answers(part.estimator_, draw_selection(part, rows), method)


@register_converter("SelfTrainingClassifier")
def draw_self_training(part: Any, rows: Rows, method: str) -> Any:
    """Draw the estimator that was trained last."""
    return draw_answers(part.estimator_, rows, method)


@register_converter("FixedThresholdClassifier", "TunedThresholdClassifierCV")
def draw_threshold(part: Any, rows: Rows, method: str) -> Any:
    """Draw the second class where its score reaches the threshold."""
    wrapped = get_inner(part)
    if method != "predict":
        return draw_answers(wrapped, rows, method)
    drawing = rows.drawing
    asked = part._get_response_method()
    offered = next(name for name in ([asked] if isinstance(asked, str) else asked) if hasattr(wrapped, name))
    if getattr(part, "pos_label", None) not in (None, part.classes_[1]):
        raise NotCompilable(f"{type(part).__name__} for the first class has no compiled form")
    scores = draw_answer(wrapped, rows, offered)
    if offered == "predict_proba":
        one = drawing.add_constant(np.array([1], dtype=np.int64))
        scores = flatten_column(drawing, drawing.draw_node("Gather", scores, one, axis=1))
    limit = getattr(part, "best_threshold_", None)
    limit = part.threshold if limit is None else limit
    if limit == "auto":
        limit = 0.5 if offered == "predict_proba" else 0.0
    reached = drawing.draw_node("GreaterOrEqual", scores, drawing.add_constant(float(limit)))
    return draw_label_by_truth(drawing, part.classes_, reached)


@register_converter("TransformedTargetRegressor")
def draw_transformed_target(part: Any, rows: Rows, method: str) -> Any:
    """Draw the regressor, and the inverse of the transform of its target."""
    if method != "predict":
        return NotImplemented
    found = draw_numeric_answer(part.regressor_, rows, "predict")
    return _draw_inverse(part.transformer_, rows.drawing, found)


def _draw_inverse(transformer: Any, drawing: Drawing, values: str) -> str:
    name = type(transformer).__name__
    if name == "FunctionTransformer":
        if transformer.inverse_func is None:
            return values
        if transformer.inverse_func is np.exp:
            return drawing.draw_node("Exp", values)
        if transformer.inverse_func is np.expm1:
            return draw_expm1(drawing, values)
        if transformer.inverse_func is np.square:
            return drawing.draw_node("Mul", values, values)
    if name == "StandardScaler" and len(np.atleast_1d(transformer.mean_)) == 1:
        grown = drawing.draw_node("Mul", values, drawing.add_constant(float(transformer.scale_[0])))
        return drawing.draw_node("Add", grown, drawing.add_constant(float(transformer.mean_[0])))
    if name == "MinMaxScaler" and len(transformer.scale_) == 1 and not transformer.clip:
        moved = drawing.draw_node("Sub", values, drawing.add_constant(float(transformer.min_[0])))
        return drawing.draw_node("Div", moved, drawing.add_constant(float(transformer.scale_[0])))
    raise NotCompilable(f"a target transformed by {name} has no compiled form")


@register_converter("DummyRegressor")
def draw_constant(part: Any, rows: Rows, method: str) -> Any:
    """Draw the constant, once for each row."""
    if method != "predict" or part.n_outputs_ != 1:
        return NotImplemented
    drawing = rows.drawing
    count = drawing.draw_node("Shape", rows.blocks[0].name, start=0, end=1)
    return drawing.draw_node("Expand", drawing.add_constant(np.ravel(part.constant_).astype(np.float64)), count)


@register_converter("DummyClassifier")
def draw_constant_class(part: Any, rows: Rows, method: str) -> Any:
    """Draw the prior, and its most frequent class; random strategies have no graph."""
    if part.strategy not in ("prior", "most_frequent") or part.n_outputs_ != 1:
        raise NotCompilable(f"DummyClassifier with strategy {part.strategy} answers at random, or has no compiled form")
    drawing = rows.drawing
    count = drawing.draw_node("Shape", rows.blocks[0].name, start=0, end=1)
    winner = int(np.argmax(part.class_prior_))
    if method == "predict":
        return drawing.draw_node("Expand", drawing.add_constant(np.asarray(part.classes_)[winner : winner + 1]), count)
    prior = np.asarray(part.class_prior_, dtype=np.float64)
    shares = prior if part.strategy == "prior" else np.eye(len(prior))[winner]
    shape = drawing.draw_node("Concat", count, drawing.add_constant(np.array([len(prior)])), axis=0)
    return (
        drawing.draw_node("Expand", drawing.add_constant(shares), shape)
        if method == "predict_proba"
        else NotImplemented
    )


@register_transform("KBinsDiscretizer")
def draw_bins(part: Any, rows: Rows) -> Rows:
    """Draw the bin of each number: the count of inner edges not above it; if one-hot, as one column for each bin."""
    drawing = rows.drawing
    axis = drawing.add_constant(np.array([1], dtype=np.int64))
    made, width = [], 0
    for place, edges in enumerate(part.bin_edges_):
        column = rows.select_columns([place]).draw_matrix()
        inner_edges = np.append(np.asarray(edges[1:-1], dtype=np.float64), np.inf)  # never empty
        reached = drawing.draw_node("GreaterOrEqual", column, drawing.add_constant(inner_edges))
        index = drawing.draw_node("ReduceSum", drawing.draw_node("Cast", reached, to=TensorProto.DOUBLE), axis)
        if part.encode == "ordinal":
            made.append(index)
            width += 1
        else:
            is_bin = drawing.draw_node(
                "Equal", index, drawing.add_constant(np.arange(len(edges) - 1, dtype=np.float64))
            )
            made.append(drawing.draw_node("Cast", is_bin, to=TensorProto.DOUBLE))
            width += len(edges) - 1
    return rows.with_matrix(made[0] if len(made) == 1 else drawing.draw_node("Concat", *made, axis=1), width)


@register_converter("RegressorChain")
def draw_chain(part: Any, rows: Rows, method: str) -> Any:
    """Draw each regressor on the rows and the answers of those before it."""
    if method != "predict":
        return NotImplemented
    drawing = rows.drawing
    extended, columns = rows, []
    for member in part.estimators_:
        columns.append(reshape_to_column(drawing, draw_numeric_answer(member, extended, "predict")))
        extended = extended.append_columns([rows.with_matrix(columns[-1], 1)])
    order = [columns[place] for place in np.argsort(part.order_).tolist()]
    return drawing.draw_node("Concat", *order, axis=1)
