"""libsvm gets bare pointers and believes the counts beside them. After ``sklearn/svm/_libsvm.pyx`` and ``svm/src/``."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.svm._base import BaseSVC

from serving.host.restricted.sound.requirements import Check, indices, need, numbers, parts_of, whole_number

_OTHER_COUNT = "it has another number of {} than of support vectors"


def _check_machine(machine: Any) -> None:
    parts = parts_of(machine)
    if "support_" not in parts:
        return
    is_sparse = parts["_sparse"]
    vectors, weights = parts["support_vectors_"], parts["_dual_coef_"]
    need(type(is_sparse) is bool and sparse.issparse(vectors) == is_sparse, "its support vectors are of another layout")
    need(sparse.issparse(weights) == is_sparse, "its weights are of another layout")
    per_class = numbers(parts["_n_support"], "_n_support", rank=1, kinds="iu")
    classes = len(per_class)
    need(classes >= 2 and (per_class >= 0).all(), "it has no support vectors of some class")
    count = len(parts["support_"])
    is_classifier = isinstance(machine, BaseSVC)
    need(not is_classifier or per_class.sum() == count, _OTHER_COUNT.format("classes' vectors"))
    need(not is_classifier or len(parts["classes_"]) == classes, "it has another number of classes")
    need(weights.shape == (classes - 1, count), _OTHER_COUNT.format("weights"))
    if is_sparse:  # what is not zero is handed over, without where it stands
        need(weights.format == "csr" and weights.data.size == (classes - 1) * count, _OTHER_COUNT.format("weights"))
    pairs = classes * (classes - 1) // 2
    need(len(numbers(parts["_intercept_"], "_intercept_", rank=1)) == pairs, "it has another number of intercepts")
    _check_probabilities(parts, pairs)
    _check_vectors(parts, count)
    whole_number(parts["degree"], "degree")


def _check_probabilities(parts: dict[str, Any], pairs: int) -> None:
    """None, which Python code looks at, or one for each pair of classes."""
    both = [len(numbers(parts[name], name, rank=1)) for name in ("_probA", "_probB")]
    need(both[0] == both[1] and both[0] in (0, pairs), "its probabilities do not fit its classes")


def _check_vectors(parts: dict[str, Any], count: int) -> None:
    """With a matrix of kernels the vectors are columns of it, else rows as wide as those that are asked for."""
    kernel, columns = parts["kernel"], parts["shape_fit_"]
    if callable(kernel):
        known = parts["_BaseLibSVM__Xfit"]
        need(known.shape[1] == parts.get("n_features_in_", known.shape[1]), "it compares rows of another width")
        columns = (known.shape[0],)
    if callable(kernel) or kernel == "precomputed":
        indices(parts["support_"], "support_", whole_number(columns[0], "shape_fit_"))
        if kernel == "precomputed":
            need(columns[0] == parts["n_features_in_"], "it was fitted to another number of rows")
        return
    vectors = parts["support_vectors_"]
    need(np.ndim(vectors) == 2 or sparse.issparse(vectors), "its support vectors are no rows")
    need(vectors.shape == (count, parts["n_features_in_"]), "its support vectors are of another width")
    if sparse.issparse(vectors):
        need(vectors.format == "csr", "its support vectors are of another layout")


CHECKS: dict[str, Check] = {"sklearn.svm._base.BaseLibSVM": _check_machine}
