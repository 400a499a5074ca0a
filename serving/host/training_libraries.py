"""Says with which versions of libraries the estimator of this process was trained."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import PurePath

from serving.domain.pinned_versions import normalize_name
from serving.host.loading import library_versions

_TOLD_ANYWAY = frozenset({"joblib", "lightgbm", "numpy", "pandas", "scipy", "sklearn", "xgboost"})


def list_training_libraries(modules: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python, of the libraries for models, and of the distributions that have these modules.

    `modules` are the top-level modules that the estimator's file will name. One without a distribution, such as a
    module of the user's own, has no version. Where there are others than the usual libraries, it looks through all
    distributions, which takes a fraction of a second.
    """
    others = frozenset(modules) - _TOLD_ANYWAY - sys.stdlib_module_names
    installed = metadata.distributions() if others else ()
    found = [each for each in installed if not others.isdisjoint(_list_modules(each))]
    return {**{normalize_name(each.metadata["Name"]): each.version for each in found}, **library_versions()}


def _list_modules(distribution: metadata.Distribution) -> set[str]:
    """Return the top-level modules of a distribution; not all say so themselves."""
    declared = distribution.read_text("top_level.txt")
    if declared:
        return set(declared.split())
    return {PurePath(file).parts[0].partition(".")[0] for file in distribution.files or ()}
