"""A private, verified copy of one version in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from serving.domain.version import Format, VersionId


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One file of a version: its name in the store, the hash and size of the copy, and where the copy is."""

    name: str
    sha256: str
    size: int
    path: PurePath


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Artifact:
    """One version as it was copied; later edits in the store cannot change it.

    `files` holds every file of the version; the model is loaded from `main`. `quiet_seconds` is how long the files had
    not changed when they were copied, None when the manifest matched, so that there was no need to wait.
    """

    id: VersionId
    format: Format
    main: StagedFile
    files: tuple[StagedFile, ...]
    quiet_seconds: float | None = None

    def file(self, name: str) -> StagedFile | None:
        """Return the staged file called `name` in the store, if the version has one."""
        return next((file for file in self.files if file.name == name), None)
