"""Checks of support vector machines: libsvm gets pointers, and does not check the counts beside them.

From ``sklearn/svm/_libsvm.pyx`` and ``svm/src/``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.svm._base import BaseSVC

from serving.host.restricted.sound.requirements import (
    Check,
    get_attributes,
    require,
    require_array,
    require_indices,
    require_integer,
)

_OTHER_COUNT = "it has another number of {} than of support vectors"


def _check_machine(machine: Any) -> None:
    parts = get_attributes(machine)
    if "support_" not in parts:
        return
    is_sparse = parts["_sparse"]
    vectors, weights = parts["support_vectors_"], parts["_dual_coef_"]
    require(
        type(is_sparse) is bool and sparse.issparse(vectors) == is_sparse, "its support vectors are of another layout"
    )
    require(sparse.issparse(weights) == is_sparse, "its weights are of another layout")
    per_class = require_array(parts["_n_support"], "_n_support", rank=1, kinds="iu")
    classes = len(per_class)
    require(classes >= 2 and (per_class >= 0).all(), "it has no support vectors of some class")
    count = len(parts["support_"])
    is_classifier = isinstance(machine, BaseSVC)
    require(not is_classifier or per_class.sum() == count, _OTHER_COUNT.format("classes' vectors"))
    require(not is_classifier or len(parts["classes_"]) == classes, "it has another number of classes")
    require(weights.shape == (classes - 1, count), _OTHER_COUNT.format("weights"))
    if is_sparse:  # libsvm gets the stored values without their places
        require(weights.format == "csr" and weights.data.size == (classes - 1) * count, _OTHER_COUNT.format("weights"))
    pairs = classes * (classes - 1) // 2
    require(
        len(require_array(parts["_intercept_"], "_intercept_", rank=1)) == pairs, "it has another number of intercepts"
    )
    _check_probabilities(parts, pairs)
    _check_vectors(parts, count)
    require_integer(parts["degree"], "degree")


def _check_probabilities(parts: dict[str, Any], pairs: int) -> None:
    """Check that there is one probability parameter for each pair of classes, or none: Python code checks for that."""
    both = [len(require_array(parts[name], name, rank=1)) for name in ("_probA", "_probB")]
    require(both[0] == both[1] and both[0] in (0, pairs), "its probabilities do not fit its classes")


def _check_vectors(parts: dict[str, Any], count: int) -> None:
    """Check the support vectors: places in a matrix of kernels, or rows with the width of a request's rows."""
    kernel, columns = parts["kernel"], parts["shape_fit_"]
    if callable(kernel):
        known = parts["_BaseLibSVM__Xfit"]
        require(known.shape[1] == parts.get("n_features_in_", known.shape[1]), "it compares rows of another width")
        columns = (known.shape[0],)
    if callable(kernel) or kernel == "precomputed":
        require_indices(parts["support_"], "support_", require_integer(columns[0], "shape_fit_"))
        if kernel == "precomputed":
            require(columns[0] == parts["n_features_in_"], "it was fitted to another number of rows")
        return
    vectors = parts["support_vectors_"]
    require(np.ndim(vectors) == 2 or sparse.issparse(vectors), "its support vectors are no rows")
    require(vectors.shape == (count, parts["n_features_in_"]), "its support vectors are of another width")
    if sparse.issparse(vectors):
        require(vectors.format == "csr", "its support vectors are of another layout")


CHECKS: dict[str, Check] = {"sklearn.svm._base.BaseLibSVM": _check_machine}
