"""Publishes a file through the gates, for the command and for `serving.publish`.

The gates evaluate the version as it will be, with its manifest and golden examples; the same bytes are published.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from serving.domain.artifact import Artifact, StagedFile
from serving.domain.errors import PublishRefused, StoreUnavailable
from serving.domain.manifest import GOLDEN_NAME, MANIFEST_NAME, InvalidDocument, ManifestFile, parse_manifest
from serving.domain.report import CandidateReport, GateName
from serving.domain.signature import incompatibilities
from serving.domain.version import Format, VersionId, digest_of
from serving.lifecycle.evaluation_request import Comparison
from serving.offline.bare_publishing import publish_unchecked
from serving.offline.keys import SigningKey
from serving.offline.offline_evaluator import OfflineEvaluator, Started
from serving.settings import Settings, StoreSettings
from serving.store import publishing
from serving.store.durable import create_file
from serving.store.list_store import Store
from serving.store.publishing import Publication, Published

_UNNAMED = "next"


def publish_gated(
    evaluator: OfflineEvaluator,
    main: StagedFile,
    format: Format,  # noqa: A002  (what it is called everywhere else)
    publication: Publication,
    settings: Settings,
    sign: SigningKey | None = None,
    started: Started = lambda _: None,
) -> Published:
    """Evaluate the file `main` as the version that `publication` describes, and publish it if no gate refuses.

    It is compared with the newest version in the store that has a signature, unless it is breaking. A publication
    without signature or libraries gets those that the host found, and the versions that its file keeps. Blocks. Raises
    PublishRefused with the report when a gate refuses; NoHost, HostDied, and what `publishing.publish` raises.
    """
    comparison = Comparison() if publication.breaking else _find_newest_signature(settings.store, publication.model)
    artifact = _write_draft(evaluator.directory, main, format, publication)
    report = evaluator.evaluate(artifact, comparison, started, None if sign is None else str(sign.public))
    if report.refusal is not None:
        reason = f"refused by {report.refusal.gate}: {report.refusal.evidence}"
        raise PublishRefused(reason, _argument_of(report, comparison, publication), report)
    complete = replace(
        publication,
        artefact=Path(main.path),
        libraries=publication.libraries or report.list_training_libraries(),
        signature=report.signature,
    )
    return replace(publish_unchecked(settings.store.path, complete), report=report)


def refuse_unsigned(settings: Settings, sign: SigningKey | None) -> None:
    """Raise PublishRefused when only signed versions are served and this one would not be signed."""
    if sign is None and settings.security.trust == "signed":
        raise PublishRefused('security.trust is "signed", and this version is not signed: sign it', "sign")


def _argument_of(report: CandidateReport, comparison: Comparison, publication: Publication) -> str | None:
    """Return the argument of publishing that would change a refusal, None when no argument would."""
    gate = None if report.refusal is None else report.refusal.gate
    if gate == GateName.GOLDEN and publication.golden is not None:
        return "golden"
    before, now = comparison.active_signature, report.signature
    is_change = gate == GateName.CONTRACT and before is not None and now is not None and incompatibilities(before, now)
    return "breaking" if is_change else None


def _write_draft(
    directory: Path,
    main: StagedFile,
    format: Format,  # noqa: A002
    publication: Publication,
) -> Artifact:
    """Return the version as it will be, with its golden examples and its manifest; only its number may differ."""
    files = [replace(main, name=publication.artefact_name)]
    if publication.golden is not None:
        files.append(_write_file(directory / GOLDEN_NAME, publishing.encode_golden(publication.golden)))
    version = publication.version or _UNNAMED
    listed = [ManifestFile(name=file.name, sha256=file.sha256, size=file.size) for file in files]
    manifest = publishing.encode_manifest(publication, version, listed, datetime.now(UTC))
    files.append(_write_file(directory / MANIFEST_NAME, manifest))
    digest = digest_of((file.name, file.sha256) for file in files)
    return Artifact(VersionId(publication.model, version, digest), format, files[0], tuple(files))


def _write_file(path: Path, raw: bytes) -> StagedFile:
    return StagedFile(path.name, create_file(path, [raw]), len(raw), path)


def _find_newest_signature(settings: StoreSettings, model: str) -> Comparison:
    """Return the newest version with a signature: it stands for the active one, which only a server knows."""
    try:
        entries = Store(settings).list().models.get(model, ())
    except StoreUnavailable:
        return Comparison()
    for entry in entries:
        if not entry.has_manifest or entry.problem is not None:
            continue
        try:
            manifest = parse_manifest((settings.path / entry.path / MANIFEST_NAME).read_bytes())
        except (OSError, InvalidDocument):
            continue
        if manifest.signature is not None:
            return Comparison(active_version=entry.version, active_signature=manifest.signature)
    return Comparison()
