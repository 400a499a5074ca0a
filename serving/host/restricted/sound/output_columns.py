"""Checks of models that allocate a table by one attribute and fill its columns by another: both must agree.

Columns that are not filled hold other memory of the process, which would become part of an answer. From
``preprocessing/_polynomial.py``, ``_target_encoder.py``, ``mixture/_gaussian_mixture.py`` and ``multioutput.py`` of
scikit-learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.host.restricted.sound.requirements import Check, get_attributes, require, require_indices, require_integer

_OTHER_COLUMNS = "it counts other columns than it fills"
_MOST_DEGREE = 1000


def _check_polynomials(features: Any) -> None:
    parts = get_attributes(features)
    if "n_output_features_" not in parts:
        return
    low, high = (require_integer(parts[name], name, 0, _MOST_DEGREE) for name in ("_min_degree", "_max_degree"))
    fixed = {
        "n_features": require_integer(parts["n_features_in_"], "n_features_in_"),
        "max_degree": high,
        "interaction_only": parts["interaction_only"],
        "include_bias": parts["include_bias"],
    }
    count = type(features)._num_combinations
    require(parts["n_output_features_"] == count(min_degree=low, **fixed), _OTHER_COLUMNS)
    require(parts["_n_out_full"] == count(min_degree=0, **fixed), _OTHER_COLUMNS)


def _check_target_encoder(encoder: Any) -> None:
    """Check that there is an encoding for each feature, or with several classes for each feature and class."""
    parts = get_attributes(encoder)
    if "encodings_" in parts:
        kind = parts["target_type_"]
        is_several = type(kind) is str and kind == "multiclass"
        require(type(kind) is str and len(parts["categories_"]) == parts["n_features_in_"], _OTHER_COLUMNS)
        wanted = len(parts["categories_"]) * (len(parts["classes_"]) if is_several else 1)
        require(len(parts["encodings_"]) == wanted, _OTHER_COLUMNS)


def _check_mixture(mixture: Any) -> None:
    parts = get_attributes(mixture)
    if "precisions_cholesky_" in parts:
        is_shared = parts["covariance_type"] == "tied"
        require(is_shared or len(parts["precisions_cholesky_"]) == len(parts["means_"]), _OTHER_COLUMNS)


def _check_chain(chain: Any) -> None:
    """Check that the order of the chain has a column for each answer."""
    parts = get_attributes(chain)
    if "estimators_" in parts:
        count = len(parts["estimators_"])
        places = require_indices(np.asarray(parts["order_"]), "order_", count)
        require(np.array_equal(np.sort(places), np.arange(count)), "its order leaves an answer out")


CHECKS: dict[str, Check] = {
    "sklearn.preprocessing._polynomial.PolynomialFeatures": _check_polynomials,
    "sklearn.preprocessing._target_encoder.TargetEncoder": _check_target_encoder,
    "sklearn.mixture._base.BaseMixture": _check_mixture,
    "sklearn.multioutput._BaseChain": _check_chain,
}
