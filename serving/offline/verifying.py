"""Verifies who signed a version directory, and that it is what they signed. Loads no part of it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from serving.domain.artifact import StagedFile
from serving.domain.contents import why_not_listed, why_not_named
from serving.domain.errors import ServingError
from serving.domain.listing import Entry
from serving.domain.manifest import MANIFEST_NAME, MAX_DOCUMENT_BYTES, InvalidDocument, Manifest, parse_manifest
from serving.domain.provenance import MAX_SIGNATURE_BYTES, SIGNATURE_NAME, PublicKey, creation_time_of
from serving.domain.report import Verdict
from serving.host.ed25519 import verify_signers
from serving.offline.find_version import find_entry
from serving.settings import StoreSettings
from serving.store.durable import sha256_of
from serving.store.sources import VersionSource


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of one check: `verdict` is passed or refused."""

    check: str
    verdict: Verdict
    evidence: str


def verify(path: Path, keys: Collection[PublicKey], settings: StoreSettings) -> tuple[Verified, ...]:
    """Check manifest, files and signatures of the version directory at `path`; stop at the first refusal.

    One of `keys` must have signed. In the store of `settings` the directories must have the names in the manifest;
    elsewhere `find_entry` decides the names. Blocks on reading every file; raises NotPublished for a path that is no
    version, or changes meanwhile, and StagingFailed for a file that cannot be read.
    """
    root, entry = find_entry(path, settings)
    checks: list[Verified] = []
    try:
        for name, evidence in _gather_evidence(
            path.resolve(), entry, VersionSource(root, entry, threading.Event()), keys, settings
        ):
            checks.append(Verified(name, Verdict.PASSED, evidence))
    except _Refused as refusal:
        checks.append(Verified(refusal.check, Verdict.REFUSED, str(refusal)))
    return tuple(checks)


class _Refused(Exception):  # an outcome, not an error: caught by `verify` only
    def __init__(self, check: str, reason: str) -> None:
        super().__init__(reason)
        self.check = check


def _gather_evidence(
    real: Path, entry: Entry, source: VersionSource, keys: Collection[PublicKey], settings: StoreSettings
) -> Iterator[tuple[str, str]]:
    document = _read_file(source, entry, MANIFEST_NAME, MAX_DOCUMENT_BYTES)
    manifest = _parse_manifest(document)
    model, version = entry.model, entry.version
    if real.parent.parent == settings.path.resolve():
        model, version = real.parent.name, real.name
    _refuse_problem("manifest", why_not_named(manifest, model, version))
    yield "manifest", f"{model}/{version}, made at {creation_time_of(manifest):%Y-%m-%dT%H:%M:%SZ}"
    _refuse_problem("files", why_not_listed(manifest, _hash_files(source, entry)))
    yield "files", f"{len(manifest.files)} as listed in {MANIFEST_NAME}"
    raw = _read_file(source, entry, SIGNATURE_NAME, MAX_SIGNATURE_BYTES)
    yield "signature", _find_trusted_signer(raw, document, keys)


def _find_trusted_signer(signatures: bytes, document: bytes, keys: Collection[PublicKey]) -> str:
    try:
        found = verify_signers(signatures, document)
    except ServingError as error:
        raise _Refused("signature", str(error)) from None
    by = next((key for key in found if key in keys), None)
    if by is None:
        names = ", ".join(map(str, found))
        raise _Refused(
            "signature", f"signed by {names}, which is none of the trusted keys (--key, security.trusted_keys)"
        )
    return f"by {by}"


def _parse_manifest(document: bytes) -> Manifest:
    try:
        return parse_manifest(document)
    except InvalidDocument as error:
        raise _Refused("manifest", str(error)) from None


def _read_file(source: VersionSource, entry: Entry, name: str, at_most: int) -> bytes:
    stamp = next((stamp for stamp in entry.fingerprint if stamp.name == name), None)
    check = "signature" if name == SIGNATURE_NAME else "manifest"
    if stamp is None:
        raise _Refused(check, f"not signed: there is no {name}; 'serving publish --sign KEYFILE' writes one")
    if stamp.size > at_most:
        raise _Refused(check, f"{name} has {stamp.size} bytes, at most {at_most} are read")
    with source.open(stamp) as descriptor:
        return b"".join(map(bytes, source.read_chunks(descriptor, stamp)))


def _hash_files(source: VersionSource, entry: Entry) -> Iterator[StagedFile]:
    for stamp in entry.fingerprint:
        with source.open(stamp) as descriptor:
            yield StagedFile(stamp.name, sha256_of(source.read_chunks(descriptor, stamp)), stamp.size, PurePath())


def _refuse_problem(check: str, reason: str | None) -> None:
    if reason is not None:
        raise _Refused(check, reason)
