"""Public keys and manifest.sig as text: one spelling each, and everything else is refused with its reason."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.manifest import Manifest
from serving.domain.provenance import (
    InvalidSignature,
    ManifestSignature,
    Provenance,
    PublicKey,
    bytes_to_sign,
    find_rival,
    is_reissue,
    parse_public_key,
    parse_signatures,
    provenance_of,
)

KEY = PublicKey(bytes(range(32)))
LINE = ManifestSignature(KEY, bytes(64))


def test_a_key_and_its_line_are_the_same() -> None:
    assert str(KEY) == "ed25519:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    assert parse_public_key(str(KEY)) == KEY
    assert KEY.fingerprint == "ed25519:AAECAwQFBgcI..."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' does not begin with 'ed25519:'"),
        ("rsa:AAAA", "'rsa:AAAA' does not begin with 'ed25519:'"),
        (f"Ed25519:{b64encode(KEY.raw).decode()}", "does not begin with 'ed25519:'"),
        ("ed25519:AA*A", "'AA*A'... is not base64"),
        ("ed25519:größe", "is not base64"),
        ("ed25519:AAAA", "the public key has 3 bytes, not 32"),
        (f"ed25519:{b64encode(bytes(33)).decode()}", "the public key has 33 bytes, not 32"),
        (f"{KEY}\n", "is not base64"),
        (str(KEY).replace("Hh8=", "Hh9="), "is not the canonical base64 of its bytes"),
    ],
)
def test_what_is_no_key_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidSignature) as caught:
        parse_public_key(text)
    assert reason in str(caught.value)


def test_little_of_a_private_key_put_there_by_mistake_is_shown() -> None:
    with pytest.raises(InvalidSignature) as caught:
        parse_public_key("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHush")
    assert "Hush" not in str(caught.value)


def test_one_line_is_one_signature() -> None:
    other = ManifestSignature(PublicKey(bytes(32)), bytes(range(64)))
    assert parse_signatures(f"{LINE}\n{other}\n".encode()) == (LINE, other)
    assert parse_signatures(str(LINE).encode()) == (LINE,)
    assert len(parse_signatures(f"{LINE}\n".encode() * 16)) == 16


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "manifest.sig, line 1: '' should be 'ed25519:<public key> <signature>'"),
        (f"{LINE}\n\n".encode(), "manifest.sig, line 2: '' should be"),
        (f"{KEY}\n".encode(), "line 1: 'ed25519:AAECAwQFBgcICQoL' should be 'ed25519:<public key> <signature>'"),
        (f"{KEY} AAAA\n".encode(), "line 1: the signature has 3 bytes, not 64"),
        (f"{LINE}\r\n".encode(), "is not base64"),
        (f"{LINE} \n".encode(), "is not base64"),
        (f"{KEY}  {str(LINE).split()[1]}\n".encode(), "is not base64"),
        (f"{LINE}\n".encode() * 17, "manifest.sig has 17 lines, at most 16 are read"),
        (b"x" * 4097, "manifest.sig has 4097 bytes, at most 4096 are read"),
        (b"\xff\xfe", "should be 'ed25519:<public key> <signature>'"),
    ],
)
def test_what_is_no_signature_is_refused_with_its_line(raw: bytes, reason: str) -> None:
    with pytest.raises(InvalidSignature) as caught:
        parse_signatures(raw)
    assert reason in str(caught.value)


@given(st.binary(max_size=400))
def test_anything_else_is_refused_and_never_crashes(raw: bytes) -> None:
    try:
        found = parse_signatures(raw)
    except InvalidSignature:
        return
    assert "".join(f"{line}\n" for line in found).encode().removesuffix(b"\n") == raw.removesuffix(b"\n")


def test_what_is_signed_says_what_it_is() -> None:
    assert bytes_to_sign(b"{}") == b"serving manifest v1\n{}"


def manifest(created_at: str) -> Manifest:
    files = [{"name": "model.joblib", "sha256": "0" * 64, "size": 1}]
    return Manifest.model_validate({"model": "m", "version": "2", "created_at": created_at, "files": files})


@pytest.mark.parametrize("text", ["2026-11-20T08:00:00Z", "2026-11-20T09:00:00+01:00", "2026-11-20T08:00:00"])
def test_times_are_comparable_whatever_their_zone(text: str) -> None:
    made = provenance_of(manifest(text), KEY)
    assert made == Provenance(version="2", key=KEY.fingerprint, created_at=datetime(2026, 11, 20, 8, tzinfo=UTC))


@pytest.mark.parametrize("version", ["2", "v2", "3", "10"])
def test_what_is_newer_by_name_is_compared_with_what_was_signed_last(version: str) -> None:
    last = provenance_of(manifest("2026-11-20T08:00:00Z"), KEY)
    assert find_rival(last, version, [str(PublicKey(bytes(32))), str(KEY)]) == last
    assert find_rival(None, version, [str(KEY)]) is None


def test_a_way_back_and_a_key_nobody_trusts_any_more_hold_nothing_up() -> None:
    last = provenance_of(manifest("2099-11-20T08:00:00Z"), KEY)
    assert find_rival(last, "1", [str(KEY)]) is None
    assert find_rival(last, "3", [str(PublicKey(bytes(32)))]) is None
    assert find_rival(last, "3", []) is None


def test_a_reissue_was_made_before_what_it_would_take_over_from() -> None:
    older, newer = (provenance_of(manifest(f"2026-11-{day}T08:00:00Z"), KEY) for day in (20, 21))
    assert is_reissue(older, newer)
    assert not is_reissue(newer, older)
    assert not is_reissue(older, older), "the same version again, after a restart"
    assert not is_reissue(None, newer)
    assert not is_reissue(older, None)
