"""Reads what a model file shows of its origin: the names it uses and the versions it keeps. Runs none of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.domain.environment import SKLEARN
from serving.domain.version import Format
from serving.host.boosters import EXTRAS, LIGHTGBM, XGBOOST, read_xgboost_version
from serving.host.foreign_files import describe_library, is_old_xgboost
from serving.host.restricted import Survey, survey_file, survey_skops
from serving.host.restricted.allow_list import Global

_CATBOOST = "catboost"
_END_BYTES = 200


@dataclass(frozen=True, slots=True)
class FileTraces:
    """What one model file shows.

    `names` are the classes and functions that it names, `modules` the top-level modules that it needs. `versions` are
    those that it keeps, by distribution; `versions_of_parts` are further versions of scikit-learn, of inner estimators.
    `numpy_major` is 1 or 2. `is_foreign` says that it holds a model that no environment serves: of another framework,
    of Python 2, or in a format that is read nowhere any more.
    """

    names: tuple[Global, ...] = ()
    modules: frozenset[str] = frozenset()
    versions: Mapping[str, str] = field(default_factory=dict)
    versions_of_parts: tuple[str, ...] = ()
    numpy_major: int | None = None
    is_foreign: bool = False


def read_traces(path: str, format: Format, max_expansion: float) -> FileTraces:  # noqa: A002  (its name everywhere)
    """Return the traces in a file; never raises for its content. Blocks for about as long as reading it."""
    if format in (Format.JOBLIB, Format.PICKLE):
        return _describe_survey(survey_file(path, max_expansion))
    if format is Format.SKOPS:
        survey = survey_skops(path, max_expansion)
        survey.numpy_major = None  # the names of a skops file do not depend on it
        return _describe_survey(survey)
    if format is Format.XGBOOST:
        version = read_xgboost_version(_read_ends(path))
        return FileTraces(modules=frozenset({XGBOOST}), versions={XGBOOST: version} if version else {})
    if format is Format.LIGHTGBM:  # names only the version of its own format
        return FileTraces(modules=frozenset({LIGHTGBM}))
    return FileTraces()


def _describe_survey(survey: Survey) -> FileTraces:
    versions = {XGBOOST: next(filter(None, map(read_xgboost_version, survey.handles)), None)}
    versions |= {SKLEARN: survey.sklearn_version, _CATBOOST: survey.catboost_version}
    modules = {module.partition(".")[0] for module, _ in survey.names}
    if survey.outermost is not None and survey.outermost[0].partition(".")[0] in EXTRAS:
        modules.discard("sklearn")  # a booster computes; scikit-learn is only in its label encoder
    return FileTraces(
        names=tuple(survey.names),
        modules=frozenset(modules),
        versions={name: version for name, version in versions.items() if version is not None},
        versions_of_parts=tuple(survey.sklearn_versions[:-1]),
        numpy_major=survey.numpy_major,
        is_foreign=survey.has_bytes_of_python_2
        or describe_library(modules) is not None
        or any(map(is_old_xgboost, survey.handles)),
    )


def _read_ends(path: str) -> bytes:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        begin = file.read(_END_BYTES)
        file.seek(max(len(begin), size - _END_BYTES))
        return begin + file.read(_END_BYTES)
