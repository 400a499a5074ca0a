"""Checks of one-hot encoders: each category, alone or in a group of rare ones, has a column among those counted.

`transform` writes the columns into a sparse matrix that is not checked again. From ``preprocessing/_encoders.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.host.restricted.sound.requirements import Check, get_attributes, require, require_indices

_OTHER_COUNT = "its categories are more or fewer than it counts"
_NO_PLACE = "a rare category has no place"


def _check_one_hot(encoder: Any) -> None:
    parts = get_attributes(encoder)
    if "categories_" not in parts:
        return
    known = parts["categories_"]
    require(
        type(known) is list and all(map(_are_found, known)),
        "its categories are in an order in which some are not found",
    )
    dropped = _find_dropped(encoder, known)
    columns = _count_columns(encoder, known)
    groups = [count + (place is not None) for count, place in zip(columns, dropped, strict=True)]
    mappings, rare = (
        parts.get(name) or [None] * len(known) for name in ("_default_to_infrequent_mappings", "_infrequent_indices")
    )
    for categories, mapping, places, count in zip(known, mappings, rare, groups, strict=True):
        _check_groups(len(categories), mapping, places, count)
    for place, count in zip(dropped, groups, strict=True):
        require(place is None or 0 <= place < count, "it drops a category it does not have")


def _count_columns(encoder: Any, known: list[Any]) -> list[int]:
    """Return the number of columns for each feature. Before scikit-learn 1.1 it is counted with each answer."""
    kind = type(encoder)
    if not hasattr(kind, "_compute_n_features_outs"):
        pairs = zip(known, _find_dropped(encoder, known), strict=True)
        return [len(categories) - (place is not None) for categories, place in pairs]
    counted = list(kind._compute_n_features_outs(encoder))
    kept = get_attributes(encoder).get("_n_features_outs")
    require(type(kept) is list and kept == counted and all(count >= 0 for count in counted), _OTHER_COUNT)
    return counted


def _find_dropped(encoder: Any, known: list[Any]) -> Sequence[Any]:
    """Return for each feature the place of the category that has no column, or None. Before 1.2 it has another name."""
    name = "_drop_idx_after_grouping" if hasattr(type(encoder), "_set_drop_idx") else "drop_idx_"
    dropped = get_attributes(encoder).get(name)
    if dropped is None:
        return [None] * len(known)
    require(len(dropped) == len(known), "it drops categories of other features")
    return list(dropped)


def _check_groups(categories: int, mapping: Any, rare: Any, count: int) -> None:
    """Check the places that a feature's categories get: their own, or those of `mapping`, where rare ones share one."""
    if rare is not None:
        require_indices(rare, "_infrequent_indices", categories)
    if mapping is None:
        require(rare is None and categories <= count, _NO_PLACE)
        return
    places = np.asarray(mapping)
    is_whole = places.dtype.kind in "iu" and places.shape == (categories,)
    require(is_whole and (places >= 0).all() and (places < count).all(), _NO_PLACE)


def _are_found(categories: Any) -> bool:
    """Return True if a binary search, which scikit-learn uses, finds each number among `categories`."""
    values = np.asarray(categories)
    if values.dtype.kind == "O" and all(type(each) is str for each in values.tolist()):
        return True  # texts are looked up in a dict, in any order, and never compared with numbers
    try:
        return bool((np.searchsorted(values, values) < len(values)).all())
    except TypeError:  # values of several types are looked up in a dict
        return True


CHECKS: dict[str, Check] = {"sklearn.preprocessing._encoders.OneHotEncoder": _check_one_hot}
