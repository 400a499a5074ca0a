"""Tables that are made for as many columns as one attribute says, and filled with as many as others have.

What nobody filled is memory of the process, and would be part of an answer. After ``preprocessing/_polynomial.py``,
``_target_encoder.py``, ``mixture/_gaussian_mixture.py`` and ``multioutput.py`` of scikit-learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.host.restricted.sound.requirements import Check, indices, need, parts_of, whole_number

_OTHER_COLUMNS = "it counts other columns than it fills"
_MOST_DEGREE = 1000


def _check_polynomials(features: Any) -> None:
    parts = parts_of(features)
    if "n_output_features_" not in parts:
        return
    low, high = (whole_number(parts[name], name, 0, _MOST_DEGREE) for name in ("_min_degree", "_max_degree"))
    fixed = {
        "n_features": whole_number(parts["n_features_in_"], "n_features_in_"),
        "max_degree": high,
        "interaction_only": parts["interaction_only"],
        "include_bias": parts["include_bias"],
    }
    count = type(features)._num_combinations
    need(parts["n_output_features_"] == count(min_degree=low, **fixed), _OTHER_COLUMNS)
    need(parts["_n_out_full"] == count(min_degree=0, **fixed), _OTHER_COLUMNS)


def _check_target_encoder(encoder: Any) -> None:
    """An encoding for each feature, of several classes for each feature and class."""
    parts = parts_of(encoder)
    if "encodings_" in parts:
        kind = parts["target_type_"]
        is_several = type(kind) is str and kind == "multiclass"
        need(type(kind) is str and len(parts["categories_"]) == parts["n_features_in_"], _OTHER_COLUMNS)
        wanted = len(parts["categories_"]) * (len(parts["classes_"]) if is_several else 1)
        need(len(parts["encodings_"]) == wanted, _OTHER_COLUMNS)


def _check_mixture(mixture: Any) -> None:
    parts = parts_of(mixture)
    if "precisions_cholesky_" in parts:
        is_shared = parts["covariance_type"] == "tied"
        need(is_shared or len(parts["precisions_cholesky_"]) == len(parts["means_"]), _OTHER_COLUMNS)


def _check_chain(chain: Any) -> None:
    """Its order says where each answer goes."""
    parts = parts_of(chain)
    if "estimators_" in parts:
        count = len(parts["estimators_"])
        places = indices(np.asarray(parts["order_"]), "order_", count)
        need(np.array_equal(np.sort(places), np.arange(count)), "its order leaves an answer out")


CHECKS: dict[str, Check] = {
    "sklearn.preprocessing._polynomial.PolynomialFeatures": _check_polynomials,
    "sklearn.preprocessing._target_encoder.TargetEncoder": _check_target_encoder,
    "sklearn.mixture._base.BaseMixture": _check_mixture,
    "sklearn.multioutput._BaseChain": _check_chain,
}
