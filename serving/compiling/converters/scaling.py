"""Transformers of numbers, column by column."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import register_transform
from serving.compiling.converters.elementary import draw_log1p, remove_negative_zeros


@register_transform("StandardScaler")
def draw_standard_scaler(part: Any, rows: Rows) -> Rows:
    """Draw ``(X - mean_) / scale_``."""
    return _shift_and_divide(rows, part.mean_ if part.with_mean else None, part.scale_ if part.with_std else None)


@register_transform("RobustScaler")
def draw_robust_scaler(part: Any, rows: Rows) -> Rows:
    """Draw ``(X - center_) / scale_``."""
    center = part.center_ if part.with_centering else None
    return _shift_and_divide(rows, center, part.scale_ if part.with_scaling else None)


@register_transform("MaxAbsScaler")
def draw_max_abs_scaler(part: Any, rows: Rows) -> Rows:
    """Draw ``X / scale_``."""
    made = _shift_and_divide(rows, None, part.scale_)
    return _clip_rows(made, (-1.0, 1.0)) if getattr(part, "clip", False) else made


@register_transform("MinMaxScaler")
def draw_min_max_scaler(part: Any, rows: Rows) -> Rows:
    """Draw ``X * scale_ + min_``."""
    drawing = rows.drawing
    made = drawing.draw_node("Mul", rows.draw_matrix(), drawing.add_constant(np.asarray(part.scale_, dtype=np.float64)))
    made = drawing.draw_node("Add", made, drawing.add_constant(np.asarray(part.min_, dtype=np.float64)))
    scaled = rows.with_matrix(made, rows.width)
    return _clip_rows(scaled, part.feature_range) if part.clip else scaled


@register_transform("Normalizer")
def draw_normalizer(part: Any, rows: Rows) -> Rows:
    """Draw each row divided by its norm; a norm close to 0 counts as 1, as in ``_handle_zeros_in_scale``."""
    return _divide_by_norm(rows, part.norm, 10 * np.finfo(np.float64).eps)


@register_transform("TfidfTransformer")
def draw_tf_idf(part: Any, rows: Rows) -> Rows:
    """Draw counts, or their logarithms where there are any, times ``idf_``, normalized."""
    drawing = rows.drawing
    made = rows.draw_matrix()
    if part.sublinear_tf:
        zero, one = drawing.add_constant(0.0), drawing.add_constant(1.0)
        is_zero = drawing.draw_node("Equal", made, zero)
        grown = drawing.draw_node("Add", drawing.draw_node("Log", drawing.draw_node("Where", is_zero, one, made)), one)
        made = drawing.draw_node("Where", is_zero, zero, grown)
    if part.use_idf:
        made = drawing.draw_node("Mul", made, drawing.add_constant(np.asarray(part.idf_, dtype=np.float64)))
    weighted = rows.with_matrix(made, rows.width)
    made = weighted.draw_matrix() if part.norm is None else _divide_by_norm(weighted, part.norm).draw_matrix()
    return rows.with_matrix(remove_negative_zeros(drawing, made), rows.width)  # scikit-learn's matrix is sparse


def _divide_by_norm(rows: Rows, kind_of_norm: str, least: float = 0.0) -> Rows:
    """Divide each row by its norm, unless that is 0 or below `least`."""
    drawing = rows.drawing
    matrix = rows.draw_matrix()
    axis = drawing.add_constant(np.array([1], dtype=np.int64))
    if kind_of_norm == "l2":
        squares = drawing.draw_node("ReduceSum", drawing.draw_node("Mul", matrix, matrix), axis)
        norm = drawing.draw_node("Sqrt", squares)
    else:
        kind = "ReduceSum" if kind_of_norm == "l1" else "ReduceMax"
        norm = drawing.draw_node(kind, drawing.draw_node("Abs", matrix), axis)
    zero, one = drawing.add_constant(0.0), drawing.add_constant(1.0)
    is_none = (
        drawing.draw_node("Less", norm, drawing.add_constant(least))
        if least
        else drawing.draw_node("Equal", norm, zero)
    )
    norm = drawing.draw_node("Where", is_none, one, norm)
    return rows.with_matrix(drawing.draw_node("Div", matrix, norm), rows.width)


@register_transform("Binarizer")
def draw_binarizer(part: Any, rows: Rows) -> Rows:
    """Draw 1 where a number is above the threshold."""
    drawing = rows.drawing
    above = drawing.draw_node("Greater", rows.draw_matrix(), drawing.add_constant(float(part.threshold)))
    return rows.with_matrix(drawing.draw_node("Cast", above, to=TensorProto.DOUBLE), rows.width)


@register_transform(
    "GenericUnivariateSelect", "RFE", "RFECV", "SelectFdr", "SelectFpr", "SelectFromModel", "SelectFwe", "SelectKBest",
    "SelectPercentile", "SequentialFeatureSelector", "VarianceThreshold",
)  # fmt: skip
def draw_selection(part: Any, rows: Rows) -> Rows:
    """Draw the columns that were selected."""
    return rows.select_columns(np.flatnonzero(part.get_support()).tolist())


@register_transform("FunctionTransformer")
def draw_function(part: Any, rows: Rows) -> Any:
    """Draw the function, one of `_UFUNCS`; without a function, return the rows as they are."""
    if part.func is None:
        return rows
    return NotImplemented if part.func not in _UFUNCS or part.kw_args else _draw_ufunc(part, rows)


_UFUNCS: dict[Any, str] = {
    np.log: "Log", np.exp: "Exp", np.sqrt: "Sqrt", np.abs: "Abs", np.tanh: "Tanh", np.floor: "Floor", np.ceil: "Ceil",
    np.negative: "Neg", np.sign: "Sign", np.reciprocal: "Reciprocal", np.log1p: "", np.square: "",
}  # fmt: skip


def _draw_ufunc(part: Any, rows: Rows) -> Rows:
    drawing = rows.drawing
    matrix = rows.draw_matrix()
    if part.func is np.square:
        return rows.with_matrix(drawing.draw_node("Mul", matrix, matrix), rows.width)
    if part.func is np.log1p:
        return rows.with_matrix(draw_log1p(drawing, matrix), rows.width)
    return rows.with_matrix(drawing.draw_node(_UFUNCS[part.func], matrix), rows.width)


def _shift_and_divide(rows: Rows, shift: Any, scale: Any) -> Rows:
    drawing = rows.drawing
    made = rows.draw_matrix()
    if shift is not None:
        made = drawing.draw_node("Sub", made, drawing.add_constant(np.asarray(shift, dtype=np.float64)))
    if scale is not None:
        made = drawing.draw_node("Div", made, drawing.add_constant(np.asarray(scale, dtype=np.float64)))
    return rows.with_matrix(made, rows.width)


def _clip_rows(rows: Rows, limits: Any) -> Rows:
    drawing = rows.drawing
    low, high = (drawing.add_constant(float(limit)) for limit in limits)
    return rows.with_matrix(drawing.draw_node("Clip", rows.draw_matrix(), low, high), rows.width)
