"""Copying the files of one version into the cache, and holding them against their manifest."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePath

from serving.domain.artifact import StagedFile
from serving.domain.errors import NotPublished
from serving.domain.listing import Entry, FileStamp
from serving.domain.manifest import MANIFEST_NAME, MAX_DOCUMENT_BYTES, InvalidDocument, Manifest, parse_manifest
from serving.store.blobs import Blobs
from serving.store.durable import sha256_of
from serving.store.published import why_incomplete
from serving.store.sources import Source


def copy_version(
    source: Source, entry: Entry, blobs: Blobs, held: set[str], known_sizes: Collection[int], *, is_strict: bool
) -> tuple[StagedFile, ...]:
    """Copy every file of `entry` and return the copies by name.

    `known_sizes` are those of files that may be in the cache already: they are hashed before they are copied. With
    `is_strict` a manifest must match everything, or NotPublished is raised as early as that is known. Raises what
    Source raises, and OSError for the cache.
    """
    sizes = {stamp.name: stamp.size for stamp in entry.fingerprint}
    manifest: Manifest | None = None
    files: dict[str, StagedFile] = {}
    for stamp in sorted(entry.fingerprint, key=lambda stamp: (stamp.name != MANIFEST_NAME, stamp.name)):
        files[stamp.name] = _copy_file(source, stamp, blobs, held, is_likely_known=stamp.size in known_sizes)
        if is_strict and stamp.name == MANIFEST_NAME:
            manifest = _read_manifest(entry, files[stamp.name])
            _refuse(entry, why_incomplete(manifest, sizes))
    if manifest is not None:
        _refuse(entry, why_incomplete(manifest, sizes, {name: file.sha256 for name, file in files.items()}))
    return tuple(files[name] for name in sorted(files))


def _copy_file(source: Source, stamp: FileStamp, blobs: Blobs, held: set[str], *, is_likely_known: bool) -> StagedFile:
    with source.open(stamp) as descriptor:
        sha256 = sha256_of(source.chunks(descriptor, stamp)) if is_likely_known else None
        if sha256 is None or not blobs.has(sha256, stamp.size, held, source.cancel):
            sha256 = blobs.add(source.chunks(descriptor, stamp), held)
    return StagedFile(stamp.name, sha256, stamp.size, PurePath(blobs.path(sha256)))


def _read_manifest(entry: Entry, file: StagedFile) -> Manifest:
    if file.size > MAX_DOCUMENT_BYTES:
        raise NotPublished(f"'{entry.path}': {MANIFEST_NAME} has {file.size} bytes, at most {MAX_DOCUMENT_BYTES}")
    try:
        return parse_manifest(Path(file.path).read_bytes())
    except InvalidDocument as error:
        raise NotPublished(f"'{entry.path}': {error}") from None


def _refuse(entry: Entry, reason: str | None) -> None:
    if reason is not None:
        raise NotPublished(f"'{entry.path}': {reason}")
