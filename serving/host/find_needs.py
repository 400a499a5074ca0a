"""Finds out what a candidate needs to run, without running any of it.

The server chooses the environment of a candidate before its file is loaded. So everything here is read as bytes: the
opcodes of a pickle, the schema of a skops file, the ends of a native file, and the documents beside them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping

import sklearn

from serving.domain.environment import SKLEARN, Needs, to_minor
from serving.domain.manifest import MANIFEST_NAME, InvalidDocument, Manifest
from serving.domain.pinned_versions import (
    MAX_PINS_BYTES,
    PINNING_NAMES,
    PYTHON,
    is_version_text,
    pick_versions,
    read_pins,
)
from serving.domain.version import Format
from serving.host.file_traces import FileTraces, read_traces
from serving.host.restricted.refused_names import find_unlisted, is_importable
from serving.wire.evaluation import EvaluationRequest, NeedsFound

MAX_MODULES = 100
_MAX_MODULE_CHARACTERS = 100
_FILE_SAYS = "the file says"
_MAIN = "__main__"
# top-level modules that are parts of packages: scikit-learn 1.4 to 1.8 name its losses so in their files
_PARTS = {"_loss": "sklearn"}
_TOO_OLD = ("0.", "pre-")  # "pre-0.18" is what scikit-learn says of a file without a version


def find_needs(request: EvaluationRequest, manifest: Manifest | None) -> NeedsFound:
    """Return what a candidate needs: versions of libraries, modules, the environment that its manifest names.

    What the file itself keeps counts before the manifest, and that before MLflow's files. `manifest` is None for a
    version without one. Never raises for the content of a file. Blocks for about as long as reading the file.
    """
    traces = read_traces(request.main.path, request.format, request.max_expansion)
    modules = _list_modules(traces.modules)
    stated = {_FILE_SAYS: traces.versions, f"{MANIFEST_NAME} says": {} if manifest is None else manifest.libraries}
    stated |= {f"{name} says": _read_pins_of(request, name) for name in PINNING_NAMES}
    libraries, sources = _merge_versions(stated)
    _add_hints(libraries, sources, traces)
    needs = Needs(
        python=libraries.pop(PYTHON, None),
        libraries=libraries,
        sources=sources,
        modules=tuple(modules),
        environment=None if manifest is None else manifest.environment,
    )
    absent = tuple(name for name in modules if not is_importable(name))
    return NeedsFound(needs=needs, absent=absent, stays=_stays_here(request, traces, needs))


def is_too_old(version: str | None) -> bool:
    """Whether no environment can run this scikit-learn: hosts need 1.0 or newer."""
    return version is not None and version.startswith(_TOO_OLD)


def _read_pins_of(request: EvaluationRequest, name: str) -> dict[str, str]:
    with contextlib.suppress(InvalidDocument, OSError):  # too large, or gone: it pins nothing
        raw = request.read(name, MAX_PINS_BYTES)
        return {} if raw is None else read_pins(name, raw)
    return {}


def _merge_versions(stated: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the first version that is stated for each distribution, and who states it."""
    versions: dict[str, str] = {}
    sources: dict[str, str] = {}
    for source, found in stated.items():
        for distribution, version in pick_versions(found).items():
            if distribution not in versions:
                versions[distribution], sources[distribution] = version, source
    return versions, sources


def _add_hints(libraries: dict[str, str], sources: dict[str, str], traces: FileTraces) -> None:
    """Add what the file shows less exactly: which NumPy wrote it, and that its parts are of other versions."""
    if traces.numpy_major is not None and "numpy" not in libraries:
        libraries["numpy"], sources["numpy"] = f"{traces.numpy_major}.*", _FILE_SAYS
    parts = [version for version in traces.versions_of_parts if is_version_text(version)]
    if parts and sources.get(SKLEARN) == _FILE_SAYS:
        sources[SKLEARN] = f"{_FILE_SAYS}, with parts of {', '.join(parts[:2])}"


def _list_modules(found: frozenset[str]) -> list[str]:
    """Return those of these modules that are not of the standard library, sorted."""
    others = {_PARTS.get(name, name) for name in found} - sys.stdlib_module_names - {_MAIN}
    plain = [name for name in others if name.isidentifier() and len(name) <= _MAX_MODULE_CHARACTERS]
    return sorted(plain)[:MAX_MODULES]


def _stays_here(request: EvaluationRequest, traces: FileTraces, needs: Needs) -> bool:
    """Whether loading the file here explains better why it is refused than another environment could."""
    version = needs.libraries.get(SKLEARN)
    if traces.is_foreign or is_too_old(version) or any(module == _MAIN for module, _ in traces.names):
        return True
    is_other_version = version is not None and to_minor(version) != to_minor(sklearn.__version__)
    if request.trust != "known" or is_other_version:
        return False
    trusted = request.skops_trusted if request.format is Format.SKOPS else request.pickle_trusted
    return bool(find_unlisted(traces.names, trusted))
