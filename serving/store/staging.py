"""The cache: keeps private, verified copies of versions, hashed while they are copied."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from serving.domain.artifact import Artifact, StagedFile
from serving.domain.errors import NotPublished, StagingFailed
from serving.domain.listing import Entry
from serving.domain.manifest import MANIFEST_NAME
from serving.domain.report import Evaluation
from serving.domain.version import Format, VersionId, digest_of
from serving.failpoints import reach
from serving.settings import StateSettings
from serving.store.artifact_leases import ArtifactLeases
from serving.store.blobs import Blobs
from serving.store.copying import copy_version
from serving.store.descriptors import Descriptors
from serving.store.evaluations import EvaluationFiles
from serving.store.eviction import choose_surplus
from serving.store.sources import VersionSource
from serving.store.temporary_files import TemporaryFiles

CHECK_BYTES = 4096


class Cache:
    """Staged versions under ``<state>/cache``, by content. Any thread; every method blocks on the disk.

    ``sha256/<hex>`` holds the copies, ``versions/`` lists the copies of each version, ``evaluations/`` keeps reports
    and compiled forms, ``tmp/`` holds unfinished files. Every error of the state directory is raised as StagingFailed.
    The cache never evicts an Artifact that this process still refers to, so a caller may use one without announcing it.
    """

    def __init__(self, state: StateSettings, store_root: Path, max_artifact_bytes: int) -> None:
        self._directory = os.path.abspath(state.path / "cache")
        self._root = store_root
        self._max_artifact_bytes = max_artifact_bytes
        self._max_versions = state.cache_versions
        self._max_bytes = int(state.cache_mb * (1 << 20))
        self._temporary_files = TemporaryFiles(os.path.join(self._directory, "tmp"))
        self._blobs = Blobs(os.path.join(self._directory, "sha256"), self._temporary_files)
        self._descriptors = Descriptors(os.path.join(self._directory, "versions"), self._blobs, self._temporary_files)
        self._evaluations = EvaluationFiles(os.path.join(self._directory, "evaluations"), self._temporary_files)
        self._artifact_leases = ArtifactLeases()

    def stage(self, entry: Entry, version: str, quiet_seconds: float | None, cancel: threading.Event) -> Artifact:
        """Copy one version and return the copy.

        `version` names it (a lone file's Entry has no version). `quiet_seconds` is how long its files have not
        changed. None means that the caller has not waited: then a manifest must be there and match. Raises
        NotPublished when the files are incomplete or not as listed, StagingFailed when they cannot be copied,
        Cancelled soon after `cancel` was set.
        """
        if entry.problem is not None or entry.format is None:
            raise NotPublished(f"'{entry.path}': {entry.problem or 'holds no artefact'}")
        if quiet_seconds is None and not entry.has_manifest:
            raise NotPublished(f"'{entry.path}' has no {MANIFEST_NAME} and has not been quiet yet")
        size = sum(stamp.size for stamp in entry.fingerprint)
        if size > self._max_artifact_bytes:
            raise StagingFailed(f"'{entry.path}' has {size} bytes, more than the {self._max_artifact_bytes} allowed")
        source = VersionSource(self._root, entry, cancel)
        with _translate_os_errors(f"'{entry.path}' cannot be copied into the cache"), self._blobs.hold() as held:
            reach("before-staging")
            source.require_unchanged()
            self._make_directories()
            known_sizes = {file.size for one in self._descriptors.read(entry.model) for file in one.artifact.files}
            files = copy_version(source, entry, self._blobs, held, known_sizes, is_strict=quiet_seconds is None)
            source.require_unchanged()
            self._blobs.sync()
            return self._register_version(entry, version, files, quiet_seconds, entry.format)

    def add_manifest(self, artifact: Artifact, version: str, raw: bytes) -> Artifact:
        """Return a staged version under the name `version` with this manifest, which is written into the cache only.

        The files themselves are neither copied nor read again. Raises StagingFailed.
        """
        model = artifact.id.model
        with _translate_os_errors(f"'{model}/{version}' cannot be written into the cache"), self._blobs.hold() as held:
            self._make_directories()
            sha256 = self._blobs.add([memoryview(raw)], held)
            self._blobs.sync()
            manifest = StagedFile(MANIFEST_NAME, sha256, len(raw), PurePath(self._blobs.path(sha256)))
            others = [file for file in artifact.files if file.name != MANIFEST_NAME]
            files = tuple(sorted([*others, manifest], key=lambda file: file.name))
            digest = digest_of((file.name, file.sha256) for file in files)
            named = Artifact(VersionId(model, version, digest), artifact.format, artifact.main, files)
            self._descriptors.write(named)
            return self._artifact_leases.hand_out(named)

    def check_writable(self) -> None:
        """Write a file into the cache and remove it; raises OSError, as it is, when that cannot be done."""
        self._make_directories()
        with self._temporary_files.make_path() as temporary, open(temporary, "xb") as file:
            file.write(bytes(CHECK_BYTES))
            file.flush()
            os.fsync(file.fileno())

    def artifacts(self, model: str) -> tuple[Artifact, ...]:
        """Return the staged versions of a model, last used first. Drops versions that are obviously damaged."""
        with _translate_os_errors("the cache cannot be read"):
            return tuple(self._artifact_leases.hand_out(one.artifact) for one in self._descriptors.read(model))

    def models(self) -> tuple[str, ...]:
        """Return the models with staged versions."""
        with _translate_os_errors("the cache cannot be read"):
            return self._descriptors.models()

    def touch(self, artifact: Artifact) -> None:
        """Mark a staged version as the one of its model that was used last."""
        with _translate_os_errors("the cache cannot be written"):
            self._descriptors.touch(artifact)

    def verify(self, artifact: Artifact, cancel: threading.Event | None = None) -> None:
        """Hash the copies again; raises StagingFailed when one has changed.

        Raises Cancelled soon after `cancel` was set.
        """
        with _translate_os_errors("the cache cannot be read"):
            for file in artifact.files:
                if not self._blobs.verify(file.sha256, cancel):
                    raise StagingFailed(f"the cached copy of '{file.name}' of {artifact.id} is damaged or gone")

    def read_evaluation(self, digest: str, basis: str) -> Evaluation | None:
        """Return the evaluation kept for these bytes on the same `basis`, None when it is gone or damaged."""
        with _translate_os_errors("the cache cannot be read"):
            return self._evaluations.read(digest, basis)

    def keep_evaluation(self, digest: str, basis: str, evaluation: Evaluation) -> None:
        """Keep the evaluation of these bytes durably. `basis` names what it depends on besides the bytes."""
        with _translate_os_errors("the cache cannot be written"):
            self._make_directories()
            self._evaluations.write(digest, basis, evaluation)

    def evict(self, in_use: Collection[str]) -> None:
        """Evict least recently used versions beyond the limits, and files that no version refers to.

        Always keeps the digests `in_use`, versions being staged, and Artifacts that this process still refers to. One
        caller at a time.
        """
        with _translate_os_errors("the cache cannot be cleaned up"), self._blobs.sweep():
            if not os.path.isdir(self._directory):
                return
            self._make_directories()
            lent = self._artifact_leases.current()
            digests = {*in_use, *(artifact.id.digest for artifact in lent)}
            cached = [one for model in self._descriptors.models() for one in self._descriptors.read(model)]
            given_up = choose_surplus(
                cached,
                digests,
                self._max_versions,
                self._max_bytes,
                lambda file: self._blobs.bytes_on_disk(file.sha256),
            )
            for one in given_up:
                self._descriptors.remove(one)
            kept = [*lent, *(one.artifact for one in cached if one not in given_up)]
            self._blobs.remove_all_but({file.sha256 for artifact in kept for file in artifact.files})
            self._evaluations.remove_all_but({artifact.id.digest for artifact in kept})
            self._temporary_files.remove_leftovers()

    def _make_directories(self) -> None:
        os.makedirs(self._directory, 0o700, exist_ok=True)
        for name in ("sha256", "versions", "evaluations", "tmp"):
            os.makedirs(os.path.join(self._directory, name), 0o700, exist_ok=True)

    def _register_version(
        self, entry: Entry, version: str, files: tuple[StagedFile, ...], quiet_seconds: float | None, kind: Format
    ) -> Artifact:
        digest = digest_of((file.name, file.sha256) for file in files)
        main = next(file for file in files if file.name == entry.main)
        artifact = Artifact(VersionId(entry.model, version, digest), kind, main, files, quiet_seconds)
        self._descriptors.write(artifact)
        return self._artifact_leases.hand_out(artifact)


@contextmanager
def _translate_os_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StagingFailed(f"{what}: {error.strerror or error}") from None
