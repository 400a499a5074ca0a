"""Reads the range of the numbers in each input column from the fitted attributes of one estimator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse

from serving.host.boosters import find_threshold_ranges

MAX_ROWS = 16

# attributes that hold training rows, or points between them, of shape (n, columns)
_ROW_ATTRIBUTES = (
    "_fit_X",
    "X_",
    "X_fit_",
    "X_train_",
    "support_vectors_",
    "cluster_centers_",
    "subcluster_centers_",
    "centroids_",
    "means_",
    "theta_",
)


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Plausible numbers of one column: values from training, or bounds; None and empty when nothing is known."""

    low: float | None = None
    high: float | None = None
    values: list[float] = field(default_factory=list)


def find_number_ranges(part: Any, columns: int) -> Iterator[NumberRange]:
    """Yield the range of each of its `columns` that one estimator knows; yield nothing when it knows none."""
    rows = _find_kept_rows(part, columns)
    if rows is not None:
        yield from (NumberRange(values=column) for column in rows.T.tolist())
        return
    for read in _READERS:
        bounds = read(part)
        if bounds is None or len(bounds[0]) != columns or len(bounds[1]) != columns:
            continue
        for low, high in zip(*bounds, strict=True):
            is_known = math.isfinite(low) and math.isfinite(high) and low <= high
            yield NumberRange(float(low), float(high)) if is_known else NumberRange()
        return


def _find_kept_rows(part: Any, columns: int) -> Any:
    for name in _ROW_ATTRIBUTES:
        rows: Any = getattr(part, name, None)
        if scipy.sparse.issparse(rows):
            rows = rows[:MAX_ROWS].toarray()
        if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] == columns and rows.dtype.kind in "fiu":
            kept = rows[:MAX_ROWS].astype(float)
            if len(kept) and np.isfinite(kept).all():
                return kept
    return None


def _get_numbers(part: Any, name: str) -> Any:
    value = getattr(part, name, None)
    return value if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "fiu" else None


def _read_minima(part: Any) -> Any:
    low, high = _get_numbers(part, "data_min_"), _get_numbers(part, "data_max_")
    return None if low is None or high is None else (low, high)


def _read_spread(part: Any) -> Any:
    middle = _get_numbers(part, "mean_")
    middle = _get_numbers(part, "center_") if middle is None else middle
    spread = _get_numbers(part, "scale_")
    return None if middle is None or spread is None else (middle - spread, middle + spread)


def _read_largest(part: Any) -> Any:
    largest = _get_numbers(part, "max_abs_")
    return None if largest is None else (largest * 0.1, largest)


def _read_bin_edges(part: Any) -> Any:
    edges = getattr(part, "bin_edges_", None)
    return None if edges is None else ([edge[0] for edge in edges], [edge[-1] for edge in edges])


def _read_quantiles(part: Any) -> Any:
    quantiles: Any = getattr(part, "quantiles_", None)
    return None if quantiles is None or np.ndim(quantiles) != 2 else (quantiles[0], quantiles[-1])


def _read_fill_values(part: Any) -> Any:
    filled = _get_numbers(part, "statistics_")
    return None if filled is None else (filled - abs(filled) * 0.5, filled + abs(filled) * 0.5)


def _read_tree_thresholds(part: Any) -> Any:
    tree = getattr(part, "tree_", None)
    if tree is None:
        return None
    low, high = np.full(tree.n_features, np.inf), np.full(tree.n_features, -np.inf)
    is_split = tree.feature >= 0
    np.minimum.at(low, tree.feature[is_split], tree.threshold[is_split])
    np.maximum.at(high, tree.feature[is_split], tree.threshold[is_split])
    with np.errstate(invalid="ignore"):  # infinite where no node splits on the column
        return low - abs(low) * 0.1, high + abs(high) * 0.1


def _read_booster_thresholds(part: Any) -> Any:
    found = find_threshold_ranges(part)
    if found is None:
        return None
    low, high = map(np.asarray, found)
    with np.errstate(invalid="ignore"):
        return low - abs(low) * 0.1, high + abs(high) * 0.1


def _read_binned_thresholds(part: Any) -> Any:
    mapper = getattr(part, "_bin_mapper", None)
    if mapper is None or getattr(part, "_preprocessor", None) is not None:
        return None
    thresholds = [edges if len(edges) else [math.nan] for edges in mapper.bin_thresholds_]
    return [edges[0] for edges in thresholds], [edges[-1] for edges in thresholds]


def _read_isotonic_bounds(part: Any) -> Any:
    low, high = getattr(part, "X_min_", None), getattr(part, "X_max_", None)
    return None if low is None or high is None else ([low], [high])


def _read_category_counts(part: Any) -> Any:
    counts = getattr(part, "n_categories_", None)
    return None if counts is None else (np.zeros(len(counts)), np.zeros(len(counts)))


_READERS: tuple[Callable[[Any], Any], ...] = (
    _read_minima,
    _read_spread,
    _read_largest,
    _read_bin_edges,
    _read_quantiles,
    _read_fill_values,
    _read_tree_thresholds,
    _read_booster_thresholds,
    _read_binned_thresholds,
    _read_isotonic_bounds,
    _read_category_counts,
)
