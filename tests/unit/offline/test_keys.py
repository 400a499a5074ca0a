"""Keys that sign: written for their owner alone, never over another, and refused clearly when they are none."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from serving.domain.provenance import InvalidSignature, parse_public_key
from serving.host.ed25519 import verify_signers
from serving.offline import keys
from serving.offline.keys import KeyRefused, create_key, load_key


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_pair_is_written_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        public = create_key(tmp_path / "key")
    finally:
        os.umask(before)
    assert (mode(tmp_path / "key"), mode(tmp_path / "key.pub")) == (0o600, 0o644)
    assert (tmp_path / "key").read_text().startswith("-----BEGIN PRIVATE KEY-----\n")
    assert parse_public_key((tmp_path / "key.pub").read_text().removesuffix("\n")) == public
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "key.pub"]


def test_the_file_is_private_from_its_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not written and then closed to others: it is created with the mode it keeps."""
    created = []
    real = os.open

    def watched(path: str, flags: int, mode: int = 0o777, **options: int) -> int:
        if flags & os.O_CREAT:
            created.append((Path(path).name, oct(mode), bool(flags & os.O_EXCL)))
        return real(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", watched)
    create_key(tmp_path / "key")
    assert created == [("key", "0o600", True), ("key.pub", "0o644", True)]


@pytest.mark.parametrize("taken", ["key", "key.pub"])
def test_no_key_is_ever_overwritten_and_no_half_is_left(taken: str, tmp_path: Path) -> None:
    (tmp_path / taken).write_text("precious")
    with pytest.raises(KeyRefused, match=f"{taken}' exists already, and keys are never overwritten; name another file"):
        create_key(tmp_path / "key")
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "precious"


def test_a_link_is_not_followed_to_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyRefused, match="exists already"):
        create_key(tmp_path / "key")
    assert not (tmp_path / "elsewhere").exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match=r"^'.*/gone/key' cannot be written: No such file or directory$"):
        create_key(tmp_path / "gone" / "key")


def test_what_is_signed_is_verified_and_nothing_else(tmp_path: Path) -> None:
    public = create_key(tmp_path / "key")
    key = load_key(tmp_path / "key")
    assert (key.public, key.exposure) == (public, None)
    raw = key.sign(b"manifest")
    assert raw.endswith(b"\n")
    assert verify_signers(raw, b"manifest") == (public,)
    with pytest.raises(InvalidSignature, match=r"is not over this manifest\.json"):
        verify_signers(raw, b"manifesto")


def test_two_keys_are_two_keys(tmp_path: Path) -> None:
    assert create_key(tmp_path / "a") != create_key(tmp_path / "b")


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660])
def test_a_key_others_can_read_is_used_and_told(bits: int, tmp_path: Path) -> None:
    create_key(tmp_path / "key")
    (tmp_path / "key").chmod(bits)
    exposure = load_key(tmp_path / "key").exposure
    assert exposure is not None
    assert f"can be read by others (mode {bits:04o})" in exposure
    assert "chmod 600" in exposure


def test_the_key_is_in_no_text_of_what_signs_with_it(tmp_path: Path) -> None:
    create_key(tmp_path / "key")
    secret = (tmp_path / "key").read_text().splitlines()[1]
    assert secret not in repr(load_key(tmp_path / "key"))


def pem(key: object, encryption: KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())  # type: ignore[attr-defined]


REFUSED = {
    "empty": (b"", "is not a private key in PEM; 'serving keygen FILE' makes one"),
    "no PEM": (b"\x00\xff" * 50, "is not a private key in PEM"),
    "broken PEM": (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is not a private key in PEM"),
    "a public key": (b"ed25519:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n", "is not a private key in PEM"),
    "another kind": (pem(generate_private_key(SECP256R1())), "holds a private key of another kind than Ed25519"),
    "encrypted": (pem(Ed25519PrivateKey.generate(), BestAvailableEncryption(b"x")), "is encrypted with a password"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_key_to_sign_with_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    raw, line = REFUSED[name]
    (tmp_path / "key").write_bytes(raw)
    with pytest.raises(KeyRefused) as caught:
        load_key(tmp_path / "key")
    assert str(caught.value).startswith(f"'{tmp_path}/key' {line}")
    assert "\n" not in str(caught.value)


def test_files_that_are_no_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(KeyRefused, match="is not a regular file"):
        load_key(tmp_path / "fifo")
    with pytest.raises(KeyRefused, match="cannot be read: No such file or directory"):
        load_key(tmp_path / "gone")


def test_only_the_suffix_tells_the_halves_apart(tmp_path: Path) -> None:
    create_key(tmp_path / "team.key")
    assert (tmp_path / f"team.key{keys.PUBLIC_SUFFIX}").exists()
