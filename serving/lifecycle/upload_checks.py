"""One upload whose files are all there: through the gates, and into the store if none refuses.

The version is evaluated as it will be, with its manifest and golden examples, before anybody can see it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from pathlib import Path

from serving.domain.artifact import Artifact
from serving.domain.contents import why_not_named
from serving.domain.errors import (
    InvalidInput,
    PublishRefused,
    Unavailable,
)
from serving.domain.listing import Entry
from serving.domain.manifest import (
    MANIFEST_NAME,
    MAX_DOCUMENT_BYTES,
    InvalidDocument,
    ManifestFile,
    parse_manifest,
)
from serving.domain.provenance import SIGNATURE_NAME
from serving.domain.report import Evaluation, GateResult
from serving.domain.upload import UploadRequest
from serving.failpoints import reach
from serving.lifecycle.candidate import (
    Candidate,
    CandidateFailed,
    CandidatePassed,
    CandidateRefused,
    CandidateStaged,
    CandidateUnfinished,
    CopyDamaged,
    Outcome,
)
from serving.lifecycle.candidate_runner import CandidateRunner, Trial
from serving.lifecycle.evaluation_cache import EvaluationCache
from serving.lifecycle.evaluation_request import Comparison
from serving.lifecycle.inbox import ComparisonWanted
from serving.lifecycle.records import now_utc
from serving.settings import Settings
from serving.store.entries import Rules, Subject, read_directory
from serving.store.names import Names
from serving.store.numbering import choose_next_number, list_names
from serving.store.publishing import Publication, Published, encode_manifest, publish_directory, replace_file
from serving.store.staging import Cache

POLL_SECONDS = 0.1
STOPPED = "the server is being stopped; send it again"


class UploadChecks:
    """Checks and publishes uploads. Every method blocks; worker threads only."""

    def __init__(
        self,
        runner: CandidateRunner,
        cache: Cache,
        evaluation_cache: EvaluationCache,
        settings: Settings,
        post: Callable[[ComparisonWanted], None],
    ) -> None:
        self._runner = runner
        self._cache = cache
        self._evaluation_cache = evaluation_cache
        self._settings = settings
        self._post = post

    def publish(
        self,
        files: Path,
        request: UploadRequest,
        candidate: Candidate,
        on_gate: Callable[[GateResult], None],
    ) -> Published:
        """Check the version in the directory `files` of the store, and rename the directory if no gate refuses.

        Returns with the report. Raises PublishRefused with the report when a gate refuses or without it when the name
        is taken, InvalidInput for files that are no version, Unavailable for what may work another time, and OSError.
        """
        root = self._settings.store.path
        publication = _read_publication(files, request)
        candidate.version = request.version or choose_next_number(request.model, _list_versions(root / request.model))
        staged = self._stage(files, candidate, has_manifest=publication is None)
        draft = staged
        if publication is not None:
            draft = self._cache.add_manifest(staged, candidate.version, _write_manifest(publication, staged, candidate))
        evaluation = self._evaluate(draft, candidate, on_gate)
        reach("upload-checked")
        if candidate.cancelled.is_set():
            raise Unavailable(STOPPED)

        def complete(name: str) -> str:
            if publication is None:
                return staged.id.digest
            candidate.version = name
            return self._complete(files, publication, candidate, staged, evaluation)

        published = publish_directory(root, request.model, request.version, files, complete)
        reach("upload-published")
        return replace(published, report=evaluation.report)

    def _stage(self, files: Path, candidate: Candidate, *, has_manifest: bool) -> Artifact:
        """Copy the files into the cache: they are complete, whether or not a manifest says so."""
        entry = _list_files(files, candidate.model, candidate.version, self._settings)
        outcome = self._runner.stage(candidate, entry, None if has_manifest else 0.0)
        if isinstance(outcome, CandidateStaged):
            return outcome.artifact
        raise _explain(outcome, entry.path)

    def _evaluate(self, artifact: Artifact, candidate: Candidate, on_gate: Callable[[GateResult], None]) -> Evaluation:
        """Run the gates; when a host dies without a verdict over the file, another one is tried."""
        source = f"{candidate.model}/{candidate.version}"
        trial = Trial(candidate, artifact, self._compare(candidate), source, on_gate)
        outcome = self._runner.check(trial)
        if isinstance(outcome, CandidateFailed) and outcome.is_host_death:
            outcome = self._runner.check(trial)
        if isinstance(outcome, CandidatePassed):
            return outcome.evaluation
        raise _explain(outcome, source)

    def _compare(self, candidate: Candidate) -> Comparison:
        """Ask the reconciler what the version is compared with."""
        wanted = ComparisonWanted(candidate.model, candidate.version, Future())
        self._post(wanted)
        while not candidate.cancelled.is_set():
            try:
                return wanted.comparison.result(POLL_SECONDS)
            except FutureTimeout:
                continue
        raise Unavailable(STOPPED)

    def _complete(
        self, files: Path, publication: Publication, candidate: Candidate, staged: Artifact, evaluation: Evaluation
    ) -> str:
        """Write the manifest as it is published, with what the gates found; return the digest.

        The evaluation is kept for the digest that this makes, too: nothing but what the gates themselves have found is
        new in it, and so the version is not evaluated again when it is taken up.
        """
        report = evaluation.report
        described = replace(publication, libraries=report.list_training_libraries(), signature=report.signature)
        raw = _write_manifest(described, staged, candidate)
        replace_file(files / MANIFEST_NAME, raw)
        complete = self._cache.add_manifest(staged, candidate.version, raw)
        self._evaluation_cache.keep(complete, evaluation)
        return complete.id.digest


def _write_manifest(publication: Publication, staged: Artifact, candidate: Candidate) -> bytes:
    listed = [ManifestFile(name=file.name, sha256=file.sha256, size=file.size) for file in staged.files]
    return encode_manifest(publication, candidate.version, listed, now_utc())


def _read_publication(files: Path, request: UploadRequest) -> Publication | None:
    """Return what the server's manifest will say; None when the client's own manifest came with the files.

    Raises InvalidInput for documents that are none, or that say something else than the request.
    """
    if (files / MANIFEST_NAME).exists():
        _require_own_manifest(files, request)
        return None
    if (files / SIGNATURE_NAME).exists():
        raise InvalidInput(f"{SIGNATURE_NAME} came without the {MANIFEST_NAME} that it signs")
    return Publication(
        model=request.model,
        artefact_name="",
        artefact=files,
        version=request.version,
        metrics=request.metrics,
        breaking=request.is_breaking,
    )


def _require_own_manifest(files: Path, request: UploadRequest) -> None:
    try:
        manifest = parse_manifest(_read_document(files / MANIFEST_NAME))
    except InvalidDocument as error:
        raise InvalidInput(str(error)) from None
    if request.version is None:
        raise InvalidInput(
            f"{MANIFEST_NAME} names version '{manifest.version}': send it to that version, not to 'next'"
        )
    if why := why_not_named(manifest, request.model, request.version):
        raise InvalidInput(why)
    if request.metrics or (request.is_breaking and not manifest.breaking):
        raise InvalidInput(f"metrics and breaking are in {MANIFEST_NAME} where there is one, not in the query")


def _read_document(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_DOCUMENT_BYTES:
        raise InvalidDocument(f"{path.name} has {size} bytes, at most {MAX_DOCUMENT_BYTES} are read")
    return path.read_bytes()


def _list_versions(directory: Path) -> list[tuple[str, str]]:
    return list_names(str(directory)) if directory.is_dir() else []


def _list_files(files: Path, model: str, version: str, settings: Settings) -> Entry:
    """Return the files as the store would list them under this name; raises InvalidInput where it would not."""
    root = settings.store.path.resolve()
    real = str(root / files.parent.name / files.name)
    rules = Rules(str(root), Names(settings.store.ignore), int(settings.store.max_artifact_mb * (1 << 20)))
    descriptor = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        subject = Subject(model, version, os.path.relpath(real, root))
        reading = read_directory(rules, subject, descriptor, real)
    finally:
        os.close(descriptor)
    entry = reading.entry
    if entry is None:
        raise InvalidInput(_hide_place(reading.note or "there is no artefact in what was sent", subject.path))
    if entry.problem is not None:
        raise InvalidInput(f"what was sent {entry.problem}")
    return entry


def _explain(outcome: Outcome, place: str) -> Exception:
    """Return why a version is not published; `place` is where its files lie, which is not for its sender."""
    match outcome:
        case CandidateRefused(report):
            refusal = report.refusal
            assert refusal is not None
            return PublishRefused(f"refused by {refusal.gate}: {refusal.evidence}", None, report)
        case CandidateUnfinished(reason):
            return InvalidInput(_hide_place(reason, place))
        case CandidateFailed(reason) | CopyDamaged(reason):
            return Unavailable(_hide_place(reason, place))
    return Unavailable(STOPPED)


def _hide_place(text: str, place: str) -> str:
    return text.replace(f"'{place}/", "'").replace(f"'{place}'", "what was sent")
