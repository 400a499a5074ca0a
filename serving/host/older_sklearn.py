"""What the code of hosts uses of scikit-learn and older versions, from 1.0 on, lack or have in another place."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import sklearn.base
import sklearn.exceptions

# what scikit-learn warned of before 1.3, when the warning had no class of its own
_WRITTEN_BY = re.compile(r"Trying to unpickle estimator \w+ from version (\S+) when using version")


def is_clusterer(estimator: Any) -> bool:
    """Whether an estimator finds clusters: `sklearn.base.is_clusterer`, which 1.6 brought."""
    if hasattr(sklearn.base, "is_clusterer"):
        return bool(sklearn.base.is_clusterer(estimator))
    return getattr(estimator, "_estimator_type", None) == "clusterer"


def find_saving_version(caught: Sequence[warnings.WarningMessage]) -> str | None:
    """Return the version of scikit-learn that wrote a file, if loading it has warned that it is another one."""
    kind = getattr(sklearn.exceptions, "InconsistentVersionWarning", None)
    for entry in caught:
        if kind is not None and isinstance(entry.message, kind):
            return str(entry.message.original_sklearn_version)
        if kind is None and (found := _WRITTEN_BY.match(str(entry.message))):
            return found[1]
    return None
