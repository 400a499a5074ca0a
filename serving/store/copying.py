"""Copies the files of one version into the cache and compares them with the manifest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path, PurePath

from serving.domain.artifact import StagedFile
from serving.domain.errors import NotPublished
from serving.domain.listing import Entry, FileStamp
from serving.domain.manifest import MANIFEST_NAME, MAX_DOCUMENT_BYTES, InvalidDocument, Manifest, parse_manifest
from serving.store.blobs import Blobs
from serving.store.durable import sha256_of
from serving.store.names import format_in_version
from serving.store.sources import VersionSource


def copy_version(
    source: VersionSource, entry: Entry, blobs: Blobs, held: set[str], known_sizes: Collection[int], *, is_strict: bool
) -> tuple[StagedFile, ...]:
    """Copy every file of `entry` and return the copies by name.

    `known_sizes` are the sizes of files that the cache holds: a file of such a size is hashed before it is copied. With
    `is_strict` the manifest must match every file; the first difference raises NotPublished. Also raises what Source
    raises, and OSError for the cache.
    """
    sizes = {stamp.name: stamp.size for stamp in entry.fingerprint}
    manifest: Manifest | None = None
    files: dict[str, StagedFile] = {}
    for stamp in sorted(entry.fingerprint, key=lambda stamp: (stamp.name != MANIFEST_NAME, stamp.name)):
        files[stamp.name] = _copy_file(source, stamp, blobs, held, is_likely_known=stamp.size in known_sizes)
        if is_strict and stamp.name == MANIFEST_NAME:
            manifest = _read_manifest(entry, files[stamp.name])
            _refuse_incomplete(entry, why_incomplete(manifest, sizes))
    if manifest is not None:
        _refuse_incomplete(entry, why_incomplete(manifest, sizes, {name: file.sha256 for name, file in files.items()}))
    return tuple(files[name] for name in sorted(files))


def _copy_file(
    source: VersionSource, stamp: FileStamp, blobs: Blobs, held: set[str], *, is_likely_known: bool
) -> StagedFile:
    with source.open(stamp) as descriptor:
        sha256 = sha256_of(source.read_chunks(descriptor, stamp)) if is_likely_known else None
        if sha256 is None or not blobs.has(sha256, stamp.size, held, source.cancel):
            sha256 = blobs.add(source.read_chunks(descriptor, stamp), held)
    return StagedFile(stamp.name, sha256, stamp.size, PurePath(blobs.path(sha256)))


def _read_manifest(entry: Entry, file: StagedFile) -> Manifest:
    if file.size > MAX_DOCUMENT_BYTES:
        raise NotPublished(
            f"'{entry.path}': {MANIFEST_NAME} has {file.size} bytes, at most {MAX_DOCUMENT_BYTES} are read"
        )
    try:
        return parse_manifest(Path(file.path).read_bytes())
    except InvalidDocument as error:
        raise NotPublished(f"'{entry.path}': {error}") from None


def _refuse_incomplete(entry: Entry, reason: str | None) -> None:
    if reason is not None:
        raise NotPublished(f"'{entry.path}': {reason}")


def why_incomplete(manifest: Manifest, sizes: Mapping[str, int], hashes: Mapping[str, str] | None = None) -> str | None:
    """Say how the files of a version, given as sizes in bytes by name, differ from its manifest; None when they match.

    `hashes` holds their sha256 (hex) once they have been read; before that only names and sizes are compared.
    """
    for listed in manifest.files:
        size = sizes.get(listed.name)
        if size is None:
            return f"'{listed.name}' is in {MANIFEST_NAME} and not there yet"
        if size != listed.size:
            return f"'{listed.name}' has {size} bytes, {MANIFEST_NAME} says {listed.size}"
        if hashes is not None and hashes[listed.name] != listed.sha256:
            return f"'{listed.name}' is not the file whose sha256 {MANIFEST_NAME} gives"
    names = {listed.name for listed in manifest.files}
    unlisted = next((name for name in sorted(sizes) if format_in_version(name) and name not in names), None)
    return f"'{unlisted}' is there and not in {MANIFEST_NAME}" if unlisted else None
