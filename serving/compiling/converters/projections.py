"""Transformers that multiply by a matrix, transformers that compute new columns from old ones, and k-means."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import register_converter, register_transform
from serving.compiling.converters.elementary import draw_expm1, draw_log1p
from serving.compiling.converters.kernels import draw_nearest
from serving.compiling.drawing import Drawing

# where scipy.special.boxcox takes other formulas
LOGARITHM_ONLY, LARGEST_EXPONENT = 1e-19, 709.78


def draw_projection(rows: Rows, weights: Any, *, before: Any = None, after: Any = None) -> Rows:
    """Return ``(X - before) @ weights + after``; weights (features, outputs)."""
    drawing = rows.drawing
    made = rows.draw_matrix()
    if before is not None:
        made = drawing.draw_node("Sub", made, drawing.add_constant(np.asarray(before, dtype=np.float64)))
    table = np.asarray(weights.toarray() if hasattr(weights, "toarray") else weights, dtype=np.float64)
    made = drawing.draw_node("MatMul", made, drawing.add_constant(table))
    if after is not None:
        made = drawing.draw_node("Add", made, drawing.add_constant(np.asarray(after, dtype=np.float64)))
    return rows.with_matrix(made, table.shape[1])


@register_transform("IncrementalPCA", "PCA")
def draw_pca(part: Any, rows: Rows) -> Rows:
    """Draw the components of centered rows, as ``_transform`` of sklearn.decomposition._base."""
    made = draw_projection(rows, part.components_.T, before=part.mean_)
    if not part.whiten:
        return made
    scale = np.maximum(np.sqrt(part.explained_variance_), np.finfo(np.float64).eps)
    return made.with_matrix(
        rows.drawing.draw_node("Div", made.draw_matrix(), rows.drawing.add_constant(scale)), made.width
    )


@register_converter("FactorAnalysis", "PCA")
def draw_likelihood(part: Any, rows: Rows, method: str) -> Any:
    """Draw the log likelihood of rows, as ``score_samples`` of PCA and FactorAnalysis."""
    if method != "score_samples":
        return NotImplemented
    drawing = rows.drawing
    precision = np.asarray(part.get_precision(), dtype=np.float64)
    centered = drawing.draw_node(
        "Sub", rows.draw_matrix(), drawing.add_constant(np.asarray(part.mean_, dtype=np.float64))
    )
    products = drawing.draw_node(
        "Mul", centered, drawing.draw_node("MatMul", centered, drawing.add_constant(precision))
    )
    total = drawing.draw_node("ReduceSum", products, drawing.add_constant(np.array([1], dtype=np.int64)), keepdims=0)
    size = 0.5 * (rows.width * np.log(2.0 * np.pi) - np.linalg.slogdet(precision)[1])
    return drawing.draw_node(
        "Sub", drawing.draw_node("Mul", total, drawing.add_constant(-0.5)), drawing.add_constant(float(size))
    )


@register_transform("TruncatedSVD", "GaussianRandomProjection", "SparseRandomProjection")
def draw_components(part: Any, rows: Rows) -> Rows:
    """Draw the product with ``components_``."""
    return draw_projection(rows, part.components_.T)


@register_transform("FastICA")
def draw_fast_ica(part: Any, rows: Rows) -> Rows:
    """Draw the independent components."""
    return draw_projection(rows, part.components_.T, before=part.mean_ if part.whiten else None)


@register_transform("FactorAnalysis")
def draw_factor_analysis(part: Any, rows: Rows) -> Rows:
    """Draw the expected factors, as ``transform`` of FactorAnalysis."""
    weighted = part.components_ / part.noise_variance_
    covariance = np.linalg.inv(np.eye(len(part.components_)) + weighted @ part.components_.T)
    return draw_projection(rows, weighted.T @ covariance, before=part.mean_)


@register_transform("LinearDiscriminantAnalysis")
def draw_discriminants(part: Any, rows: Rows) -> Rows:
    """Draw the discriminants."""
    width = part._max_components
    if part.solver == "svd":
        return draw_projection(rows, part.scalings_[:, :width], before=part.xbar_)
    return draw_projection(rows, part.scalings_[:, :width])


@register_transform("CCA", "PLSCanonical", "PLSRegression")
def draw_pls(part: Any, rows: Rows) -> Rows:
    """Draw the scores of standardized rows."""
    drawing = rows.drawing
    centered = drawing.draw_node(
        "Sub", rows.draw_matrix(), drawing.add_constant(np.asarray(part._x_mean, dtype=np.float64))
    )
    scaled = drawing.draw_node("Div", centered, drawing.add_constant(np.asarray(part._x_std, dtype=np.float64)))
    return draw_projection(rows.with_matrix(scaled, rows.width), part.x_rotations_)


@register_transform("PLSSVD")
def draw_pls_svd(part: Any, rows: Rows) -> Rows:
    """Draw the scores of standardized rows, of the weights themselves."""
    drawing = rows.drawing
    centered = drawing.draw_node(
        "Sub", rows.draw_matrix(), drawing.add_constant(np.asarray(part._x_mean, dtype=np.float64))
    )
    scaled = drawing.draw_node("Div", centered, drawing.add_constant(np.asarray(part._x_std, dtype=np.float64)))
    return draw_projection(rows.with_matrix(scaled, rows.width), part.x_weights_)


@register_converter("CCA", "PLSCanonical", "PLSRegression")
def draw_pls_regressor(part: Any, rows: Rows, method: str) -> Any:
    """Draw the regression on the scores."""
    if method != "predict":
        return NotImplemented
    made = draw_projection(rows, part.coef_.T, before=part._x_mean, after=part.intercept_).draw_matrix()
    return (
        made
        if not part._predict_1d
        else rows.drawing.draw_node("Reshape", made, rows.drawing.add_constant(np.array([-1])))
    )


@register_transform("PolynomialFeatures")
def draw_polynomial(part: Any, rows: Rows) -> Rows:
    """Draw products of columns as scikit-learn computes them: one column times the product of the other factors.

    In another order, other products would overflow first, or vanish near 0.
    """
    drawing = rows.drawing
    wanted = [tuple(np.repeat(np.arange(rows.width), row).tolist()) for row in np.asarray(part.powers_, dtype=np.int64)]
    degrees: dict[int, list[tuple[int, ...]]] = {}
    for degree in range(max(map(len, wanted)), 0, -1):
        shorter = {each[1:] for each in degrees.get(degree + 1, ())}
        degrees[degree] = list(dict.fromkeys([each for each in wanted if len(each) == degree] + sorted(shorter)))
    degrees[1] = [(column,) for column in range(rows.width)]
    made = {1: rows.draw_matrix()}
    for degree in range(2, max(degrees) + 1):
        place = {each: at for at, each in enumerate(degrees[degree - 1])}
        first = _take_columns(drawing, made[1], [each[0] for each in degrees[degree]])
        rest = _take_columns(drawing, made[degree - 1], [place[each[1:]] for each in degrees[degree]])
        made[degree] = drawing.draw_node("Mul", first, rest)
    joined, known = list(made.values()), [each for degree in made for each in degrees[degree]]
    if () in wanted:
        column = _take_columns(drawing, made[1], [0])
        joined.insert(0, drawing.draw_node("Cast", drawing.draw_node("Equal", column, column), to=TensorProto.DOUBLE))
        known.insert(0, ())
    whole = joined[0] if len(joined) == 1 else drawing.draw_node("Concat", *joined, axis=1)
    places = {each: at for at, each in enumerate(known)}
    if known != wanted:
        whole = _take_columns(drawing, whole, [places[each] for each in wanted])
    return rows.with_matrix(whole, len(wanted))


def _take_columns(drawing: Drawing, matrix: str, places: list[int]) -> str:
    return drawing.draw_node("Gather", matrix, drawing.add_constant(np.array(places, dtype=np.int64)), axis=1)


@register_transform("KMeans", "MiniBatchKMeans")
def draw_distances(part: Any, rows: Rows) -> Rows:
    """Draw the distance to each center, by differences: a product would lose digits close to a center."""
    drawing = rows.drawing
    spread = drawing.draw_node("Unsqueeze", rows.draw_matrix(), drawing.add_constant(np.array([1], dtype=np.int64)))
    difference = drawing.draw_node(
        "Sub", spread, drawing.add_constant(np.asarray(part.cluster_centers_, dtype=np.float64))
    )
    axis = drawing.add_constant(np.array([2], dtype=np.int64))
    total = drawing.draw_node("ReduceSum", drawing.draw_node("Mul", difference, difference), axis, keepdims=0)
    return rows.with_matrix(drawing.draw_node("Sqrt", total), len(part.cluster_centers_))


@register_converter("KMeans", "MiniBatchKMeans")
def draw_nearest_center(part: Any, rows: Rows, method: str) -> Any:
    """Draw the position of the nearest center."""
    if method != "predict":
        return NotImplemented
    return draw_nearest(rows, part.cluster_centers_, as_kmeans=True)


@register_transform("PowerTransformer")
def draw_power(part: Any, rows: Rows) -> Rows:
    """Draw Yeo-Johnson's or Box-Cox's transform of all columns at once, then the scaler."""
    drawing = rows.drawing
    draw = _draw_box_cox if part.method == "box-cox" else _draw_yeo_johnson
    made = draw(drawing, rows.draw_matrix(), np.asarray(part.lambdas_, dtype=np.float64))
    if part.standardize:
        scaler = part._scaler
        made = drawing.draw_node("Sub", made, drawing.add_constant(np.asarray(scaler.mean_)))
        made = drawing.draw_node("Div", made, drawing.add_constant(np.asarray(scaler.scale_)))
    return rows.with_matrix(made, rows.width)


def _draw_yeo_johnson(drawing: Drawing, value: str, lambdas: NDArray[np.float64]) -> str:
    """Draw what ``_yeojohnson_transform`` of scipy.stats computes; below 0 it is mirrored, with ``2 - lambda``."""
    eps = np.finfo(np.float64).eps
    is_above = drawing.draw_node("GreaterOrEqual", value, drawing.add_constant(0.0))

    def choose_by_sign(above: NDArray[np.float64], below: NDArray[np.float64]) -> str:
        return drawing.draw_node("Where", is_above, drawing.add_constant(above), drawing.add_constant(below))

    logarithm = draw_log1p(drawing, drawing.draw_node("Where", is_above, value, drawing.draw_node("Neg", value)))
    has_no_power = np.abs(lambdas) < eps, np.abs(lambdas - 2) <= eps
    power = choose_by_sign(
        *(np.where(no, 1.0, each) for no, each in zip(has_no_power, (lambdas, 2 - lambdas), strict=True))
    )
    made = drawing.draw_node("Div", draw_expm1(drawing, drawing.draw_node("Mul", power, logarithm)), power)
    if np.any(has_no_power):
        is_plain = drawing.draw_node(
            "Equal", choose_by_sign(*(no.astype(np.float64) for no in has_no_power)), drawing.add_constant(1.0)
        )
        made = drawing.draw_node("Where", is_plain, logarithm, made)
    return drawing.draw_node("Where", is_above, made, drawing.draw_node("Neg", made))


def _draw_box_cox(drawing: Drawing, value: str, lambdas: NDArray[np.float64]) -> str:
    """Draw what ``boxcox`` of scipy.special computes."""
    logarithm = drawing.draw_node("Log", value)
    has_no_power = np.abs(lambdas) < LOGARITHM_ONLY
    powers = np.where(has_no_power, 1.0, lambdas)
    power = drawing.draw_node("Mul", logarithm, drawing.add_constant(powers))
    made = drawing.draw_node("Div", draw_expm1(drawing, power), drawing.add_constant(powers))
    large = drawing.draw_node("Exp", drawing.draw_node("Sub", power, drawing.add_constant(np.log(np.abs(powers)))))
    large = drawing.draw_node("Mul", large, drawing.add_constant(np.sign(powers)))
    large = drawing.draw_node("Sub", large, drawing.add_constant(1 / powers))
    made = drawing.draw_node(
        "Where", drawing.draw_node("Less", power, drawing.add_constant(LARGEST_EXPONENT)), made, large
    )
    return (
        drawing.draw_node("Where", drawing.add_constant(has_no_power), logarithm, made) if has_no_power.any() else made
    )
