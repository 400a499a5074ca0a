"""Publishes a file through the gates, for the command and for `serving.publish`.

The gates evaluate the version as it will be, with its manifest and golden examples; the same bytes are published.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
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
from serving.offline.keys import SigningKey
from serving.offline.offline_evaluator import OfflineEvaluator, Started
from serving.settings import Settings, StoreSettings
from serving.store import publishing
from serving.store.durable import create_file
from serving.store.list_store import Store
from serving.store.numbering import list_names, require_free_model, require_free_version
from serving.store.publishing import Publication, Published

_UNNAMED = "next"
_HINTS = {
    "breaking": "{} does that",
    "golden": "the rows and answers are those of {}",
}


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
    without signature or libraries gets those that the host found. Blocks. Raises PublishRefused with the report when a
    gate refuses; NoHost, HostDied, and what `publishing.publish` raises.
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
        libraries=publication.libraries or report.libraries,
        signature=report.signature,
    )
    return replace(publish_unchecked(settings.store.path, complete), report=report)


def publish_unchecked(root: Path, publication: Publication) -> Published:
    """Publish now, without the gates; see `publishing.publish`."""
    return publishing.publish(root, publication, datetime.now(UTC))


def refuse_early(settings: Settings, model: str, version: str | None) -> None:
    """Raise PublishRefused before the evaluation for problems that publishing would find after it."""
    root = settings.store.path
    try:
        require_free_model(str(root), model)
        directory = root / model
        if version is not None:
            require_free_version(model, version, list_names(str(directory)) if directory.is_dir() else [])
        place = next((path for path in (directory, root, root.absolute().parent) if path.exists()), None)
    except OSError as error:
        raise PublishRefused(f"the store '{root}' cannot be read: {error.strerror}", "store") from None
    if place is None or not place.is_dir():
        wrong = f"there is no directory '{root.absolute().parent}'" if place is None else f"'{place}' is no directory"
        raise PublishRefused(f"the store '{root}' cannot be made: {wrong}", "store")
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PublishRefused(f"the store '{root}' cannot be written: no permission for '{place}'", "store")


def refuse_unsigned(settings: Settings, sign: SigningKey | None) -> None:
    """Raise PublishRefused when only signed versions are served and this one would not be signed."""
    if sign is None and settings.security.trust == "signed":
        raise PublishRefused('security.trust is "signed", and this version is not signed: sign it', "sign")


def add_hint(error: PublishRefused, spelling: Mapping[str, str]) -> str:
    """Return the message with the argument that would help, spelled as a flag or a keyword by `spelling`."""
    argument = spelling.get(error.argument or "")
    if argument is None:
        return str(error)
    hint = _HINTS.get(error.argument or "") if error.report is not None else None
    return f"{error} ({argument})" if hint is None else f"{error}; {hint.format(argument)}"


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
