"""Publishing a model file that was made elsewhere. It is never loaded in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from serving.domain.artifact import Artifact, StagedFile
from serving.domain.errors import PublishRefused, StoreUnavailable
from serving.domain.manifest import GOLDEN_NAME, MANIFEST_NAME, InvalidDocument, parse_golden, parse_manifest
from serving.domain.report import CandidateReport
from serving.domain.version import digest_of
from serving.lifecycle.request import Comparison
from serving.offline.evaluating import Started, workshop
from serving.offline.keys import SigningKey
from serving.settings import Settings, StoreSettings
from serving.store import publishing
from serving.store.durable import create_file
from serving.store.listing import Store
from serving.store.numbering import check_model, check_version, existing_names
from serving.store.publishing import Publication, Published


def publish_file(
    path: Path,
    model: str,
    settings: Settings,
    *,
    version: str | None = None,
    golden: Path | None = None,
    metrics: Mapping[str, JsonValue] | None = None,
    breaking: bool = False,
    sign: SigningKey | None = None,
    started: Started = lambda _: None,
) -> tuple[CandidateReport, Published | None]:
    """Evaluate a model file as the next version of `model` (or as `version`) and publish it if no gate refuses.

    Returns what the gates said, and where it went: None when it was refused. It is compared with the newest version in
    the store that says what it takes, unless `breaking`. The bytes that are published are those that were evaluated;
    `sign` signs them.
    Blocks. Raises what `check` raises, InvalidDocument for the `golden` file, and PublishRefused.
    """
    if sign is None and settings.security.trust == "signed":
        raise PublishRefused('security.trust is "signed", and this would not be: sign it, with --sign KEYFILE')
    examples = None if golden is None else _read(golden)
    _refuse_taken_names(settings.store.path, model, version)
    with workshop(settings) as shop:
        artifact = shop.stage(path, model, version or "next")
        if examples is not None:
            artifact = _with_golden(artifact, examples, shop.directory)
        comparison = Comparison() if breaking else _newest_published(settings.store, model)
        report = shop.evaluate(artifact, comparison, started, None if sign is None else str(sign.public))
        if report.refusal is not None:
            return report, None
        publication = Publication(
            model=model,
            artefact_name=f"model{path.suffix.lower()}",
            artefact=Path(artifact.main.path),
            version=version,
            libraries=report.libraries,
            signature=report.signature,
            metrics=metrics or {},
            breaking=breaking,
            golden=None if examples is None else parse_golden(examples),
            sign=None if sign is None else sign.sign,
        )
        return report, publishing.publish(settings.store.path, publication, datetime.now(UTC))


def _read(golden: Path) -> bytes:
    try:
        raw = golden.read_bytes()
    except OSError as error:
        raise PublishRefused(f"the golden examples cannot be read: '{golden}': {error.strerror}") from None
    parse_golden(raw)
    return raw


def _refuse_taken_names(root: Path, model: str, version: str | None) -> None:
    """Say before the evaluation what publishing would say after it."""
    try:
        if root.is_dir():
            check_model(str(root), model)
        if version is not None:
            check_version(model, version, existing_names(str(root / model)) if (root / model).is_dir() else [])
    except OSError as error:
        raise PublishRefused(f"the store '{root}' cannot be read: {error.strerror}") from None


def _with_golden(artifact: Artifact, raw: bytes, directory: Path) -> Artifact:
    path = directory / GOLDEN_NAME
    staged = StagedFile(GOLDEN_NAME, create_file(path, [raw]), len(raw), path)
    files = (*artifact.files, staged)
    digest = digest_of((file.name, file.sha256) for file in files)
    return replace(artifact, files=files, id=replace(artifact.id, digest=digest))


def _newest_published(settings: StoreSettings, model: str) -> Comparison:
    """Return the newest version with a signature: no server is asked, so this stands for the active one."""
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
