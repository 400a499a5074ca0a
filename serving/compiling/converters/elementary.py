"""Elementary functions that keep their digits next to 0, where the plain formula has none left.

ONNX has no log1p and no expm1; ``log(1 + x)`` is 0 for every x below 1e-16. Kahan's forms divide the rounding out.
"""

from __future__ import annotations

from serving.compiling.drawing import Drawing


def draw_log1p(drawing: Drawing, values: str) -> str:
    """Return numpy's log1p of a float64 tensor, signed zeros included."""
    one, zero = drawing.constant(1.0), drawing.constant(0.0)
    grown = drawing.op("Add", values, one)
    kept = drawing.op("Sub", grown, one)  # what of the number is left in 1 + x
    is_lost = drawing.op("Equal", kept, zero)
    share = drawing.op("Div", values, drawing.op("Where", is_lost, one, kept))
    return drawing.op("Where", is_lost, values, drawing.op("Mul", drawing.op("Log", grown), share))


def draw_expm1(drawing: Drawing, values: str) -> str:
    """Return numpy's expm1 of a float64 tensor, signed zeros included."""
    one = drawing.constant(1.0)
    grown = drawing.op("Exp", values)
    less_one = drawing.op("Sub", grown, one)
    is_lost = drawing.op("Equal", grown, one)
    logarithm = drawing.op("Where", is_lost, one, drawing.op("Log", grown))
    near = drawing.op("Where", is_lost, values, drawing.op("Mul", less_one, drawing.op("Div", values, logarithm)))
    is_near = drawing.op("Less", drawing.op("Abs", values), one)
    return drawing.op("Where", is_near, near, less_one)


def remove_negative_zeros(drawing: Drawing, values: str) -> str:
    """Return a float64 tensor with every zero positive, as sparse matrices give it, which keep no zeros."""
    zero = drawing.constant(0.0)
    return drawing.op("Where", drawing.op("Equal", values, zero), zero, values)
