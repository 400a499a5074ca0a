"""Publishes versions: writes a hidden directory beside them, syncs it and renames it.

So a version is visible completely or not at all.
"""

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

from serving.data_model import JsonValue, ValidationError
from serving.domain.errors import PublishRefused
from serving.domain.manifest import GOLDEN_NAME, MANIFEST_NAME, Golden, Manifest, ManifestFile, parse_manifest
from serving.domain.provenance import SIGNATURE_NAME
from serving.domain.report import CandidateReport
from serving.domain.signature import Signature
from serving.domain.version import FULL_NAMES, SUFFIXES, digest_of
from serving.failpoints import reach
from serving.store.durable import CHUNK_BYTES, create_file, read_chunks, sha256_of, sync_directory
from serving.store.names import Names, format_in_version
from serving.store.numbering import choose_next_number, list_names, require_free_model, require_free_version

ASIDE = ".publishing-"
ABANDONED_SECONDS = 3600.0

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})
_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Publication:
    """A version to publish.

    `artefact` is a file to copy, or a function that writes the artefact into an open file. `version` None asks for the
    next number. `sign` returns the content of ``manifest.sig`` for the bytes of a manifest; None leaves the version
    unsigned. The manifest takes the other fields as they are.
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
    """Where the new version is (an absolute path), its name and its digest.

    `report` is what the gates found before the version was published; None when only the server's gates will decide.
    """

    path: Path
    version: str
    digest: str
    report: CandidateReport | None = field(
        default=None, repr=False
    )  # too long for a notebook, which shows the last value


def publish(root: Path, publication: Publication, now: datetime) -> Published:
    """Publish one version into the store at `root`, which is created when only the last directory is missing.

    Any thread or process; publishers that run at the same time never overwrite one another. Blocks on the disk. Raises
    PublishRefused, and what `artefact` and `sign` raise. After an error no part of the version is visible, and every
    directory that was made for it is removed.
    """
    model = publication.model
    root = Path(os.path.abspath(root))
    made: list[Path] = []
    hidden: Path | None = None
    try:
        _make_directory(root, made)
        require_free_model(str(root), model)
        require_artefact_name(publication.artefact_name)
        hidden = root / model / f"{ASIDE}{secrets.token_hex(8)}"
        _make_hidden_directory(hidden, made)
        _remove_abandoned(hidden.parent, now)
        return _publish_from(hidden, publication, now)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        reason = f"'{model}' cannot be published in '{root}': {error.strerror or error}{where}"
        raise PublishRefused(reason, "store") from error
    finally:
        if hidden is not None:
            shutil.rmtree(hidden, ignore_errors=True)
        for path in reversed(made):
            with contextlib.suppress(OSError):  # not empty: the version is there, or that of another publisher
                path.rmdir()


def _make_directory(path: Path, made: list[Path]) -> None:
    """Make a directory unless it exists, and add a new one to `made`."""
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        made.append(path)


def _make_hidden_directory(hidden: Path, made: list[Path]) -> None:
    """Make the hidden directory beside the versions. Tries again when a failing publisher removes its parent."""
    for attempt in range(_ATTEMPTS):
        try:
            _make_directory(hidden.parent.parent, made)
            _make_directory(hidden.parent, made)
            hidden.mkdir()
            break
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise
    for path in made:
        sync_directory(path.parent)


def _publish_from(hidden: Path, publication: Publication, now: datetime) -> Published:
    """Write the version into the directory `hidden`, then rename that directory."""
    directory = hidden.parent
    if publication.version is not None:
        require_free_version(publication.model, publication.version, list_names(str(directory)))
    hashes = {publication.artefact_name: _write_artefact(hidden / publication.artefact_name, publication.artefact)}
    if publication.golden is not None:
        hashes[GOLDEN_NAME] = create_file(hidden / GOLDEN_NAME, [encode_golden(publication.golden)])
    files = [ManifestFile(name=name, sha256=hashes[name], size=(hidden / name).stat().st_size) for name in hashes]

    def complete(version: str) -> str:
        manifest = encode_manifest(publication, version, files, now)
        hashes[MANIFEST_NAME] = replace_file(hidden / MANIFEST_NAME, manifest)
        if publication.sign is not None:
            hashes[SIGNATURE_NAME] = replace_file(hidden / SIGNATURE_NAME, publication.sign(manifest))
        return digest_of(hashes.items())

    return _rename_into_place(hidden, directory, publication.version, complete)


def publish_directory(
    root: Path, model: str, version: str | None, hidden: Path, complete: Callable[[str], str]
) -> Published:
    """Publish a version whose files lie in a hidden directory of the store at `root` already: rename that directory.

    `complete` is called with the name of the version, writes what depends on it and returns the digest; `version` None
    asks for the next number. Otherwise as `publish`: raises PublishRefused, OSError and what `complete` raises, and no
    part of the version is visible then.
    """
    made: list[Path] = []
    try:
        require_free_model(str(root), model)
        _make_directory(root / model, made)
        for path in made:
            sync_directory(path.parent)
        return _rename_into_place(hidden, root / model, version, complete)
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # not empty: the version is there
                path.rmdir()


def _rename_into_place(hidden: Path, directory: Path, wanted: str | None, complete: Callable[[str], str]) -> Published:
    """Make a version visible, under a name that nothing else has, as soon as `complete` has written the last of it."""
    model = directory.name
    for _ in range(_ATTEMPTS):
        existing = list_names(str(directory))
        version = wanted or choose_next_number(model, existing)
        require_free_version(model, version, existing)
        digest = complete(version)
        sync_directory(hidden)
        if _try_rename(hidden, directory / version):
            sync_directory(directory)
            return Published(directory / version, version, digest)
    raise PublishRefused(f"other publishers took every number for '{model}'; try again")


def _try_rename(hidden: Path, target: Path) -> bool:
    """Make the version visible; return False when another publisher has taken the name meanwhile."""
    reach("before-publication")
    try:
        os.rename(hidden, target)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def require_artefact_name(name: str) -> None:
    """Raise PublishRefused unless a file of a version directory with this name is an artefact."""
    if format_in_version(name) is None:
        known = f"end in one of {', '.join(SUFFIXES)}, or be {' or '.join(FULL_NAMES)}"
        raise PublishRefused(f"{name!r} is not an artefact: its name must {known}")
    if why_not_a_file_name(name):
        raise PublishRefused(f"{name!r} cannot be the name of an artefact; 'model{os.path.splitext(name)[1]}' can")


def why_not_a_file_name(name: str) -> str | None:
    """Say why a file of a version cannot be published under this name, None when it can."""
    if not _FILE_NAME.fullmatch(name):
        return "a name has ASCII letters, digits and . _ - only, 255 at most, and begins with a letter or digit"
    return None if Names().exists(name) else "a store takes a file of this name for one that is not complete"


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


def encode_manifest(publication: Publication, version: str, files: Sequence[ManifestFile], now: datetime) -> bytes:
    """Return the manifest of these files as bytes; raises PublishRefused for values it cannot hold."""
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
    raw = _encode_document(MANIFEST_NAME, _strip_defaults(manifest), indent=2)
    parse_manifest(raw)  # refuse a manifest that cannot be read back
    return raw


def _strip_defaults(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest without default values, which an older release would refuse as unknown fields."""
    document = manifest.model_dump(mode="json")
    if manifest.environment is None:
        del document["environment"]
    signature = document["signature"]
    if signature is not None:
        if not signature["is_typed"]:
            del signature["is_typed"]
        signature["features"] = [
            {key: value for key, value in feature.items() if key != "is_used" or not value}
            for feature in signature["features"]
        ]
    return document


def encode_golden(golden: Golden) -> bytes:
    """Return golden examples as bytes of JSON; raises PublishRefused for values that JSON cannot hold."""
    return _encode_document(GOLDEN_NAME, golden.model_dump(), indent=None)


def replace_file(path: Path, raw: bytes) -> str:
    """Write a file durably, replace that of an earlier attempt, and return the sha256 (hex)."""
    path.unlink(missing_ok=True)
    return create_file(path, [raw])


def _encode_document(name: str, content: dict[str, Any], indent: int | None) -> bytes:
    try:
        return f"{json.dumps(content, indent=indent, allow_nan=False, ensure_ascii=False)}\n".encode()
    except (TypeError, ValueError) as error:
        argument = "golden" if name == GOLDEN_NAME else "metrics"
        raise PublishRefused(f"{name} cannot be written as JSON: {error}", argument) from None


def _remove_abandoned(directory: Path, now: datetime) -> None:
    """Remove what dead publishers left: hidden directories in which nothing was written for an hour."""
    for name in os.listdir(directory):
        path = directory / name
        if name.startswith(ASIDE) and now.timestamp() - _find_newest_write(path) > ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _find_newest_write(path: Path) -> float:
    try:
        return max(entry.stat().st_mtime for entry in (path, *path.iterdir()))
    except OSError:
        return float("inf")
