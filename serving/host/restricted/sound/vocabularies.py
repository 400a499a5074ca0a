"""Words and labels become columns of a sparse matrix, and nothing looks at its indices again.

So each word and each label has a column of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.host.restricted.sound.requirements import Check, need, parts_of, whole_number

_MOST_COLUMNS = (1 << 31) - 1


def _check_places(places: Any, name: str) -> None:
    """The values of a dict are the numbers from 0 on, each once."""
    need(isinstance(places, dict), f"{name} is no dict")
    found = list(dict.values(places))
    need(
        all(type(each) is int or hasattr(each, "__index__") for each in found),
        f"{name} has columns that are no numbers",
    )
    need(sorted(map(int, found)) == list(range(len(found))), f"{name} gives columns that are not there, or one twice")


def _check_vectorizer(vectorizer: Any) -> None:
    parts = parts_of(vectorizer)
    source = parts.get("input", "content")
    opens = f"{type(vectorizer).__name__}(input={str(source)[:40]!r}) would open files named by requests"
    need(type(source) is str and source == "content", opens)
    if "vocabulary_" in parts:
        _check_places(parts["vocabulary_"], "vocabulary_")


def _check_hasher(hasher: Any) -> None:
    whole_number(parts_of(hasher)["n_features"], "n_features", 1, _MOST_COLUMNS)


def _check_hashing_vectorizer(vectorizer: Any) -> None:
    _check_vectorizer(vectorizer)
    _check_hasher(vectorizer)


def _check_labels(binarizer: Any) -> None:
    parts = parts_of(binarizer)
    if "classes_" not in parts:
        return
    labels = np.asarray(parts["classes_"]).tolist()
    need(len(set(labels)) == len(labels), "it has a label twice")
    cache = parts.get("_cached_dict")
    if cache is not None:
        _check_places(cache, "_cached_dict")
        need(len(cache) == len(labels), "_cached_dict has other labels than classes_")


CHECKS: dict[str, Check] = {
    "sklearn.feature_extraction.text.CountVectorizer": _check_vectorizer,
    "sklearn.feature_extraction._dict_vectorizer.DictVectorizer": _check_vectorizer,
    "sklearn.feature_extraction.text.HashingVectorizer": _check_hashing_vectorizer,
    "sklearn.feature_extraction._hash.FeatureHasher": _check_hasher,
    "sklearn.preprocessing._label.MultiLabelBinarizer": _check_labels,
}
