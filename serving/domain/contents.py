"""Compares a version with its manifest: its name, and exactly the listed files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from serving.domain.manifest import MANIFEST_NAME, Manifest
from serving.domain.provenance import SIGNATURE_NAME

# The manifest cannot list itself, and its signatures are made after it.
_UNLISTED = frozenset({MANIFEST_NAME, SIGNATURE_NAME})


class HashedFile(Protocol):
    """A file of the version: its bare name, sha256 (hex) and size in bytes."""

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def size(self) -> int: ...


def why_not_named(manifest: Manifest, model: str, version: str) -> str | None:
    """Say that `manifest` belongs to another version; None when it belongs to this one."""
    if (manifest.model, manifest.version) == (model, version):
        return None
    said, real = f"{manifest.model}/{manifest.version}", f"{model}/{version}"
    return f"{MANIFEST_NAME} is for {said}, this is {real}: publish it under its own name"


def why_not_listed(manifest: Manifest, files: Iterable[HashedFile]) -> str | None:
    """Say how `files`, which are all files of the version, differ from the listed files; None when they match.

    The manifest and its signatures need not be listed; everything else must be.
    """
    listed = {file.name: file for file in manifest.files}
    if len(listed) != len(manifest.files):
        return f"{MANIFEST_NAME} lists a file twice"
    present = {file.name: file for file in files}
    missing = sorted(listed.keys() - present.keys())
    if missing:
        return f"{MANIFEST_NAME} lists '{missing[0]}', which is not there"
    extra = sorted(present.keys() - listed.keys() - _UNLISTED)
    if extra:
        return f"'{extra[0]}' is not listed in {MANIFEST_NAME}: remove it, or publish a new version with it"
    for name, wanted in listed.items():
        found = present[name]
        if found.size != wanted.size:
            return f"'{name}' has {found.size} bytes, {MANIFEST_NAME} says {wanted.size}"
        if found.sha256 != wanted.sha256:
            return f"'{name}' has sha256 {found.sha256[:12]}..., {MANIFEST_NAME} says {wanted.sha256[:12]}..."
    return None
