"""How scikit-learn constructs estimators for its own tests, and fits rows to them: its private tools, in any version.

They have other names before 1.6 and before 1.2. `ignore_warnings` also works before Python 3.11.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sklearn.utils import estimator_checks

enforce_tags_y: Any = estimator_checks._enforce_estimator_tags_y
enforce_tags_x: Any = getattr(estimator_checks, "_enforce_estimator_tags_X", None) or getattr(
    estimator_checks, "_enforce_estimator_tags_x", None
)


def construct_instances(kind: type) -> list[Any]:
    """Return estimators of a class with the settings of scikit-learn's own tests; raises for one it does not know."""
    try:
        from sklearn.utils._test_common.instance_generator import _construct_instances
    except ImportError:
        made: Any = estimator_checks._construct_instance(kind)
        estimator_checks._set_checking_parameters(made)
        return [made]
    return list(_construct_instances(kind))


@contextmanager
def ignore_warnings() -> Iterator[None]:
    """Ignore all warnings meanwhile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
