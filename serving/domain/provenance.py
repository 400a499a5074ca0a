"""Reads who signed a version: public keys and the lines of ``manifest.sig``. Text and bytes, no cryptography.

``manifest.sig`` lies beside ``manifest.json``; each line is ``ed25519:<public key> <signature>``, both in base64. A
signature covers `bytes_to_sign`. ``docs/store.md`` describes the format for people.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from serving.data_model import BaseModel, ConfigDict
from serving.domain.errors import ServingError
from serving.domain.manifest import Manifest
from serving.domain.version import order_key

SIGNATURE_NAME = "manifest.sig"
MAX_SIGNATURE_BYTES = 4096
MAX_SIGNATURES = 16

_ALGORITHM = "ed25519:"
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64
_SHOWN = 12
_PREFIX = b"serving manifest v1\n"  # separates these signatures from others that the same key makes elsewhere


class InvalidSignature(ServingError):
    """A public key or a ``manifest.sig`` that does not follow its format, or a signature that does not verify."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key: 32 bytes. ``str(key)`` is its line for settings and signatures."""

    raw: bytes

    @property
    def fingerprint(self) -> str:
        """The beginning of its line: for people to tell keys apart, never to recognise a key."""
        return f"{str(self)[: len(_ALGORITHM) + _SHOWN]}..."

    def __str__(self) -> str:
        """The key as ``ed25519:<base64>``."""
        return _ALGORITHM + b64encode(self.raw).decode()


@dataclass(frozen=True, slots=True)
class ManifestSignature:
    """One line of ``manifest.sig``: 64 bytes that `key` is said to have made, not verified yet."""

    key: PublicKey
    value: bytes

    def __str__(self) -> str:
        """The line, without its end."""
        return f"{self.key} {b64encode(self.value).decode()}"


class Provenance(BaseModel):
    """Where a version comes from: its name, the fingerprint of the trusted key that signed it, and when it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    key: str
    created_at: datetime


def bytes_to_sign(manifest: bytes) -> bytes:
    """Return the bytes to sign for the exact bytes of a ``manifest.json``."""
    return _PREFIX + manifest


def parse_public_key(text: str) -> PublicKey:
    """Read ``ed25519:<base64>``; raises InvalidSignature, which says what is wrong with it."""
    if not text.startswith(_ALGORITHM):
        raise InvalidSignature(f"{text[:24]!r} does not begin with {_ALGORITHM!r}")
    return PublicKey(_decode_base64(text.removeprefix(_ALGORITHM), _KEY_BYTES, "public key"))


def parse_signatures(raw: bytes) -> tuple[ManifestSignature, ...]:
    """Read a ``manifest.sig``; raises InvalidSignature with the line that is wrong. Nothing is verified."""
    if len(raw) > MAX_SIGNATURE_BYTES:
        raise InvalidSignature(f"{SIGNATURE_NAME} has {len(raw)} bytes, at most {MAX_SIGNATURE_BYTES} are read")
    lines = raw.decode("ascii", "replace").removesuffix("\n").split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise InvalidSignature(f"{SIGNATURE_NAME} has {len(lines)} lines, at most {MAX_SIGNATURES} are read")
    return tuple(_parse_line(number, line) for number, line in enumerate(lines, 1))


def provenance_of(manifest: Manifest, key: PublicKey) -> Provenance:
    """Return the provenance of a version that `key` has signed."""
    return Provenance(version=manifest.version, key=key.fingerprint, created_at=creation_time_of(manifest))


def creation_time_of(manifest: Manifest) -> datetime:
    """Return when the manifest says that the version was made, in UTC; a time without a zone counts as UTC."""
    made = manifest.created_at
    return made.replace(tzinfo=UTC) if made.tzinfo is None else made.astimezone(UTC)


def find_rival(last: Provenance | None, version: str, trusted_keys: Iterable[str]) -> Provenance | None:
    """Return the provenance that a candidate called `version` must not be older than, None when there is none.

    `last` is the provenance of the active version, or of the one before a restart. A version with an older name is an
    operator's way back, so it has no rival; nor does a key that is no longer trusted keep a candidate out.
    """
    if last is None or order_key(version) < order_key(last.version):
        return None
    return last if any(parse_public_key(text).fingerprint == last.key for text in trusted_keys) else None


def is_reissue(candidate: Provenance | None, active: Provenance | None) -> bool:
    """Say whether a signed candidate was made before the signed version that it would replace."""
    return candidate is not None and active is not None and candidate.created_at < active.created_at


def _parse_line(number: int, line: str) -> ManifestSignature:
    key, is_given, value = line.partition(" ")
    try:
        if not is_given:
            raise InvalidSignature(f"{line[:24]!r} should be '{_ALGORITHM}<public key> <signature>'")
        return ManifestSignature(parse_public_key(key), _decode_base64(value, _SIGNATURE_BYTES, "signature"))
    except InvalidSignature as error:
        raise InvalidSignature(f"{SIGNATURE_NAME}, line {number}: {error}") from None


def _decode_base64(text: str, size: int, what: str) -> bytes:
    """Decode base64, in its canonical spelling only; raises InvalidSignature."""
    try:
        raw = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidSignature(f"{text[:24]!r}... is not base64") from None
    if len(raw) != size:
        raise InvalidSignature(f"the {what} has {len(raw)} bytes, not {size}")
    if b64encode(raw).decode() != text:
        raise InvalidSignature(f"{text[:24]!r}... is not the canonical base64 of its bytes")
    return raw
