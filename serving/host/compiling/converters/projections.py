"""Transformers that multiply by a matrix, and those that make new columns of old ones; k-means."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from serving.host.compiling.converters.blocks import Rows
from serving.host.compiling.converters.kernels import squared_distances
from serving.host.compiling.converters.registry import converts, transforms


def projected(rows: Rows, weights: Any, *, before: Any = None, after: Any = None) -> Rows:
    """Return ``(X - before) @ weights + after``; weights (features, outputs)."""
    drawing = rows.drawing
    made = rows.matrix()
    if before is not None:
        made = drawing.op("Sub", made, drawing.constant(np.asarray(before, dtype=np.float64)))
    table = np.asarray(weights.toarray() if hasattr(weights, "toarray") else weights, dtype=np.float64)
    made = drawing.op("MatMul", made, drawing.constant(table))
    if after is not None:
        made = drawing.op("Add", made, drawing.constant(np.asarray(after, dtype=np.float64)))
    return rows.with_matrix(made, table.shape[1])


@transforms("IncrementalPCA", "PCA")
def pca(part: Any, rows: Rows) -> Rows:
    """Draw the components of centered rows, as ``_transform`` of sklearn.decomposition._base."""
    made = projected(rows, part.components_.T, before=part.mean_)
    if not part.whiten:
        return made
    scale = np.maximum(np.sqrt(part.explained_variance_), np.finfo(np.float64).eps)
    return made.with_matrix(rows.drawing.op("Div", made.matrix(), rows.drawing.constant(scale)), made.width)


@converts("FactorAnalysis", "PCA")
def likelihood(part: Any, rows: Rows, method: str) -> Any:
    """Draw the log likelihood of rows, as ``score_samples`` of PCA and FactorAnalysis."""
    if method != "score_samples":
        return NotImplemented
    drawing = rows.drawing
    precision = np.asarray(part.get_precision(), dtype=np.float64)
    centered = drawing.op("Sub", rows.matrix(), drawing.constant(np.asarray(part.mean_, dtype=np.float64)))
    products = drawing.op("Mul", centered, drawing.op("MatMul", centered, drawing.constant(precision)))
    total = drawing.op("ReduceSum", products, drawing.constant(np.array([1], dtype=np.int64)), keepdims=0)
    size = 0.5 * (rows.width * np.log(2.0 * np.pi) - np.linalg.slogdet(precision)[1])
    return drawing.op("Sub", drawing.op("Mul", total, drawing.constant(-0.5)), drawing.constant(float(size)))


@transforms("TruncatedSVD", "GaussianRandomProjection", "SparseRandomProjection")
def components(part: Any, rows: Rows) -> Rows:
    """Draw the product with ``components_``."""
    return projected(rows, part.components_.T)


@transforms("FastICA")
def fast_ica(part: Any, rows: Rows) -> Rows:
    """Draw the independent components."""
    return projected(rows, part.components_.T, before=part.mean_ if part.whiten else None)


@transforms("FactorAnalysis")
def factor_analysis(part: Any, rows: Rows) -> Rows:
    """Draw the expected factors, as ``transform`` of FactorAnalysis."""
    weighted = part.components_ / part.noise_variance_
    covariance = np.linalg.inv(np.eye(len(part.components_)) + weighted @ part.components_.T)
    return projected(rows, weighted.T @ covariance, before=part.mean_)


@transforms("LinearDiscriminantAnalysis")
def discriminants(part: Any, rows: Rows) -> Rows:
    """Draw the discriminants."""
    width = part._max_components
    if part.solver == "svd":
        return projected(rows, part.scalings_[:, :width], before=part.xbar_)
    return projected(rows, part.scalings_[:, :width])


@transforms("CCA", "PLSCanonical", "PLSRegression")
def pls(part: Any, rows: Rows) -> Rows:
    """Draw the scores of standardized rows."""
    drawing = rows.drawing
    centered = drawing.op("Sub", rows.matrix(), drawing.constant(np.asarray(part._x_mean, dtype=np.float64)))
    scaled = drawing.op("Div", centered, drawing.constant(np.asarray(part._x_std, dtype=np.float64)))
    return projected(rows.with_matrix(scaled, rows.width), part.x_rotations_)


@transforms("PLSSVD")
def pls_svd(part: Any, rows: Rows) -> Rows:
    """Draw the scores of standardized rows, of the weights themselves."""
    drawing = rows.drawing
    centered = drawing.op("Sub", rows.matrix(), drawing.constant(np.asarray(part._x_mean, dtype=np.float64)))
    scaled = drawing.op("Div", centered, drawing.constant(np.asarray(part._x_std, dtype=np.float64)))
    return projected(rows.with_matrix(scaled, rows.width), part.x_weights_)


@converts("CCA", "PLSCanonical", "PLSRegression")
def pls_regressor(part: Any, rows: Rows, method: str) -> Any:
    """Draw the regression on the scores."""
    if method != "predict":
        return NotImplemented
    made = projected(rows, part.coef_.T, before=part._x_mean, after=part.intercept_).matrix()
    return made if not part._predict_1d else rows.drawing.op("Reshape", made, rows.drawing.constant(np.array([-1])))


@transforms("PolynomialFeatures")
def polynomial(part: Any, rows: Rows) -> Rows:
    """Draw products of columns, one factor of all of them at a time; a column of ones stands in where factors end."""
    drawing = rows.drawing
    powers = np.asarray(part.powers_, dtype=np.int64)
    degree = max(int(powers.sum(axis=1).max()), 1)
    factors = np.full((len(powers), degree), rows.width, dtype=np.int64)
    for place, row in enumerate(powers):
        used = np.repeat(np.arange(rows.width), row)
        factors[place, : len(used)] = used
    matrix = rows.matrix()
    column = drawing.op("Gather", matrix, drawing.constant(np.array([0], dtype=np.int64)), axis=1)
    ones = drawing.op("Cast", drawing.op("Equal", column, column), to=TensorProto.DOUBLE)
    extended = drawing.op("Concat", matrix, ones, axis=1)
    made = drawing.op("Gather", extended, drawing.constant(factors[:, 0].copy()), axis=1)
    for place in range(1, degree):
        factor = drawing.op("Gather", extended, drawing.constant(factors[:, place].copy()), axis=1)
        made = drawing.op("Mul", made, factor)
    return rows.with_matrix(made, len(powers))


@transforms("KMeans", "MiniBatchKMeans")
def distances(part: Any, rows: Rows) -> Rows:
    """Draw the distance to each center, by differences: a product would lose digits close to a center."""
    drawing = rows.drawing
    spread = drawing.op("Unsqueeze", rows.matrix(), drawing.constant(np.array([1], dtype=np.int64)))
    apart = drawing.op("Sub", spread, drawing.constant(np.asarray(part.cluster_centers_, dtype=np.float64)))
    axis = drawing.constant(np.array([2], dtype=np.int64))
    total = drawing.op("ReduceSum", drawing.op("Mul", apart, apart), axis, keepdims=0)
    return rows.with_matrix(drawing.op("Sqrt", total), len(part.cluster_centers_))


@converts("KMeans", "MiniBatchKMeans")
def nearest(part: Any, rows: Rows, method: str) -> Any:
    """Draw the position of the nearest center."""
    if method != "predict":
        return NotImplemented
    found = squared_distances(rows, np.asarray(part.cluster_centers_, dtype=np.float64))
    return rows.drawing.op("ArgMin", found, axis=1, keepdims=0)


@transforms("PowerTransformer")
def power(part: Any, rows: Rows) -> Rows:
    """Draw Yeo-Johnson's or Box-Cox's transform column by column, then the scaler."""
    drawing = rows.drawing
    made = [_powered(part, rows.select([place]), float(lmbda)) for place, lmbda in enumerate(part.lambdas_)]
    joined = made[0] if len(made) == 1 else drawing.op("Concat", *made, axis=1)
    if part.standardize:
        scaler = part._scaler
        joined = drawing.op("Sub", joined, drawing.constant(np.asarray(scaler.mean_)))
        joined = drawing.op("Div", joined, drawing.constant(np.asarray(scaler.scale_)))
    return rows.with_matrix(joined, rows.width)


def _powered(part: Any, column: Rows, lmbda: float) -> str:
    drawing = column.drawing
    value = column.matrix()
    one, zero = drawing.constant(1.0), drawing.constant(0.0)
    if part.method == "box-cox":
        return _box_cox(column, value, lmbda)
    above = _box_cox(column, drawing.op("Add", drawing.op("Max", value, zero), one), lmbda)
    mirrored = drawing.op("Sub", one, drawing.op("Min", value, zero))
    below = drawing.op("Neg", _box_cox(column, mirrored, 2 - lmbda))
    return drawing.op("Where", drawing.op("GreaterOrEqual", value, zero), above, below)


def _box_cox(column: Rows, value: str, lmbda: float) -> str:
    drawing = column.drawing
    if abs(lmbda) < np.spacing(1.0):
        return drawing.op("Log", value)
    grown = drawing.op("Sub", drawing.op("Pow", value, drawing.constant(lmbda)), drawing.constant(1.0))
    return drawing.op("Div", grown, drawing.constant(lmbda))
