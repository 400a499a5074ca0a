"""Finds out what a candidate needs to run, without running any of it.

The server chooses the environment of a candidate before its file is loaded. So everything here is read as bytes: the
opcodes of a pickle, the schema of a skops file, the ends of a native file, and the documents beside them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import sklearn

from serving.domain.environment import SKLEARN, Needs, to_minor
from serving.domain.manifest import MANIFEST_NAME, InvalidDocument, Manifest
from serving.domain.pinned_versions import (
    MAX_PINS,
    MAX_PINS_BYTES,
    PINNING_NAMES,
    PYTHON,
    is_version_text,
    normalize_name,
    read_pins,
)
from serving.domain.version import Format
from serving.host.foreign_files import describe_library, is_old_xgboost
from serving.host.restricted import survey_file
from serving.host.restricted.allow_list import Global
from serving.host.restricted.refused_names import find_unlisted, is_importable
from serving.wire.evaluation import EvaluationRequest, NeedsFound

MAX_MODULES = 100
_MAX_MODULE_CHARACTERS = 100
_FILE_SAYS = "the file says"
_MAIN = "__main__"


@dataclass(frozen=True, slots=True)
class _FileContent:
    """What the model file itself shows: the names it uses, the versions it keeps, whether it is a foreign model."""

    names: tuple[Global, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    is_foreign: bool = False


def find_needs(request: EvaluationRequest, manifest: Manifest | None) -> NeedsFound:
    """Return what a candidate needs: versions of libraries, modules, the environment that its manifest names.

    What the file itself keeps counts before the manifest, and that before MLflow's files. `manifest` is None for a
    version without one. Never raises for the content of a file. Blocks for about as long as reading the file.
    """
    content = _read_content(request)
    modules = _list_modules(content.names)
    stated: list[tuple[str, Mapping[str, str]]] = [(_FILE_SAYS, content.versions)]
    if manifest is not None:
        stated.append((f"{MANIFEST_NAME} says", manifest.libraries))
    stated += [(f"{name} says", _read_pins_of(request, name)) for name in PINNING_NAMES]
    libraries, sources = _merge_versions(stated)
    needs = Needs(
        python=libraries.pop(PYTHON, None),
        libraries=libraries,
        sources=sources,
        modules=tuple(modules),
        environment=None if manifest is None else manifest.environment,
    )
    absent = tuple(name for name in modules if not is_importable(name))
    return NeedsFound(needs=needs, absent=absent, stays=_stays_here(request, content, needs))


def _read_content(request: EvaluationRequest) -> _FileContent:
    if request.format not in (Format.JOBLIB, Format.PICKLE):
        return _FileContent()
    survey = survey_file(request.main.path, request.max_expansion)
    return _FileContent(
        names=tuple(survey.names),
        versions={SKLEARN: survey.sklearn_version} if survey.sklearn_version else {},
        is_foreign=describe_library(module for module, _ in survey.names) is not None
        or any(map(is_old_xgboost, survey.handles)),
    )


def _read_pins_of(request: EvaluationRequest, name: str) -> dict[str, str]:
    with contextlib.suppress(InvalidDocument, OSError):  # too large, or gone: it pins nothing
        raw = request.read(name, MAX_PINS_BYTES)
        return {} if raw is None else read_pins(name, raw)
    return {}


def _merge_versions(stated: Iterable[tuple[str, Mapping[str, str]]]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the first version that is stated for each distribution, and who states it."""
    versions: dict[str, str] = {}
    sources: dict[str, str] = {}
    for source, found in stated:
        for name, version in sorted(found.items())[:MAX_PINS]:
            distribution = normalize_name(name[:_MAX_MODULE_CHARACTERS])
            if is_version_text(version) and distribution not in versions:
                versions[distribution], sources[distribution] = version, source
    return versions, sources


def _list_modules(names: Iterable[Global]) -> list[str]:
    """Return the top-level modules of these names that are not of the standard library, sorted."""
    found = {module.partition(".")[0] for module, _ in names} - sys.stdlib_module_names - {_MAIN}
    plain = [name for name in found if name.isidentifier() and len(name) <= _MAX_MODULE_CHARACTERS]
    return sorted(plain)[:MAX_MODULES]


def _stays_here(request: EvaluationRequest, content: _FileContent, needs: Needs) -> bool:
    """Whether loading the file here explains better why it is refused than another environment could."""
    if content.is_foreign or any(module == _MAIN for module, _ in content.names):
        return True
    version = needs.libraries.get(SKLEARN)
    is_other_version = version is not None and to_minor(version) != to_minor(sklearn.__version__)
    if request.trust != "known" or is_other_version:
        return False
    trusted = request.skops_trusted if request.format is Format.SKOPS else request.pickle_trusted
    return bool(find_unlisted(content.names, trusted))
