"""Find where a model's answers may jump: the numbers at which its trees split, in terms of the input columns.

Trees seldom see the input itself. Scalers and imputers in front of them are traced back if they are an affine function
of each column alone. A column that goes through anything else gets no thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from serving.host.input_columns import resolve_positions
from serving.host.pandas_categories import categories_of

MAX_TREES = 64


class Origin(NamedTuple):
    """Where a column of some part comes from: it is ``scale * x + offset``, where `x` is the input column `at`."""

    at: int
    scale: float
    offset: float


Origins = Sequence[Optional[Origin]]


def find_thresholds(estimator: Any, columns: int) -> dict[int, NDArray[np.float64]]:
    """Return for each input column (by position) the sorted numbers at which some tree or binning splits it."""
    found: dict[int, list[NDArray[np.float64]]] = {}
    for origin, numbers in _find_splits(estimator, [Origin(index, 1.0, 0.0) for index in range(columns)]):
        found.setdefault(origin.at, []).append((numbers - origin.offset) / origin.scale)
    kept = {}
    for index, parts in found.items():
        numbers = np.unique(np.concatenate(parts))
        numbers = numbers[np.isfinite(numbers)]
        if numbers.size:
            kept[index] = numbers
    return kept


def _find_splits(part: Any, origins: Origins) -> Iterator[tuple[Origin, NDArray[np.float64]]]:
    if hasattr(part, "steps"):
        for _, step in part.steps:
            yield from _find_splits(step, origins)
            origins = _trace_step(step, origins)
        return
    if hasattr(part, "transformers_"):
        for _, transformer, selected in part.transformers_:
            yield from _find_splits(transformer, [origins[at] for at in _find_positions(part, selected)])
        return
    for _, transformer in getattr(part, "transformer_list", ()):
        yield from _find_splits(transformer, origins)
    for name in ("best_estimator_", "estimator_", "regressor_", "final_estimator_"):
        inner = getattr(part, name, None)
        if inner is not None and getattr(inner, "n_features_in_", -1) == len(origins) and hasattr(inner, "fit"):
            yield from _find_splits(inner, origins)
    for features, thresholds in _find_own_splits(part, origins):
        for feature in np.unique(features):
            origin = origins[feature] if 0 <= feature < len(origins) else None
            if origin is not None and origin.scale:
                yield origin, thresholds[features == feature].astype(np.float64)


def _find_own_splits(part: Any, origins: Origins) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    tree = getattr(part, "tree_", None)
    if tree is not None:
        is_split = tree.children_left >= 0
        yield tree.feature[is_split], tree.threshold[is_split]
    for predictor in np.ravel(np.array(getattr(part, "_predictors", []), dtype=object))[:MAX_TREES]:
        nodes = predictor.nodes
        is_split = (nodes["is_leaf"] == 0) & (nodes["is_categorical"] == 0)
        yield nodes["feature_idx"][is_split].astype(int), nodes["num_threshold"][is_split]
    edges = getattr(part, "bin_edges_", None)
    if edges is not None and len(edges) == len(origins):
        for index, column in enumerate(edges):
            yield np.full(len(column), index), np.asarray(column)
    if hasattr(part, "get_booster") or hasattr(part, "booster_"):
        yield from _find_booster_splits(part)
    members = getattr(part, "estimators_", ())
    subsets = getattr(part, "estimators_features_", None)
    for place, member in enumerate(np.ravel(np.array(list(members), dtype=object))[:MAX_TREES].tolist()):
        inner = getattr(member, "tree_", None)
        for features, thresholds in (
            _find_own_splits(member, origins) if inner is not None else _find_member_splits(member, origins)
        ):
            yield (subsets[place][features] if subsets is not None else features), thresholds
    for calibrated in getattr(part, "calibrated_classifiers_", ()):
        yield from _find_member_splits(calibrated.estimator, origins)


def _find_member_splits(member: Any, origins: Origins) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield the splits of a member of an ensemble, which may be a pipeline itself, by the columns of the ensemble."""
    if not hasattr(member, "fit"):
        return
    own = [Origin(index, 1.0, 0.0) for index in range(len(origins))]
    for origin, numbers in _find_splits(member, own):
        yield np.full(len(numbers), origin.at), (numbers - origin.offset) / origin.scale


def _find_booster_splits(part: Any) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    if hasattr(part, "get_booster"):
        table = part.get_booster().trees_to_dataframe()
        names, splits, places = table["Feature"].astype(str), table["Split"], part.get_booster().feature_names
    else:
        table = part.booster_.trees_to_dataframe()
        names, splits, places = table["split_feature"].astype(str), table["threshold"], part.booster_.feature_name()
    known = {name: index for index, name in enumerate(places or [f"f{n}" for n in range(part.n_features_in_)])}
    features = names.map(known).fillna(-1).to_numpy(dtype=int)
    features[np.isin(features, list(categories_of(part)))] = -1  # these split by numbers of categories
    numbers = np.array([_read_number(split) for split in splits], dtype=np.float64)
    is_split = (features >= 0) & np.isfinite(numbers)
    yield features[is_split], numbers[is_split]


def _read_number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


# --- what comes out of a step, in terms of the input ------------------------------------------------------------------


def _trace_step(step: Any, origins: Origins) -> Origins:
    """Return the columns that come out of `step`; None for what is not an affine function of one input column."""
    if step is None or step == "passthrough":
        return origins
    if hasattr(step, "transformers_"):
        return _trace_column_transformer(step, origins)
    name = type(step).__name__
    if name in _AFFINE:
        return _apply_affine(origins, *_AFFINE[name](step, len(origins)))
    if name in _IMPUTERS and not step.add_indicator and step.n_features_in_ == len(origins):
        return origins
    return [None] * _MANY


def _read_standard_scale(step: Any, columns: int) -> tuple[Any, Any]:
    scale = np.ones(columns) if step.scale_ is None else 1 / step.scale_
    return scale, np.zeros(columns) if step.mean_ is None else -step.mean_ * scale


def _read_robust_scale(step: Any, columns: int) -> tuple[Any, Any]:
    scale = np.ones(columns) if step.scale_ is None else 1 / step.scale_
    return scale, np.zeros(columns) if step.center_ is None else -step.center_ * scale


_AFFINE: dict[str, Callable[[Any, int], tuple[Any, Any]]] = {
    "StandardScaler": _read_standard_scale,
    "RobustScaler": _read_robust_scale,
    "MinMaxScaler": lambda step, columns: (step.scale_, step.min_),  # noqa: ARG005
    "MaxAbsScaler": lambda step, columns: (1 / step.scale_, np.zeros(columns)),
}
_IMPUTERS = ("SimpleImputer", "IterativeImputer", "KNNImputer")
_MANY = 100_000  # at least as many columns as any step gives


def _trace_column_transformer(part: Any, origins: Origins) -> Origins:
    made: list[Origin | None] = [None] * max((place.stop for place in part.output_indices_.values()), default=0)
    for name, transformer, selected in part.transformers_:
        place = part.output_indices_[name]
        chosen = [origins[at] for at in _find_positions(part, selected)]
        through: Origins = chosen
        for step in [step for _, step in transformer.steps] if hasattr(transformer, "steps") else [transformer]:
            through = _trace_step(step, through) if through else through
        if transformer != "drop" and len(through) == place.stop - place.start:
            made[place] = list(through)
    return made


def _find_positions(part: Any, selected: Any) -> list[int]:
    return resolve_positions(selected, list(getattr(part, "feature_names_in_", ())), part.n_features_in_)


def _apply_affine(origins: Origins, scale: NDArray[Any], offset: NDArray[Any]) -> Origins:
    return [
        None if origin is None else Origin(origin.at, origin.scale * a, origin.offset * a + b)
        for origin, a, b in zip(origins, scale.tolist(), offset.tolist(), strict=False)
    ]
