"""``serving publish --url``: sends a file to a server, whose gates check it, and shows what they say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tarfile import USTAR_FORMAT, TarInfo
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import typer
from pydantic import BaseModel

from serving.cli.client import CallFailed, ServerClient
from serving.cli.output import one_line, show, show_progress
from serving.cli.report_output import show_gates
from serving.cli.upload_call import send_upload
from serving.domain.errors import PublishRefused
from serving.domain.manifest import GOLDEN_NAME, MANIFEST_NAME, Golden, ManifestFile
from serving.domain.provenance import SIGNATURE_NAME
from serving.domain.report import CandidateReport, GateName, GateResult, Verdict
from serving.domain.upload import NEXT, UploadStatus

if TYPE_CHECKING:
    from serving.offline.keys import SigningKey

CHUNK_BYTES = 1 << 20
BLOCK = 512


@dataclass(frozen=True, slots=True)
class RemotePublication:
    """What is to be published. A version None asks for the next number."""

    file: Path
    model: str
    version: str | None
    golden: Path | None
    metrics: Mapping[str, Any]
    is_breaking: bool
    sign: SigningKey | None


class _Named(BaseModel):
    version: str


class _Versions(BaseModel):
    versions: tuple[_Named, ...]


class _Verdicts(BaseModel):
    detail: str
    gate: str | None = None
    gates: tuple[GateResult, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Member:
    """One file of the body: its name, its size, and what yields its bytes."""

    name: str
    size: int
    read: Callable[[], Iterator[bytes]]


def publish_remotely(server: ServerClient, wanted: RemotePublication) -> None:
    """Send the file, show the verdict of the server's gates, and exit with 1 when one refuses.

    Blocks until the gates have spoken. Raises CallFailed, PublishRefused and NotPublished.
    """
    name = _find_artefact_name(wanted.file)
    main = _Member(name, wanted.file.stat().st_size, lambda: _read_file(wanted.file))
    version = wanted.version or (NEXT if wanted.sign is None else _find_next_number(server, wanted.model))
    headers = {"Accept": "application/json", "User-Agent": "serving-cli"}
    if server.token is not None:
        headers["Authorization"] = f"Bearer {server.token}"
    query: dict[str, str] = {}
    if wanted.sign is None:
        query |= {"breaking": "true"} if wanted.is_breaking else {}
        query |= {"metrics": json.dumps(dict(wanted.metrics))} if wanted.metrics else {}
    members = [main, *_make_documents(wanted, main, version)]
    if len(members) == 1:
        query["file"] = name
        size, chunks = main.size, main.read()
    else:
        headers["Content-Type"] = "application/x-tar"
        size, chunks = _count_archive(members), _write_archive(members)
    target = f"/models/{quote(wanted.model, safe='')}/versions/{quote(version, safe='')}"
    target += f"?{urlencode(query)}" if query else ""
    with show_progress(f"sending {wanted.file}") as doing:
        answer = send_upload(server, target, size, _count(chunks, size, doing), headers)
    if answer.status == 201:
        _show_published(server, server.parse_answer(UploadStatus, answer.document), wanted)
        return
    _show_refusal(server, answer.document, wanted)


def _show_published(server: ServerClient, status: UploadStatus, wanted: RemotePublication) -> None:
    by = f", signed by {wanted.sign.public.fingerprint}" if wanted.sign else ""
    show(one_line(f"published {status.model}/{status.version}: {server.url}, {status.bytes} bytes{by}"))
    warnings = sum(gate.verdict is Verdict.WARNED for gate in status.gates)
    passed = f"passed{f' with {warnings} warned' if warnings else ''}"
    show(f"{passed}; the server takes it up by itself, see: serving status --url {server.url}")


def _show_refusal(server: ServerClient, document: dict[str, Any], wanted: RemotePublication) -> None:
    """Show the gates and exit where one refused; raise CallFailed for every other reason."""
    if "detail" not in document:
        raise CallFailed(one_line(f"{server.url} answered in another way than expected; is it a serving server?"))
    refusal = server.parse_answer(_Verdicts, document)
    if not refusal.gates:
        raise CallFailed(one_line(server.add_hint(refusal.detail, document.get("status"))))
    show_gates(CandidateReport(gates=refusal.gates))
    hint = ""
    if refusal.gate == GateName.CONTRACT and not wanted.is_breaking:
        hint = "; --breaking does that"
    elif refusal.gate == GateName.GOLDEN and wanted.golden is not None:
        hint = "; the rows and answers are those of --golden FILE"
    show(one_line(f"not published: {refusal.detail}{hint}"))
    raise typer.Exit(1)


def _find_artefact_name(path: Path) -> str:
    from serving.offline.find_version import find_entry  # noqa: PLC0415  (only here)
    from serving.settings import load_settings  # noqa: PLC0415  (the same)
    from serving.store.names import artefact_name  # noqa: PLC0415  (the same)

    if path.is_dir():
        raise PublishRefused(f"'{path}' is a directory; name the model file in it")
    _, entry = find_entry(path, load_settings().store)
    assert entry.format is not None
    return artefact_name(path.suffix, entry.format)


def _find_next_number(server: ServerClient, model: str) -> str:
    """Return the next number as the server would choose it: a signature names the version that it is for."""
    from serving.store.numbering import choose_next_number  # noqa: PLC0415  (only here)

    try:
        found = server.parse_answer(_Versions, server.get("models", model))
    except CallFailed as error:
        if "no model named" in str(error):
            return "1"
        raise
    return choose_next_number(model, [(one.version, one.version) for one in found.versions])


def _make_documents(wanted: RemotePublication, main: _Member, version: str) -> list[_Member]:
    """Return the documents that travel with the file: golden examples, and a signed version's manifest."""
    from serving.offline.file_publishing import read_golden  # noqa: PLC0415  (only here)
    from serving.store.durable import sha256_of  # noqa: PLC0415  (the same)
    from serving.store.publishing import Publication, encode_golden, encode_manifest  # noqa: PLC0415  (the same)

    golden: Golden | None = None if wanted.golden is None else read_golden(wanted.golden)
    documents = [] if golden is None else [_hold(GOLDEN_NAME, encode_golden(golden))]
    if wanted.sign is None:
        return documents
    files = [ManifestFile(name=one.name, sha256=sha256_of(one.read()), size=one.size) for one in [main, *documents]]
    publication = Publication(
        model=wanted.model,
        artefact_name=main.name,
        artefact=wanted.file,
        version=version,
        metrics=wanted.metrics,
        breaking=wanted.is_breaking,
    )
    manifest = encode_manifest(publication, version, files, datetime.now(UTC))
    return [*documents, _hold(MANIFEST_NAME, manifest), _hold(SIGNATURE_NAME, wanted.sign.sign(manifest))]


def _hold(name: str, content: bytes) -> _Member:
    return _Member(name, len(content), lambda: iter([content]))


def _read_file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _count(chunks: Iterator[bytes], size: int, doing: Callable[[str], None]) -> Iterator[bytes]:
    """Pass the body on, never more than was announced, and show how much has been sent."""
    sent = 0
    for chunk in chunks:
        sent += len(chunk)
        if sent > size:
            raise PublishRefused("the file grew while it was sent; nothing was published")
        yield chunk
        doing(f"{sent / max(size, 1):.0%}" if sent < size else "the server's gates")
    if sent < size:
        raise PublishRefused("the file shrank while it was sent; nothing was published")


def _write_archive(members: list[_Member]) -> Iterator[bytes]:
    """Yield a tar archive of the files, piece by piece."""
    for one in members:
        entry = TarInfo(one.name)
        entry.size = one.size
        yield entry.tobuf(USTAR_FORMAT)
        yield from one.read()
        yield bytes(-one.size % BLOCK)
    yield bytes(2 * BLOCK)


def _count_archive(members: list[_Member]) -> int:
    return sum(BLOCK + one.size + -one.size % BLOCK for one in members) + 2 * BLOCK
