"""Finds one version anywhere: a model file or a version directory, inside or outside a store."""

from __future__ import annotations

import os
from pathlib import Path

from serving.domain.errors import NotPublished
from serving.domain.listing import Entry
from serving.domain.manifest import MANIFEST_NAME, InvalidDocument, Manifest, parse_manifest
from serving.domain.version import FULL_NAMES, SUFFIXES
from serving.settings import StoreSettings
from serving.store.entries import Rules, Subject, look_up_name, read_directory, read_file
from serving.store.file_heads import format_by_content
from serving.store.names import Names, format_in_version, is_looked_into


def find_entry(path: Path, settings: StoreSettings) -> tuple[Path, Entry]:
    """Return the version at `path` as a store would list it, and the root it is in; raises NotPublished.

    The root of a directory is its grandparent, where the store would be; the root of a file is its directory. Links
    that leave the root are refused.
    """
    try:
        real = path.resolve(strict=True)
        entry_root, entry = _find_directory(real, settings) if real.is_dir() else _find_file(real, settings)
    except OSError as error:
        raise NotPublished(
            f"'{path}' cannot be read: {error.strerror}; give a model file or a version directory"
        ) from None
    if entry.problem is None and entry.format is None:
        known = f"end in one of {', '.join(SUFFIXES)}, or be {' or '.join(FULL_NAMES)}"
        looked = ", or it must begin as a model does" if is_looked_into(real.name) else ""
        raise NotPublished(f"'{path}' is not an artefact: its name must {known}{looked}")
    if entry.problem is not None:
        raise NotPublished(f"'{path}': {entry.problem}")
    return entry_root, entry


def _find_file(real: Path, settings: StoreSettings) -> tuple[Path, Entry]:
    root = real.parent
    subject = Subject(real.stem, "file", real.name)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        seen = look_up_name(str(root), descriptor, str(root), real.name)
    finally:
        os.close(descriptor)
    told = format_by_content(str(root), str(root), real.name, seen) if is_looked_into(real.name) else None
    return root, read_file(_make_rules(root, settings), subject, real.name, seen, told or format_in_version(real.name))


def _find_directory(real: Path, settings: StoreSettings) -> tuple[Path, Entry]:
    root = real.parent.parent
    model, version = _find_names(real)
    subject = Subject(model, version, str(real.relative_to(root)))
    descriptor = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reading = read_directory(_make_rules(root, settings), subject, descriptor, str(real))
    finally:
        os.close(descriptor)
    if reading.entry is None:
        raise NotPublished(reading.note or f"'{real}' is empty; give a model file or a version directory")
    return root, reading.entry


def _find_names(real: Path) -> tuple[str, str]:
    """Return model and version: by place, as in a store; by the manifest outside of a store."""
    manifest = _read_manifest(real)
    if manifest is None or manifest.model == real.parent.name:
        return real.parent.name, real.name
    return manifest.model, manifest.version


def _read_manifest(real: Path) -> Manifest | None:
    try:
        return parse_manifest((real / MANIFEST_NAME).read_bytes())
    except (OSError, InvalidDocument):
        return None


def _make_rules(root: Path, settings: StoreSettings) -> Rules:
    return Rules(str(root), Names(settings.ignore), int(settings.max_artifact_mb * (1 << 20)))
