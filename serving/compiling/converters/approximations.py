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
        shifted = drawing.op("Add", rows.matrix(), drawing.constant(float(part.skewedness)))
        rows = rows.with_matrix(drawing.op("Log", shifted), rows.width)
    made = draw_projection(rows, part.random_weights_, after=part.random_offset_)
    waves = drawing.op("Cos", made.matrix())
    size = drawing.constant(float((2.0 / made.width) ** 0.5))
    return rows.with_matrix(drawing.op("Mul", waves, size), made.width)


@register_transform("AdditiveChi2Sampler")
def draw_additive_chi2(part: Any, rows: Rows) -> Any:
    """Draw square roots, times cosines and sines of logarithms; zeros stay."""
    drawing = rows.drawing
    matrix = rows.matrix()
    one, zero = drawing.constant(1.0), drawing.constant(0.0)
    is_zero = drawing.op("Equal", matrix, zero)
    number = drawing.op("Where", is_zero, one, matrix)
    interval = {1: 0.8, 2: 0.5, 3: 0.4}.get(part.sample_steps) if part.sample_interval is None else part.sample_interval
    if interval is None:
        return NotImplemented
    root = drawing.op("Sqrt", drawing.op("Mul", matrix, drawing.constant(float(interval))))
    made = [remove_negative_zeros(drawing, root)]
    logarithm = drawing.op("Mul", drawing.op("Log", number), drawing.constant(float(interval)))
    doubled = drawing.op("Mul", number, drawing.constant(2.0 * float(interval)))
    for step in range(1, part.sample_steps):
        width = drawing.constant(float(np.cosh(np.pi * step * interval)))
        factor = drawing.op("Sqrt", drawing.op("Div", doubled, width))
        angle = drawing.op("Mul", logarithm, drawing.constant(float(step)))
        waves = [drawing.op("Mul", factor, drawing.op(kind, angle)) for kind in ("Cos", "Sin")]
        made.extend(drawing.op("Where", is_zero, zero, wave) for wave in waves)
    joined = made[0] if len(made) == 1 else drawing.op("Concat", *made, axis=1)
    return rows.with_matrix(joined, rows.width * len(made))


@register_transform("Nystroem")
def draw_nystroem(part: Any, rows: Rows) -> Any:
    """Draw the kernel with the remembered rows, normalized."""
    if part.kernel_params:
        return NotImplemented
    like = SimpleNamespace(
        kernel=part.kernel,
        coef0=1.0 if part.coef0 is None else part.coef0,
        degree=3.0 if part.degree is None else part.degree,
    )
    made = draw_kernel(rows, like, part.components_, part.gamma)
    weights = np.asarray(part.normalization_, dtype=np.float64).T
    return rows.with_matrix(rows.drawing.op("MatMul", made, rows.drawing.constant(weights)), weights.shape[1])


@register_transform("BernoulliRBM")
def draw_hidden_units(part: Any, rows: Rows) -> Rows:
    """Draw how likely each hidden unit is on."""
    made = draw_projection(rows, part.components_.T, after=part.intercept_hidden_)
    return rows.with_matrix(draw_logistic(rows.drawing, made.matrix()), made.width)


@register_transform("SplineTransformer")
def draw_splines(part: Any, rows: Rows) -> Rows:
    """Draw each column's B-splines as polynomials between knots, and what continues them outside."""
    # scikit-learn 1.9 continues splines of degree 1 linearly between other knots from its second column on
    least = {"constant": 1, "linear": 2}.get(part.extrapolation)
    if least is None or part.degree < least or part.handle_missing != "error":
        raise NotCompilable(
            "SplineTransformer of this degree, extrapolation or with missing values has no compiled form"
        )
    made, width = [], 0
    for place, spline in enumerate(part.bsplines_):
        count = spline.c.shape[1] - (not part.include_bias)
        made.append(_draw_spline(part, spline, rows.select([place]), count))
        width += count
    return rows.with_matrix(made[0] if len(made) == 1 else rows.drawing.op("Concat", *made, axis=1), width)


def _draw_spline(part: Any, spline: Any, column: Rows, count: int) -> str:
    drawing = column.drawing
    value, degree = column.matrix(), spline.k
    knots = spline.t[degree : len(spline.t) - degree]
    low, high = (drawing.constant(float(knots[end])) for end in (0, -1))
    within = drawing.op("Clip", value, low, high)
    reached = drawing.op("GreaterOrEqual", within, drawing.constant(np.append(knots[1:-1], np.inf)))
    one = drawing.constant(np.array([1], dtype=np.int64))
    interval = drawing.op("ReduceSum", drawing.op("Cast", reached, to=TensorProto.INT64), one, keepdims=0)
    own = [PPoly.from_spline((spline.t, each, degree)).c for each in spline.c.T[:count]]
    pieces = np.stack(own, axis=-1)[:, degree : degree + len(knots) - 1]  # (power, interval, spline)
    start = drawing.op("Gather", drawing.constant(knots[:-1].reshape(-1, 1)), interval, axis=0)
    local = drawing.op("Sub", within, start)
    total = drawing.op("Gather", drawing.constant(pieces[0]), interval, axis=0)
    for piece in pieces[1:]:
        factor = drawing.op("Gather", drawing.constant(piece), interval, axis=0)
        total = drawing.op("Add", drawing.op("Mul", total, local), factor)
    if part.extrapolation != "linear":
        return total
    slopes = np.stack([spline(knots[end], nu=1)[:count] for end in (0, -1)])
    slopes[0, degree:] = 0  # but for rounding, they are so
    slopes[1, : spline.c.shape[1] - degree] = 0
    for side, kind in enumerate(("Min", "Max")):
        beyond = drawing.op("Sub", drawing.op(kind, value, (low, high)[side]), (low, high)[side])
        total = drawing.op("Add", total, drawing.op("Mul", beyond, drawing.constant(slopes[side])))
    return total
