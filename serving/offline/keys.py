"""Makes pairs of keys, and signs manifests with the private key."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serving.domain.errors import ServingError
from serving.domain.provenance import ManifestSignature, PublicKey, bytes_to_sign
from serving.store.durable import create_file, sync_directory

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_SUFFIX = ".pub"
_MAX_BYTES = 16 << 10


class KeyRefused(ServingError):
    """A file that holds no key to sign with, or cannot take a new key."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, ready to sign. `sign` returns the content of ``manifest.sig`` for the bytes of a manifest.

    `exposure` warns that others can read its file; None when only the owner can. No text of this object shows the key.
    """

    public: PublicKey
    sign: Callable[[bytes], bytes]
    exposure: str | None = None


def create_key(path: Path) -> PublicKey:
    """Write a new private key to `path`, readable by its owner only, and its public half to ``<path>.pub``.

    Never overwrites a file. When one of the two cannot be written, the other is removed. Blocks on the disk; raises
    KeyRefused.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  (50 ms)
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    private = Ed25519PrivateKey.generate()
    public = PublicKey(private.public_key().public_bytes_raw())
    beside = path.with_name(path.name + PUBLIC_SUFFIX)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _create_file(path, pem, 0o600)
    try:
        _create_file(beside, f"{public}\n".encode(), 0o644)
    except KeyRefused:
        path.unlink()
        raise
    with suppress(OSError):  # the files exist; some file systems cannot promise more
        sync_directory(path.parent)
    return public


def load_key(path: Path) -> SigningKey:
    """Read a private key that `create_key` wrote, or any other Ed25519 key in PEM. Blocks; raises KeyRefused."""
    raw, mode = _read_key_file(path)
    private = _parse_private_key(raw, path)
    public = PublicKey(private.public_key().public_bytes_raw())

    def sign(manifest: bytes) -> bytes:
        return f"{ManifestSignature(public, private.sign(bytes_to_sign(manifest)))}\n".encode()

    exposure = None
    if mode & 0o077:
        exposure = f"'{path}' can be read by others (mode {mode:04o}), who could sign in your name; chmod 600 it"
    return SigningKey(public, sign, exposure)


def _create_file(path: Path, raw: bytes, mode: int) -> None:
    try:
        create_file(path, [raw], mode)
    except FileExistsError:
        raise KeyRefused(f"'{path}' exists already, and keys are never overwritten; name another file") from None
    except OSError as error:
        raise KeyRefused(f"'{path}' cannot be written: {error.strerror}") from None


def _read_key_file(path: Path) -> tuple[bytes, int]:
    """Return the content of the file and its permission bits."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for its writer
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise KeyRefused(f"'{path}' is not a regular file; name the one that 'serving keygen' wrote")
            return file.read(_MAX_BYTES), stat.S_IMODE(found.st_mode)
    except OSError as error:
        raise KeyRefused(f"the key '{path}' cannot be read: {error.strerror}") from None


def _parse_private_key(raw: bytes, path: Path) -> Ed25519PrivateKey:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  (see above)
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415
    except ImportError:  # where a model was trained, it may be missing
        raise KeyRefused(f"'{path}' can be read only with the package cryptography: pip install cryptography") from None

    advice = "'serving keygen FILE' makes one"
    try:
        key = load_pem_private_key(raw, None)
    except TypeError:
        raise KeyRefused(f"'{path}' is encrypted with a password; decrypt it for the time of signing") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyRefused(f"'{path}' is not a private key in PEM; {advice}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyRefused(f"'{path}' holds a private key of another kind than Ed25519; {advice}")
    return key
