"""Checks of sparse matrices and splines, beside SciPy's own: indices within the shape, knots that fit the degree."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.host.restricted.sound.requirements import Check, get_attributes, require

_NO_ROWS = "it points to rows it does not have"


def _check_matrix(matrix: Any) -> None:
    kind = type(matrix)
    if matrix.format in ("csr", "csc", "bsr"):
        kind.check_format(matrix, full_check=True)
        _check_starts(matrix.indptr, len(matrix.indices))
    elif matrix.format == "coo":
        kind._check(matrix)
    elif matrix.format == "dia":
        require(matrix.data.shape[:1] == matrix.offsets.shape, "it has not as many diagonals as offsets")
    elif matrix.format == "lil":
        _check_lists(matrix)
    elif matrix.format == "dok":
        _check_places(matrix)


def _check_starts(starts: Any, count: int) -> None:
    """Check where rows start. SciPy checks differences, which overflow for integers of few bits."""
    is_ordered = starts[0] == 0 and (starts[1:] >= starts[:-1]).all() and starts[-1] <= count
    require(is_ordered, "its rows do not start where the one before ends")


def _check_lists(matrix: Any) -> None:
    columns = matrix.shape[1]
    is_whole = len(matrix.rows) == matrix.shape[0]
    require(is_whole and list(map(len, matrix.rows)) == list(map(len, matrix.data)), _NO_ROWS)
    require(all(0 <= place < columns for row in matrix.rows for place in row), "a column is out of range")


def _check_places(matrix: Any) -> None:
    """Check a matrix that has a dict with places as keys, or is one, as before SciPy 1.12."""
    places = list(dict.keys(get_attributes(matrix).get("_dict", {})))
    places += dict.keys(matrix) if isinstance(matrix, dict) else ()
    for place in places:
        require(type(place) is tuple and len(place) == len(matrix.shape), _NO_ROWS)
        require(all(0 <= at < size for at, size in zip(place, matrix.shape, strict=True)), _NO_ROWS)


def _check_spline(spline: Any) -> None:
    """Check the knots and the weights under the names of each SciPy: which of them are read depends on its version."""
    parts = get_attributes(spline)
    pairs = [(parts.get(knots), parts.get(weights)) for knots, weights in (("_t", "_c"), ("t", "c")) if knots in parts]
    require(pairs, "it is no spline")
    for knots, weights in pairs:
        _check_knots(knots, weights, parts.get("k"))


def _check_knots(knots: Any, weights: Any, degree: Any) -> None:
    is_one = type(knots) is np.ndarray and type(weights) is np.ndarray and isinstance(degree, (int, np.integer))
    require(is_one, "it is no spline")
    is_whole = knots.dtype == weights.dtype == np.float64
    is_whole = is_whole and knots.ndim == 1 and degree >= 0 and len(knots) >= 2 * degree + 2 and weights.ndim >= 1
    is_whole = is_whole and len(weights) >= len(knots) - degree - 1 and bool((np.diff(knots) >= 0).all())
    require(is_whole, "its knots do not fit its degree")


CHECKS: dict[str, Check] = {
    "scipy.sparse._base._spbase": _check_matrix,
    "scipy.sparse._base.spmatrix": _check_matrix,  # SciPy 1.8 to 1.10
    "scipy.sparse.base.spmatrix": _check_matrix,  # before that
    "scipy.interpolate._bsplines.BSpline": _check_spline,
}
