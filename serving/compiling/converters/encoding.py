"""Encoders of categories, and imputers: each has a finite table, which LabelEncoder of ai.onnx.ml 4 looks up.

Its keys may be NaN, and it treats NaN as equal to NaN. Null in text columns is NULL_TEXT. Categories that scikit-learn
refuses (``handle_unknown="error"``) get the answer of an unknown category.
"""

from __future__ import annotations

import math
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.compiling.converters.blocks import Block, Rows
from serving.compiling.converters.converter_registry import draw_transform, register_transform
from serving.compiling.drawing import Drawing, NotCompilable, make_tensor
from serving.compiling.tree_table import ML
from serving.domain.compiled_form import NULL_TEXT
from serving.domain.signature import Dtype


def is_missing(value: Any) -> bool:
    """Say whether a category stands for a missing value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def draw_lookup(drawing: Drawing, block: Block, categories: Any, values: NDArray[Any], default: Any) -> str:
    """Return (rows, 1) of `values`, one for each category of the column `block`; `default` for all others."""
    known: list[Any] = np.asarray(categories).tolist()
    name = block.name
    if block.dtype is Dtype.STRING:
        keys = np.array([NULL_TEXT if is_missing(key) else key for key in known], dtype=object)
        if not all(isinstance(key, str) for key in keys.tolist()):
            raise NotCompilable("an encoder of text knows categories that are no text")
    else:
        if any(isinstance(key, str) for key in known):
            raise NotCompilable("an encoder of numbers knows categories that are text")
        keys = np.array([np.nan if is_missing(key) else key for key in known], dtype=np.float64)
        name = drawing.draw_node("Cast", name, to=TensorProto.DOUBLE) if block.dtype is Dtype.BOOL else name
    if not len(keys):
        raise NotCompilable("an encoder knows no categories")
    return drawing.draw_node(
        "LabelEncoder", name, domain=ML, keys_tensor=make_tensor(keys), values_tensor=make_tensor(values),
        default_tensor=make_tensor(np.array([default], dtype=values.dtype)),
    )  # fmt: skip


def draw_split_columns(column: Rows, categories: Any, goes_left: NDArray[np.bool_]) -> tuple[Rows, NDArray[np.int64]]:
    """Return a column for each distinct categorical split: 0 where a category goes to the left, 1 where to the right.

    `goes_left` is (categories + 1, splits); its last row is for unknown categories. Also returns which of the
    columns each split compares: ``x <= 0.5`` decides. (onnxruntime has no splits by sets in float64 trees.)
    """
    drawing = column.drawing
    distinct, chosen = np.unique(goes_left, axis=1, return_inverse=True)
    codes = np.arange(len(goes_left) - 1, dtype=np.int64)
    index = draw_lookup(drawing, column.blocks[0], categories, codes, len(codes))
    index = drawing.draw_node("Squeeze", index, drawing.add_constant(np.array([1], dtype=np.int64)))
    made = drawing.draw_node("Gather", drawing.add_constant(1.0 - distinct), index, axis=0)
    return column.with_matrix(made, distinct.shape[1]), chosen.ravel()


@register_transform("OneHotEncoder")
def draw_one_hot(part: Any, rows: Rows) -> Rows:
    """Draw for each column the table row of its category; unknown and dropped categories give zeros."""
    drawing = rows.drawing
    made: list[Block] = []
    for place, column in enumerate(rows.split_columns()):
        table, codes, unknown = _make_one_hot_table(part, place)
        index = draw_lookup(drawing, column, part.categories_[place], codes, unknown)
        index = drawing.draw_node("Squeeze", index, drawing.add_constant(np.array([1], dtype=np.int64)))
        made.append(Block(drawing.draw_node("Gather", drawing.add_constant(table), index, axis=0), table.shape[1]))
    return Rows(drawing, tuple(block for block in made if block.width))


def _make_one_hot_table(part: Any, place: int) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Return the rows of the table, the row of each category, and the row of unknown categories."""
    count = len(part.categories_[place])
    mappings = getattr(part, "_default_to_infrequent_mappings", None)
    mapping = mappings[place] if mappings is not None and part._infrequent_enabled else None
    codes = np.arange(count, dtype=np.int64) if mapping is None else np.asarray(mapping, dtype=np.int64)
    width = int(codes.max()) + 1
    table = np.vstack([np.eye(width), np.zeros((1, width))])
    unknown = width
    if mapping is not None and part.handle_unknown in ("infrequent_if_exist", "warn"):
        unknown = int(codes.max())
    dropped = part._drop_idx_after_grouping[place] if part._drop_idx_after_grouping is not None else None
    if dropped is not None:
        table = np.delete(table, int(dropped), axis=1)
    return table, codes, unknown


@register_transform("OrdinalEncoder")
def draw_ordinal(part: Any, rows: Rows) -> Rows:
    """Draw the position of each category, with the values set for unknown and missing ones."""
    drawing = rows.drawing
    made = []
    for place, column in enumerate(rows.split_columns()):
        categories = part.categories_[place]
        mappings = getattr(part, "_default_to_infrequent_mappings", None)
        mapping = mappings[place] if mappings is not None and part._infrequent_enabled else None
        codes = np.arange(len(categories)) if mapping is None else np.asarray(mapping)
        values = codes.astype(np.float64)
        is_nan = [isinstance(key, float) and math.isnan(key) for key in categories.tolist()]
        values[is_nan] = part.encoded_missing_value  # None is a category like any other here
        unknown = part.unknown_value if part.handle_unknown == "use_encoded_value" else np.nan
        made.append(Block(draw_lookup(drawing, column, categories, values, float(unknown)), 1))
    return Rows(drawing, tuple(made))


@register_transform("TargetEncoder")
def draw_target(part: Any, rows: Rows) -> Any:
    """Draw the mean of the target for each category, and the mean of all for unknown ones."""
    drawing = rows.drawing
    means = np.ravel(part.target_mean_)
    classes = len(part.classes_) if part.target_type_ == "multiclass" else 1
    made = []
    for place, column in enumerate(rows.split_columns()):
        for at in range(classes):
            values = np.asarray(part.encodings_[place * classes + at], dtype=np.float64)
            made.append(Block(draw_lookup(drawing, column, part.categories_[place], values, means[at]), 1))
    return Rows(drawing, tuple(made))


@register_transform("SimpleImputer")
def draw_simple_imputer(part: Any, rows: Rows) -> Any:
    """Draw ``statistics_`` in place of missing values; columns without any value in training are left out."""
    drawing = rows.drawing
    statistics = np.asarray(part.statistics_)
    if part.add_indicator:
        return _add_indicator(part, rows)
    if any(block.dtype is Dtype.STRING for block in rows.blocks):
        return _fill_texts(part, rows)
    if not is_missing(part.missing_values) and not isinstance(part.missing_values, (int, float)):
        return NotImplemented
    statistics = statistics.astype(np.float64)
    matrix = rows.draw_matrix()
    is_left = np.isnan(statistics)
    if is_left.any():
        if part.keep_empty_features:
            return NotImplemented
        kept = rows.select_columns(np.flatnonzero(~is_left).tolist())
        matrix, statistics = kept.draw_matrix(), statistics[~is_left]
    fill = drawing.add_constant(statistics)
    is_null = (
        drawing.draw_node("IsNaN", matrix)
        if is_missing(part.missing_values)
        else drawing.draw_node("Equal", matrix, drawing.add_constant(float(part.missing_values)))
    )
    return rows.with_matrix(drawing.draw_node("Where", is_null, fill, matrix), len(statistics))


def _add_indicator(part: Any, rows: Rows) -> Rows:
    """Draw the imputed columns, then one for each that had missing values in training: 1 where a value is missing."""
    # `compute_once` keeps the copy alive: what was drawn is known by its id
    alone = rows.drawing.compute_once(("alone", id(part)), lambda: copy(part))
    alone.add_indicator = False
    return draw_transform(alone, rows).append_columns([draw_transform(part.indicator_, rows)])


@register_transform("MissingIndicator")
def draw_missing_indicator(part: Any, rows: Rows) -> Any:
    """Draw 1 where a number is missing. If the model refuses missing numbers, the signature refuses them first."""
    drawing = rows.drawing
    if not is_missing(part.missing_values) or not len(part.features_):
        return NotImplemented
    is_null = drawing.draw_node("IsNaN", rows.select_columns(np.asarray(part.features_).tolist()).draw_matrix())
    return rows.with_matrix(drawing.draw_node("Cast", is_null, to=TensorProto.DOUBLE), len(part.features_))


def _fill_texts(part: Any, rows: Rows) -> Rows:
    drawing = rows.drawing
    made = []
    missing = NULL_TEXT if is_missing(part.missing_values) else part.missing_values
    for column, fill in zip(rows.split_columns(), part.statistics_, strict=True):
        if column.dtype is not Dtype.STRING or not isinstance(fill, str):
            raise NotCompilable("SimpleImputer of text and numbers together has no compiled form")
        is_null = drawing.draw_node("Equal", column.name, drawing.add_constant(np.array(missing, dtype=object)))
        filled = drawing.draw_node("Where", is_null, drawing.add_constant(np.array(fill, dtype=object)), column.name)
        made.append(Block(filled, 1, Dtype.STRING))
    return Rows(drawing, tuple(made))
