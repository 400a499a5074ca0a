"""IsotonicRegression: straight lines between ``X_thresholds_``, as numpy's interp draws them."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import register_converter, register_transform
from serving.compiling.converters.labels import flatten
from serving.compiling.drawing import Drawing, NotCompilable


@register_transform("IsotonicRegression")
def draw_isotonic_transform(part: Any, rows: Rows) -> Rows:
    """Draw the regression of the one feature, as a column."""
    return rows.with_matrix(draw_interpolation(part, rows.drawing, rows.matrix()), 1)


@register_converter("IsotonicRegression")
def draw_isotonic(part: Any, rows: Rows, method: str) -> Any:
    """Draw the regression of the one feature."""
    return (
        flatten(rows.drawing, draw_interpolation(part, rows.drawing, rows.matrix()))
        if method == "predict"
        else NotImplemented
    )


def draw_interpolation(part: Any, drawing: Drawing, column: str) -> str:
    """Return the regression of a column (rows, 1), in the same shape."""
    known = np.asarray(part.X_thresholds_, dtype=np.float64)
    values = np.asarray(part.y_thresholds_, dtype=np.float64)
    if part.out_of_bounds not in ("clip", "nan"):
        raise NotCompilable("IsotonicRegression that refuses numbers out of bounds has no compiled form")
    low, high = drawing.constant(known[0]), drawing.constant(known[-1])
    inside = drawing.op("Clip", column, low, high)
    if len(known) == 1:
        zero = drawing.op("Sub", inside, drawing.constant(known[0]))
        return drawing.op("Add", zero, drawing.constant(values[0]))
    is_reached = drawing.op("GreaterOrEqual", inside, drawing.constant(known[1:-1])) if len(known) > 2 else None
    if is_reached is None:
        index = drawing.op("Cast", drawing.op("Mul", inside, drawing.constant(0.0)), to=TensorProto.INT64)
    else:
        reached = drawing.op("Cast", is_reached, to=TensorProto.INT64)
        index = drawing.op("ReduceSum", reached, drawing.constant(np.array([1], dtype=np.int64)))
    slopes = np.diff(values) / np.diff(known)
    slope = drawing.op("Gather", drawing.constant(slopes), index, axis=0)
    start = drawing.op("Gather", drawing.constant(known[:-1]), index, axis=0)
    base = drawing.op("Gather", drawing.constant(values[:-1]), index, axis=0)
    made = drawing.op("Add", drawing.op("Mul", drawing.op("Sub", inside, start), slope), base)
    if part.out_of_bounds == "clip":
        return made
    return drawing.op("Where", drawing.op("Equal", inside, column), made, drawing.constant(np.nan))
