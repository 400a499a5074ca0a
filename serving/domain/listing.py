"""The content of the store as one immutable value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.domain.version import Format


@dataclass(frozen=True, slots=True)
class FileStamp:
    """The file system's data about one file: enough to notice any change, never an identity.

    `ctime_ns` moves on every write and cannot be set back, so a copy with an old mtime is still noticed.
    """

    name: str
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


Fingerprint = tuple[FileStamp, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One version in the store.

    `path` is the version directory, or the file itself for single and lone files, relative to the store's root.
    `main` is the artefact's file name. `problem` says why this entry can never be a candidate as it is.
    `is_lone` marks a file at the top level: its version name is given by the caller, `version` is empty in a Listing.
    """

    model: str
    version: str
    path: str
    main: str
    format: Format | None
    fingerprint: Fingerprint
    has_manifest: bool = False
    is_lone: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything in the store, per model in descending order of versions. `problems` are about names, not versions.

    `root` identifies the directory that was listed (device, inode), so that a replaced root is noticed.
    """

    models: Mapping[str, tuple[Entry, ...]]
    problems: tuple[str, ...] = ()
    root: tuple[int, int] = (0, 0)
