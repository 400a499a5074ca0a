"""Features that approximate kernels, splines, and the hidden units of a Boltzmann machine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from onnx import TensorProto
from scipy.interpolate import PPoly

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import register_transform
from serving.compiling.converters.elementary import remove_negative_zeros
from serving.compiling.converters.kernels import draw_kernel
from serving.compiling.converters.labels import draw_logistic
from serving.compiling.converters.projections import draw_projection
from serving.compiling.drawing import NotCompilable


@register_transform("RBFSampler", "SkewedChi2Sampler")
def draw_random_waves(part: Any, rows: Rows) -> Rows:
    """Draw cosines of random projections."""
    drawing = rows.drawing
    if type(part).__name__ == "SkewedChi2Sampler":
        shifted = drawing.draw_node("Add", rows.draw_matrix(), drawing.add_constant(float(part.skewedness)))
        rows = rows.with_matrix(drawing.draw_node("Log", shifted), rows.width)
    made = draw_projection(rows, part.random_weights_, after=part.random_offset_)
    waves = drawing.draw_node("Cos", made.draw_matrix())
    size = drawing.add_constant(float((2.0 / made.width) ** 0.5))
    return rows.with_matrix(drawing.draw_node("Mul", waves, size), made.width)


@register_transform("AdditiveChi2Sampler")
def draw_additive_chi2(part: Any, rows: Rows) -> Any:
    """Draw square roots, times cosines and sines of logarithms; zeros stay."""
    drawing = rows.drawing
    matrix = rows.draw_matrix()
    one, zero = drawing.add_constant(1.0), drawing.add_constant(0.0)
    is_zero = drawing.draw_node("Equal", matrix, zero)
    number = drawing.draw_node("Where", is_zero, one, matrix)
    interval = {1: 0.8, 2: 0.5, 3: 0.4}.get(part.sample_steps) if part.sample_interval is None else part.sample_interval
    if interval is None:
        return NotImplemented
    root = drawing.draw_node("Sqrt", drawing.draw_node("Mul", matrix, drawing.add_constant(float(interval))))
    made = [remove_negative_zeros(drawing, root)]
    logarithm = drawing.draw_node("Mul", drawing.draw_node("Log", number), drawing.add_constant(float(interval)))
    doubled = drawing.draw_node("Mul", number, drawing.add_constant(2.0 * float(interval)))
    for step in range(1, part.sample_steps):
        width = drawing.add_constant(float(np.cosh(np.pi * step * interval)))
        factor = drawing.draw_node("Sqrt", drawing.draw_node("Div", doubled, width))
        angle = drawing.draw_node("Mul", logarithm, drawing.add_constant(float(step)))
        waves = [drawing.draw_node("Mul", factor, drawing.draw_node(kind, angle)) for kind in ("Cos", "Sin")]
        made.extend(drawing.draw_node("Where", is_zero, zero, wave) for wave in waves)
    joined = made[0] if len(made) == 1 else drawing.draw_node("Concat", *made, axis=1)
    return rows.with_matrix(joined, rows.width * len(made))


@register_transform("Nystroem")
def draw_nystroem(part: Any, rows: Rows) -> Any:
    """Draw the kernel with the stored rows, normalized."""
    if part.kernel_params:
        return NotImplemented
    like = SimpleNamespace(
        kernel=part.kernel,
        coef0=1.0 if part.coef0 is None else part.coef0,
        degree=3.0 if part.degree is None else part.degree,
    )
    made = draw_kernel(rows, like, part.components_, part.gamma)
    weights = np.asarray(part.normalization_, dtype=np.float64).T
    return rows.with_matrix(
        rows.drawing.draw_node("MatMul", made, rows.drawing.add_constant(weights)), weights.shape[1]
    )


@register_transform("BernoulliRBM")
def draw_hidden_units(part: Any, rows: Rows) -> Rows:
    """Draw how likely each hidden unit is on."""
    made = draw_projection(rows, part.components_.T, after=part.intercept_hidden_)
    return rows.with_matrix(draw_logistic(rows.drawing, made.draw_matrix()), made.width)


@register_transform("SplineTransformer")
def draw_splines(part: Any, rows: Rows) -> Rows:
    """Draw the B-splines of each column: polynomials between the knots, and their extrapolation outside."""
    # scikit-learn 1.9 continues splines of degree 1 linearly between other knots from its second column on
    least = {"constant": 1, "linear": 2}.get(part.extrapolation)
    if least is None or part.degree < least or part.handle_missing != "error":
        raise NotCompilable(
            "SplineTransformer of this degree, extrapolation or with missing values has no compiled form"
        )
    made, width = [], 0
    for place, spline in enumerate(part.bsplines_):
        count = spline.c.shape[1] - (not part.include_bias)
        made.append(_draw_spline(part, spline, rows.select_columns([place]), count))
        width += count
    return rows.with_matrix(made[0] if len(made) == 1 else rows.drawing.draw_node("Concat", *made, axis=1), width)


def _draw_spline(part: Any, spline: Any, column: Rows, count: int) -> str:
    drawing = column.drawing
    value, degree = column.draw_matrix(), spline.k
    knots = spline.t[degree : len(spline.t) - degree]
    low, high = (drawing.add_constant(float(knots[end])) for end in (0, -1))
    within = drawing.draw_node("Clip", value, low, high)
    reached = drawing.draw_node("GreaterOrEqual", within, drawing.add_constant(np.append(knots[1:-1], np.inf)))
    one = drawing.add_constant(np.array([1], dtype=np.int64))
    interval = drawing.draw_node("ReduceSum", drawing.draw_node("Cast", reached, to=TensorProto.INT64), one, keepdims=0)
    own = [PPoly.from_spline((spline.t, each, degree)).c for each in spline.c.T[:count]]
    pieces = np.stack(own, axis=-1)[:, degree : degree + len(knots) - 1]  # (power, interval, spline)
    start = drawing.draw_node("Gather", drawing.add_constant(knots[:-1].reshape(-1, 1)), interval, axis=0)
    local = drawing.draw_node("Sub", within, start)
    total = drawing.draw_node("Gather", drawing.add_constant(pieces[0]), interval, axis=0)
    for piece in pieces[1:]:
        factor = drawing.draw_node("Gather", drawing.add_constant(piece), interval, axis=0)
        total = drawing.draw_node("Add", drawing.draw_node("Mul", total, local), factor)
    if part.extrapolation != "linear":
        return total
    slopes = np.stack([spline(knots[end], nu=1)[:count] for end in (0, -1)])
    slopes[0, degree:] = 0  # they are 0 except for rounding
    slopes[1, : spline.c.shape[1] - degree] = 0
    for side, kind in enumerate(("Min", "Max")):
        beyond = drawing.draw_node("Sub", drawing.draw_node(kind, value, (low, high)[side]), (low, high)[side])
        total = drawing.draw_node("Add", total, drawing.draw_node("Mul", beyond, drawing.add_constant(slopes[side])))
    return total
