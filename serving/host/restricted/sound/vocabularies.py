"""Checks of vocabularies: words and labels become columns of a sparse matrix whose indices are not checked again.

So each word and each label must have a column of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.host.restricted.sound.requirements import Check, get_attributes, require, require_integer

_MOST_COLUMNS = (1 << 31) - 1


def _check_places(places: Any, name: str) -> None:
    """Check that the values of a dict are the integers from 0 up, each once."""
    require(isinstance(places, dict), f"{name} is no dict")
    found = list(dict.values(places))
    require(
        all(type(each) is int or hasattr(each, "__index__") for each in found),
        f"{name} has columns that are no numbers",
    )
    require(sorted(map(int, found)) == list(range(len(found))), f"{name} gives columns that do not exist, or one twice")


def _check_vectorizer(vectorizer: Any) -> None:
    parts = get_attributes(vectorizer)
    source = parts.get("input", "content")
    opens = f"{type(vectorizer).__name__}(input={str(source)[:40]!r}) would open files named by requests"
    require(type(source) is str and source == "content", opens)
    if "vocabulary_" in parts:
        _check_places(parts["vocabulary_"], "vocabulary_")


def _check_hasher(hasher: Any) -> None:
    require_integer(get_attributes(hasher)["n_features"], "n_features", 1, _MOST_COLUMNS)


def _check_hashing_vectorizer(vectorizer: Any) -> None:
    _check_vectorizer(vectorizer)
    _check_hasher(vectorizer)


def _check_labels(binarizer: Any) -> None:
    parts = get_attributes(binarizer)
    if "classes_" not in parts:
        return
    labels = np.asarray(parts["classes_"]).tolist()
    require(len(set(labels)) == len(labels), "it has a label twice")
    cache = parts.get("_cached_dict")
    if cache is not None:
        _check_places(cache, "_cached_dict")
        require(len(cache) == len(labels), "_cached_dict has other labels than classes_")


CHECKS: dict[str, Check] = {
    "sklearn.feature_extraction.text.CountVectorizer": _check_vectorizer,
    "sklearn.feature_extraction._dict_vectorizer.DictVectorizer": _check_vectorizer,
    "sklearn.feature_extraction.text.HashingVectorizer": _check_hashing_vectorizer,
    "sklearn.feature_extraction._hash.FeatureHasher": _check_hasher,
    "sklearn.preprocessing._label.MultiLabelBinarizer": _check_labels,
}
