"""Estimators made of estimators: pipelines, column transformers, feature unions, searches, stacking."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import (
    draw_answer,
    draw_answers,
    draw_numeric_answer,
    draw_transform,
    register_converter,
    register_transform,
)
from serving.compiling.converters.labels import draw_label_by_truth, reshape_to_column
from serving.compiling.drawing import Drawing, NotCompilable
from serving.host.input_columns import resolve_positions as positions

_SEARCHES = ("GridSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV", "RandomizedSearchCV")


@register_converter("Pipeline")
def draw_pipeline(part: Any, rows: Rows, method: str) -> Any:
    """Draw the steps one after the other."""
    for _, step in part.steps[:-1]:
        rows = draw_transform(step, rows)
    return draw_answers(part.steps[-1][1], rows, method)


@register_transform("Pipeline")
def draw_pipeline_transform(part: Any, rows: Rows) -> Rows:
    """Draw all steps as transformers."""
    for _, step in part.steps:
        rows = draw_transform(step, rows)
    return rows


@register_transform("ColumnTransformer")
def draw_column_transformer(part: Any, rows: Rows) -> Rows:
    """Draw each transformer on its columns; the order of the outputs is that of ``transformers_``."""
    names = [str(name) for name in getattr(part, "feature_names_in_", ())]
    made = []
    for _, transformer, selected in part.transformers_:
        if isinstance(transformer, str) and transformer == "drop":
            continue
        chosen = rows.select_columns(positions(selected, names, rows.width))
        if chosen.blocks:
            made.append(draw_transform(transformer, chosen))
    return Rows(rows.drawing, ()).append_columns(made)


@register_transform("FeatureUnion")
def draw_feature_union(part: Any, rows: Rows) -> Rows:
    """Draw every transformer on all columns."""
    if part.transformer_weights and any(weight != 1 for weight in part.transformer_weights.values()):
        weights = part.transformer_weights
        made = [
            scale_rows(draw_transform(step, rows), weights.get(name, 1.0))
            for name, step in part.transformer_list if step != "drop"
        ]  # fmt: skip
    else:
        made = [
            draw_transform(step, rows)
            for _, step in part.transformer_list
            if not isinstance(step, str) or step != "drop"
        ]
    return Rows(rows.drawing, ()).append_columns(made)


def scale_rows(rows: Rows, weight: float) -> Rows:
    """Return rows times a number."""
    return rows.with_matrix(
        rows.drawing.draw_node("Mul", rows.draw_matrix(), rows.drawing.add_constant(float(weight))), rows.width
    )


@register_converter(*_SEARCHES, "FrozenEstimator", "RANSACRegressor")
def draw_search(part: Any, rows: Rows, method: str) -> Any:
    """Draw the best estimator that was found, or the one that is wrapped."""
    return draw_answers(get_inner(part), rows, method)


@register_transform(*_SEARCHES, "FrozenEstimator")
def draw_search_transform(part: Any, rows: Rows) -> Rows:
    """Draw the best estimator that was found, as a transformer."""
    return draw_transform(get_inner(part), rows)


def get_inner(part: Any) -> Any:
    """Return the fitted estimator inside another one that passes its rows on."""
    return getattr(part, "best_estimator_", None) or getattr(part, "estimator_", None) or part.estimator


# --- several estimators on the same rows ------------------------------------------------------------------------------


def draw_total(drawing: Drawing, tensors: list[str]) -> str:
    """Return the sum of tensors, added from the first to the last."""
    found = tensors[0]
    for tensor in tensors[1:]:
        found = drawing.draw_node("Add", found, tensor)
    return found


@register_converter("StackingClassifier", "StackingRegressor")
def draw_stacking(part: Any, rows: Rows, method: str) -> Any:
    """Draw the estimators, and the final estimator on their answers."""
    return (
        draw_answers(part.final_estimator_, draw_stacked_answers(part, rows), method)
        if method != "predict" or not hasattr(part, "_label_encoder")
        else _draw_stacked_label(part, rows)
    )


def _draw_stacked_label(part: Any, rows: Rows) -> Any:
    if isinstance(part._label_encoder, list):
        raise NotCompilable("StackingClassifier of several outputs has no compiled form")
    drawing = rows.drawing
    index = draw_answer(part.final_estimator_, draw_stacked_answers(part, rows), "predict")
    encoded = drawing.draw_node("Cast", index, to=TensorProto.INT64)
    if len(part.classes_) == 2:
        return draw_label_by_truth(drawing, part.classes_, drawing.draw_node("Cast", encoded, to=TensorProto.BOOL))
    return drawing.draw_node("Gather", drawing.add_constant(np.asarray(part.classes_)), encoded, axis=0)


@register_transform("StackingClassifier", "StackingRegressor")
def draw_stacked_answers(part: Any, rows: Rows) -> Rows:
    """Draw the answers of the estimators side by side, of two probabilities the second; then maybe the rows."""
    drawing = rows.drawing
    made, width = [], 0
    for each, method in zip((e for e in part.estimators_ if not isinstance(e, str)), part.stack_method_, strict=False):
        found = draw_numeric_answer(each, rows, method)
        classes = len(getattr(each, "classes_", ()))
        if method == "predict_proba" and classes == 2:
            second = drawing.add_constant(np.array([1], dtype=np.int64))
            made.append(drawing.draw_node("Gather", found, second, axis=1))
            width += 1
        elif method == "predict_proba" or (method == "decision_function" and classes > 2):
            made.append(found)
            width += classes
        else:
            made.append(reshape_to_column(drawing, found))
            width += 1
    joined = made[0] if len(made) == 1 else drawing.draw_node("Concat", *made, axis=1)
    answers_only = rows.with_matrix(joined, width)
    return answers_only.append_columns([rows]) if part.passthrough else answers_only
