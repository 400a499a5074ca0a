"""Lists what the cache holds: one small file ``<model>/<version>@<digest>.json`` for each staged version."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.domain.artifact import Artifact, StagedFile
from serving.domain.manifest import Sha256
from serving.domain.version import Format, VersionId, digest_of
from serving.store.blobs import Blobs
from serving.store.durable import create_file, sync_directory
from serving.store.temporary_files import TemporaryFiles


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]


class _Descriptor(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: str
    digest: str
    format: Format
    main: str
    files: tuple[_File, ...]
    quiet_seconds: float | None


@dataclass(frozen=True, slots=True)
class Cached:
    """One version in the cache, where its descriptor is and when it was used last (wall clock, nanoseconds)."""

    artifact: Artifact
    path: str
    used_ns: int


class Descriptors:
    """The staged versions. Any thread; blocks on the disk; raises OSError.

    The lock makes reading and removing a descriptor one step, so that a descriptor written in between stays.
    """

    def __init__(self, directory: str, blobs: Blobs, temporary_files: TemporaryFiles) -> None:
        self._directory = directory
        self._blobs = blobs
        self._temporary_files = temporary_files
        self._lock = threading.Lock()

    def models(self) -> tuple[str, ...]:
        """Return the models with staged versions, by name."""
        try:
            with os.scandir(self._directory) as items:
                return tuple(sorted(item.name for item in items if item.is_dir(follow_symlinks=False)))
        except FileNotFoundError:
            return ()

    def read(self, model: str) -> tuple[Cached, ...]:
        """Return the staged versions of a model, last used first. Removes descriptors that can no longer be used."""
        try:
            names = os.listdir(os.path.join(self._directory, model))
        except FileNotFoundError:
            return ()
        found = []
        for name in names:
            path = os.path.join(self._directory, model, name)
            cached = self._read_one(path)
            if cached is not None and self._path_of(cached.artifact.id) == path:
                found.append(cached)
            else:
                _remove_file(path)
        return tuple(sorted(found, key=lambda cached: (cached.used_ns, cached.path), reverse=True))

    def write(self, artifact: Artifact) -> None:
        """Remember a staged version, durably, as the one used last."""
        path = self._path_of(artifact.id)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        document = _Descriptor(
            model=artifact.id.model,
            version=artifact.id.version,
            digest=artifact.id.digest,
            format=artifact.format,
            main=artifact.main.name,
            files=tuple(_File(name=file.name, sha256=file.sha256, size=file.size) for file in artifact.files),
            quiet_seconds=artifact.quiet_seconds,
        )
        with self._temporary_files.make_path() as temporary:
            create_file(temporary, [document.model_dump_json(indent=2).encode()], 0o600)
            self._mark_used(temporary, artifact.id.model)
            with self._lock:
                os.rename(temporary, path)
        sync_directory(os.path.dirname(path))

    def touch(self, artifact: Artifact) -> None:
        """Mark a staged version as the one of its model that was used last."""
        try:
            self._mark_used(self._path_of(artifact.id), artifact.id.model)
        except FileNotFoundError:
            self.write(artifact)

    def remove(self, cached: Cached) -> None:
        """Forget a staged version, unless it has been used since it was read."""
        with self._lock, suppress(FileNotFoundError):
            if os.stat(cached.path).st_mtime_ns == cached.used_ns:
                os.unlink(cached.path)

    def _mark_used(self, path: str, model: str) -> None:
        # Never before an earlier mark: the wall clock may have been set back.
        newest = max((cached.used_ns for cached in self.read(model)), default=0)
        used_ns = max(time.time_ns(), newest + 1)
        os.utime(path, ns=(used_ns, used_ns))

    def _path_of(self, version_id: VersionId) -> str:
        name = f"{version_id.version}@{version_id.digest.removeprefix('sha256:')}.json"
        return os.path.join(self._directory, version_id.model, name)

    def _read_one(self, path: str) -> Cached | None:
        """Return the version of a descriptor, or None when it is damaged or one of its copies is missing."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                document = _Descriptor.model_validate_json(file.read())
                used_ns = os.fstat(descriptor).st_mtime_ns
        except (FileNotFoundError, IsADirectoryError, ValidationError):
            return None
        files = {
            file.name: StagedFile(file.name, file.sha256, file.size, PurePath(self._blobs.path(file.sha256)))
            for file in document.files
        }
        digest = digest_of((file.name, file.sha256) for file in files.values())
        if document.main not in files or digest != document.digest:
            return None
        if any(self._blobs.size(file.sha256) != file.size for file in files.values()):
            return None
        version_id = VersionId(document.model, document.version, digest)
        staged = tuple(files.values())
        artifact = Artifact(version_id, document.format, files[document.main], staged, document.quiet_seconds)
        return Cached(artifact, path, used_ns)


def _remove_file(path: str) -> None:
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError):
        os.unlink(path)
