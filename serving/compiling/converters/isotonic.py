"""IsotonicRegression: straight lines between ``X_thresholds_``, as numpy's interp draws them."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import register_converter, register_transform
from serving.compiling.converters.labels import flatten_column
from serving.compiling.drawing import Drawing, NotCompilable


@register_transform("IsotonicRegression")
def draw_isotonic_transform(part: Any, rows: Rows) -> Rows:
    """Draw the regression of the one feature, as a column."""
    return rows.with_matrix(draw_interpolation(part, rows.drawing, rows.draw_matrix()), 1)


@register_converter("IsotonicRegression")
def draw_isotonic(part: Any, rows: Rows, method: str) -> Any:
    """Draw the regression of the one feature."""
    return (
        flatten_column(rows.drawing, draw_interpolation(part, rows.drawing, rows.draw_matrix()))
        if method == "predict"
        else NotImplemented
    )


def draw_interpolation(part: Any, drawing: Drawing, column: str) -> str:
    """Draw the regression of a column (rows, 1), in the same shape."""
    known = np.asarray(part.X_thresholds_, dtype=np.float64)
    values = np.asarray(part.y_thresholds_, dtype=np.float64)
    if part.out_of_bounds not in ("clip", "nan"):
        raise NotCompilable("IsotonicRegression that refuses numbers out of bounds has no compiled form")
    low, high = drawing.add_constant(known[0]), drawing.add_constant(known[-1])
    inside = drawing.draw_node("Clip", column, low, high)
    if len(known) == 1:
        zero = drawing.draw_node("Sub", inside, drawing.add_constant(known[0]))
        return drawing.draw_node("Add", zero, drawing.add_constant(values[0]))
    is_reached = (
        drawing.draw_node("GreaterOrEqual", inside, drawing.add_constant(known[1:-1])) if len(known) > 2 else None
    )
    if is_reached is None:
        index = drawing.draw_node(
            "Cast", drawing.draw_node("Mul", inside, drawing.add_constant(0.0)), to=TensorProto.INT64
        )
    else:
        reached = drawing.draw_node("Cast", is_reached, to=TensorProto.INT64)
        index = drawing.draw_node("ReduceSum", reached, drawing.add_constant(np.array([1], dtype=np.int64)))
    slopes = np.diff(values) / np.diff(known)
    slope = drawing.draw_node("Gather", drawing.add_constant(slopes), index, axis=0)
    start = drawing.draw_node("Gather", drawing.add_constant(known[:-1]), index, axis=0)
    base = drawing.draw_node("Gather", drawing.add_constant(values[:-1]), index, axis=0)
    made = drawing.draw_node("Add", drawing.draw_node("Mul", drawing.draw_node("Sub", inside, start), slope), base)
    if part.out_of_bounds == "clip":
        return made
    return drawing.draw_node("Where", drawing.draw_node("Equal", inside, column), made, drawing.add_constant(np.nan))
