"""Publishing: write aside in the same file system, fsync, rename. A version is there completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import JsonValue, ValidationError

from serving.domain.errors import PublishRefused
from serving.domain.manifest import GOLDEN_NAME, MANIFEST_NAME, Golden, Manifest, ManifestFile, parse_manifest
from serving.domain.provenance import SIGNATURE_NAME
from serving.domain.report import CandidateReport
from serving.domain.signature import Signature
from serving.domain.version import FULL_NAMES, SUFFIXES, digest_of
from serving.store.durable import CHUNK_BYTES, create_file, read_chunks, sha256_of, sync_directory
from serving.store.names import Names, format_in_version
from serving.store.numbering import check_model, check_version, existing_names, next_number

ASIDE = ".publishing-"
ABANDONED_SECONDS = 3600.0

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})
_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Publication:
    """What is to be published.

    `artefact` is a file to copy, or what writes the artefact into an open file. `version` None is the next number.
    `sign` returns the content of ``manifest.sig`` for the bytes of a manifest; None leaves the version unsigned. The
    other fields go to the manifest as they are.
    """

    model: str
    artefact_name: str
    artefact: Path | Callable[[BinaryIO], object]
    version: str | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)
    signature: Signature | None = None
    metrics: Mapping[str, JsonValue] = field(default_factory=dict)
    breaking: bool = False
    golden: Golden | None = None
    sign: Callable[[bytes], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """Where the new version is (an absolute path), and what it is.

    `report` is what the gates said before it was published; None where they were not asked, and a server's will decide.
    """

    path: Path
    version: str
    digest: str
    report: CandidateReport | None = field(default=None, repr=False)  # long, and the last line of a cell is shown


def publish(root: Path, publication: Publication, now: datetime) -> Published:
    """Publish one version into the store at `root`, which is created when only the last directory is missing.

    Any thread or process; publishers that run at the same time never overwrite one another. Blocks on the disk. Raises
    PublishRefused, and what `artefact` and `sign` raise. Whatever is raised, no part of the version is visible, and no
    directory that was made for it is left behind.
    """
    model = publication.model
    root = Path(os.path.abspath(root))
    made: list[Path] = []
    aside: Path | None = None
    try:
        _make_directory(root, made)
        check_model(str(root), model)
        _check_artefact_name(publication.artefact_name)
        aside = root / model / f"{ASIDE}{secrets.token_hex(8)}"
        _make_aside(aside, made)
        _remove_abandoned(aside.parent, now)
        return _publish_from(aside, publication, now)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        reason = f"'{model}' cannot be published in '{root}': {error.strerror or error}{where}"
        raise PublishRefused(reason, "store") from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        for path in reversed(made):
            with contextlib.suppress(OSError):  # not empty: the version is there, or that of another publisher
                path.rmdir()


def _make_directory(path: Path, made: list[Path]) -> None:
    """Make a directory where there is none, and note that in `made`."""
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        made.append(path)


def _make_aside(aside: Path, made: list[Path]) -> None:
    """Make a directory of one's own beside the versions; another publisher that fails may remove the one around it."""
    for attempt in range(_ATTEMPTS):
        try:
            _make_directory(aside.parent.parent, made)
            _make_directory(aside.parent, made)
            aside.mkdir()
            break
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise
    for path in made:
        sync_directory(path.parent)


def _publish_from(aside: Path, publication: Publication, now: datetime) -> Published:
    """Write the version into `aside`, then rename that."""
    directory = aside.parent
    if publication.version is not None:
        check_version(publication.model, publication.version, existing_names(str(directory)))
    hashes = {publication.artefact_name: _write_artefact(aside / publication.artefact_name, publication.artefact)}
    if publication.golden is not None:
        hashes[GOLDEN_NAME] = create_file(aside / GOLDEN_NAME, [golden_document(publication.golden)])
    files = [ManifestFile(name=name, sha256=hashes[name], size=(aside / name).stat().st_size) for name in hashes]
    for _ in range(_ATTEMPTS):
        existing = existing_names(str(directory))
        version = publication.version or next_number(publication.model, existing)
        check_version(publication.model, version, existing)
        manifest = manifest_document(publication, version, files, now)
        hashes[MANIFEST_NAME] = _replace(aside / MANIFEST_NAME, manifest)
        if publication.sign is not None:
            hashes[SIGNATURE_NAME] = _replace(aside / SIGNATURE_NAME, publication.sign(manifest))
        sync_directory(aside)
        if _rename(aside, directory / version):
            sync_directory(directory)
            return Published(directory / version, version, digest_of(hashes.items()))
    raise PublishRefused(f"other publishers took every number for '{publication.model}'; try again")


def _rename(aside: Path, target: Path) -> bool:
    """Make the version visible; False when somebody else has published the same name meanwhile."""
    try:
        os.rename(aside, target)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def _check_artefact_name(name: str) -> None:
    if format_in_version(name) is None:
        known = f"end in one of {', '.join(SUFFIXES)}, or be {' or '.join(FULL_NAMES)}"
        raise PublishRefused(f"{name!r} is not an artefact: its name must {known}")
    if not _FILE_NAME.fullmatch(name) or not Names().exists(name):
        raise PublishRefused(f"{name!r} cannot be the name of an artefact; 'model{os.path.splitext(name)[1]}' can")


def _write_artefact(path: Path, artefact: Path | Callable[[BinaryIO], object]) -> str:
    """Write the artefact, durably, and return its sha256 (hex)."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    if isinstance(artefact, Path):
        with open(artefact, "rb", opener=_open_without_waiting) as source:
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                raise PublishRefused(f"'{artefact}' is not a regular file")
            return create_file(path, read_chunks(source.fileno(), buffer))
    with open(path, "x+b") as file:
        artefact(file)
        file.flush()
        os.fsync(file.fileno())
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        return sha256_of(read_chunks(file.fileno(), buffer))


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would wait for its writer


def manifest_document(publication: Publication, version: str, files: Sequence[ManifestFile], now: datetime) -> bytes:
    """Return the bytes of the manifest of these files; raises PublishRefused for what it cannot hold."""
    try:
        manifest = Manifest(
            model=publication.model,
            version=version,
            created_at=now.astimezone(UTC),
            files=tuple(sorted(files, key=lambda file: file.name)),
            libraries=dict(sorted(publication.libraries.items())),
            signature=publication.signature,
            breaking=publication.breaking,
            metrics=dict(sorted(publication.metrics.items())),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PublishRefused(f"{MANIFEST_NAME} cannot hold {where}: {first['msg']}", str(first["loc"][0])) from None
    raw = _document(MANIFEST_NAME, _plain(manifest), indent=2)
    parse_manifest(raw)  # what cannot be read back must not be published
    return raw


def _plain(manifest: Manifest) -> dict[str, Any]:
    """Return what is written: without what says nothing, and what a release from before it would refuse."""
    document = manifest.model_dump(mode="json")
    signature = document["signature"]
    if signature is not None:
        if not signature["is_typed"]:
            del signature["is_typed"]
        signature["features"] = [
            {key: value for key, value in feature.items() if key != "is_used" or not value}
            for feature in signature["features"]
        ]
    return document


def golden_document(golden: Golden) -> bytes:
    """Return the bytes of the file of golden examples; raises PublishRefused for what is no JSON."""
    return _document(GOLDEN_NAME, golden.model_dump(), indent=None)


def _replace(path: Path, raw: bytes) -> str:
    """Write a file, durably, in place of an earlier attempt's, and return its sha256 (hex)."""
    path.unlink(missing_ok=True)
    return create_file(path, [raw])


def _document(name: str, content: dict[str, Any], indent: int | None) -> bytes:
    try:
        return f"{json.dumps(content, indent=indent, allow_nan=False, ensure_ascii=False)}\n".encode()
    except (TypeError, ValueError) as error:
        argument = "golden" if name == GOLDEN_NAME else "metrics"
        raise PublishRefused(f"{name} cannot be written as JSON: {error}", argument) from None


def _remove_abandoned(directory: Path, now: datetime) -> None:
    """Remove what dead publishers left: directories aside in which nothing has been written for an hour."""
    for name in os.listdir(directory):
        path = directory / name
        if name.startswith(ASIDE) and now.timestamp() - _newest_write(path) > ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _newest_write(path: Path) -> float:
    try:
        return max(entry.stat().st_mtime for entry in (path, *path.iterdir()))
    except OSError:
        return float("inf")
