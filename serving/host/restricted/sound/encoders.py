"""Checks of one-hot encoders: the stored numbers of columns agree with the categories that they count."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.host.restricted.sound.requirements import Check, get_attributes, require


def _check_one_hot(encoder: Any) -> None:
    parts = get_attributes(encoder)
    if "categories_" not in parts:
        return
    counted = type(encoder)._compute_n_features_outs(encoder)
    kept = parts.get("_n_features_outs")
    require(type(kept) is list and list(kept) == list(counted), "its categories are more or fewer than it counts")
    require(all(map(_are_found, parts["categories_"])), "its categories are in an order in which some are not found")
    mappings = parts.get("_default_to_infrequent_mappings") or [None] * len(kept or [])
    for categories, mapping in zip(parts["categories_"], mappings, strict=True):
        if mapping is not None:
            places = np.asarray(mapping)
            is_whole = places.dtype.kind in "iu" and places.shape == (len(categories),)
            require(
                is_whole and (places >= 0).all() and (places < len(categories)).all(), "a rare category has no place"
            )
    dropped = parts.get("_drop_idx_after_grouping")
    if dropped is not None:
        require(len(dropped) == len(parts["categories_"]), "it drops categories of other features")
        for place, categories in zip(dropped, parts["categories_"], strict=True):
            require(place is None or 0 <= place < len(categories), "it drops a category it does not have")


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
