"""Elementary functions that stay exact near 0, where the plain formulas lose all digits.

ONNX has no log1p and no expm1; ``log(1 + x)`` is 0 for every x below 1e-16. Kahan's formulas divide the rounding error
out.
"""

from __future__ import annotations

from serving.compiling.drawing import Drawing


def draw_log1p(drawing: Drawing, values: str) -> str:
    """Return numpy's log1p of a float64 tensor, signed zeros included."""
    one, zero = drawing.add_constant(1.0), drawing.add_constant(0.0)
    grown = drawing.draw_node("Add", values, one)
    kept = drawing.draw_node("Sub", grown, one)  # the part of x that is left in 1 + x
    is_lost = drawing.draw_node("Equal", kept, zero)
    share = drawing.draw_node("Div", values, drawing.draw_node("Where", is_lost, one, kept))
    return drawing.draw_node("Where", is_lost, values, drawing.draw_node("Mul", drawing.draw_node("Log", grown), share))


def draw_expm1(drawing: Drawing, values: str) -> str:
    """Return numpy's expm1 of a float64 tensor, signed zeros included."""
    one = drawing.add_constant(1.0)
    grown = drawing.draw_node("Exp", values)
    less_one = drawing.draw_node("Sub", grown, one)
    is_lost = drawing.draw_node("Equal", grown, one)
    logarithm = drawing.draw_node("Where", is_lost, one, drawing.draw_node("Log", grown))
    near = drawing.draw_node(
        "Where", is_lost, values, drawing.draw_node("Mul", less_one, drawing.draw_node("Div", values, logarithm))
    )
    is_near = drawing.draw_node("Less", drawing.draw_node("Abs", values), one)
    return drawing.draw_node("Where", is_near, near, less_one)


def remove_negative_zeros(drawing: Drawing, values: str) -> str:
    """Return a float64 tensor whose zeros are all positive, like those of sparse matrices, which store no zeros."""
    zero = drawing.add_constant(0.0)
    return drawing.draw_node("Where", drawing.draw_node("Equal", values, zero), zero, values)
