"""The provenance gate: who signed the version, and the verdict under each setting of trust."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from serving.domain.provenance import ManifestSignature, Provenance, PublicKey, bytes_to_sign
from serving.domain.report import Verdict
from tests.unit.host.candidates import Candidate, MakeCandidate

OURS, THEIRS = (Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in (1, 2))
TRUSTS = ["known", "signed", "any"]


def public_key_of(key: Ed25519PrivateKey) -> PublicKey:
    return PublicKey(key.public_key().public_bytes_raw())


TRUSTED = (str(public_key_of(OURS)),)


@pytest.fixture
def made(candidate: MakeCandidate, yes_or_no: Any) -> Candidate:
    return candidate(yes_or_no)


def make_signature(made: Candidate, *keys: Ed25519PrivateKey) -> bytes:
    raw = Path(made.files["manifest.json"].path).read_bytes()
    return "".join(f"{ManifestSignature(public_key_of(key), key.sign(bytes_to_sign(raw)))}\n" for key in keys).encode()


def sign(made: Candidate, *keys: Ed25519PrivateKey, **fields: Any) -> None:
    made.files.pop("manifest.sig", None)
    made.files.pop("manifest.json", None)
    made.write_manifest(**fields)
    made.write("manifest.sig", make_signature(made, *keys))


def result(made: Candidate, trust: str = "known", **options: Any) -> tuple[Verdict, str]:
    found = made.evaluate(**{"trusted_keys": TRUSTED, "trust": trust} | options)["provenance"]
    return found.verdict, found.evidence


def refusal(made: Candidate, trust: str = "known", **options: Any) -> str:
    verdict, evidence = result(made, trust, **options)
    assert verdict is Verdict.REFUSED
    assert "\n" not in evidence
    return evidence


@pytest.mark.parametrize("trust", TRUSTS)
def test_a_version_signed_by_a_trusted_key_passes(made: Candidate, trust: str) -> None:
    sign(made, OURS)
    outcome = made.evaluate(trusted_keys=TRUSTED, trust=trust)
    assert outcome["provenance"].verdict is Verdict.PASSED
    fingerprint = public_key_of(OURS).fingerprint
    assert outcome["provenance"].evidence == f"signed by {fingerprint}, a trusted key; made at 2026-11-20T08:00:00Z"
    creation_time_of = datetime(2026, 11, 20, 8, tzinfo=UTC)
    assert outcome.report.provenance == Provenance(version="1", key=fingerprint, created_at=creation_time_of)
    assert outcome.report.is_ready


def test_one_trusted_key_among_others_is_enough(made: Candidate) -> None:
    sign(made, THEIRS, OURS)
    assert result(made, "signed")[0] is Verdict.PASSED


@pytest.mark.parametrize("trust", ["known", "any"])
def test_an_unsigned_version_is_skipped_where_signatures_are_not_required(made: Candidate, trust: str) -> None:
    assert result(made, trust) == (Verdict.SKIPPED, "not signed")
    made.write_manifest()
    outcome = made.evaluate(trusted_keys=TRUSTED, trust=trust)
    assert outcome["provenance"].verdict is Verdict.SKIPPED
    assert outcome.report.provenance is None


@pytest.mark.parametrize("trust", ["known", "any"])
def test_an_unlisted_key_is_a_warning_where_signatures_are_not_required(made: Candidate, trust: str) -> None:
    sign(made, THEIRS)
    expected = f"signed by {public_key_of(THEIRS).fingerprint}, which is not in security.trusted_keys"
    assert result(made, trust) == (Verdict.WARNED, expected)
    assert made.evaluate(trusted_keys=TRUSTED, trust=trust).report.provenance is None


def test_where_signatures_are_required_each_refusal_has_its_reason(made: Candidate) -> None:
    assert refusal(made, "signed").startswith('not signed (no manifest.json), and security.trust is "signed": publish')
    made.write_manifest()
    stripped = refusal(made, "signed")
    assert stripped.startswith('not signed (no manifest.sig), and security.trust is "signed": publish')
    assert "'serving publish --sign KEYFILE'" in stripped
    assert "security.trusted_keys" in stripped
    sign(made, THEIRS)
    foreign = refusal(made, "signed")
    assert foreign.startswith(
        f"signed by {public_key_of(THEIRS).fingerprint}, which is not in security.trusted_keys: add"
    )
    sign(made, OURS)
    assert refusal(made, "signed", trusted_keys=()).startswith(
        f"signed by {public_key_of(OURS).fingerprint}, which is not"
    )


def test_a_refused_version_is_never_loaded(made: Candidate) -> None:
    assert made.evaluate(trust="signed").report.gates[-1].gate == "provenance"


@pytest.mark.parametrize("trust", TRUSTS)
def test_a_signature_over_another_manifest_is_refused_under_every_trust(made: Candidate, trust: str) -> None:
    """One byte of the manifest was changed; a changed file changes the manifest too, by its sha256."""
    sign(made, OURS)
    pasted = Path(made.files["manifest.sig"].path).read_bytes()
    made.write("manifest.json", Path(made.files["manifest.json"].path).read_bytes().replace(b"08:00:00", b"09:00:00"))
    assert refusal(made, trust) == (
        f"manifest.sig: the signature by {public_key_of(OURS).fingerprint} is not over this manifest.json, "
        "which was changed or belongs to another version; publish it anew with 'serving publish --sign'"
    )
    made.files.pop("manifest.sig")
    sign(made, OURS, metrics={"other": 1})
    made.write("manifest.sig", pasted)
    assert "belongs to another version" in refusal(made, trust)


@pytest.mark.parametrize("trust", TRUSTS)
def test_one_invalid_signature_refuses_the_version(made: Candidate, trust: str) -> None:
    sign(made, OURS)
    broken = f"{ManifestSignature(public_key_of(THEIRS), bytes(64))}\n".encode()
    made.write("manifest.sig", make_signature(made, OURS) + broken)
    assert f"the signature by {public_key_of(THEIRS).fingerprint} is not over" in refusal(made, trust)


def test_a_key_cannot_claim_the_signature_of_another(made: Candidate) -> None:
    sign(made, THEIRS)
    claimed = make_signature(made, THEIRS).replace(
        str(public_key_of(THEIRS)).encode(), str(public_key_of(OURS)).encode()
    )
    made.write("manifest.sig", claimed)
    assert "is not over this manifest.json" in refusal(made, "signed")


def test_a_signature_over_the_plain_manifest_bytes_does_not_count(made: Candidate) -> None:
    """A signature that the same key has made for another purpose does not count."""
    sign(made, OURS)
    raw = Path(made.files["manifest.json"].path).read_bytes()
    made.write("manifest.sig", f"{ManifestSignature(public_key_of(OURS), OURS.sign(raw))}\n".encode())
    assert "is not over this manifest.json" in refusal(made)


@pytest.mark.parametrize("trust", TRUSTS)
def test_a_file_of_signatures_that_cannot_be_read_is_refused(made: Candidate, trust: str) -> None:
    made.write_manifest()
    made.write("manifest.sig", b"hello\n")
    assert refusal(made, trust).startswith("manifest.sig, line 1: 'hello' should be 'ed25519:<public key> <signature>'")
    made.write("manifest.sig", b"x" * 5000)
    assert refusal(made, trust) == "manifest.sig has 5000 bytes, at most 4096 are read"


def test_a_key_that_is_not_a_curve_point_is_refused(made: Candidate) -> None:
    sign(made, OURS)
    nowhere = PublicKey(bytes([255] * 32))
    made.write("manifest.sig", f"{ManifestSignature(nowhere, bytes(64))}\n".encode())
    assert "is not over this manifest.json" in refusal(made)


def test_signatures_without_a_manifest_are_refused(made: Candidate) -> None:
    sign(made, OURS)
    del made.files["manifest.json"]
    assert refusal(made, quiet_seconds=1.0).startswith("manifest.sig is there and the manifest.json it signs is not")


@pytest.mark.parametrize("trust", TRUSTS)
def test_a_version_that_will_be_signed_passes_for_its_publisher(made: Candidate, trust: str) -> None:
    verdict, evidence = result(made, trust, publisher_key=str(public_key_of(OURS)))
    assert (verdict, evidence) == (Verdict.PASSED, f"about to be signed by {public_key_of(OURS).fingerprint}")


def test_a_publisher_is_warned_if_the_server_does_not_trust_the_key(made: Candidate) -> None:
    verdict, evidence = result(made, "signed", publisher_key=str(public_key_of(THEIRS)))
    assert verdict is Verdict.WARNED
    assert evidence.endswith(f"by {public_key_of(THEIRS).fingerprint}, which is not in security.trusted_keys")


# --- reissues ---------------------------------------------------------------------------------------------------------


def make_active_provenance(day: int) -> Provenance:
    return Provenance(version="0", key="ed25519:abc...", created_at=datetime(2026, 11, day, 8, tzinfo=UTC))


@pytest.mark.parametrize("trust", TRUSTS)
def test_an_older_signed_version_does_not_replace_a_newer_one(made: Candidate, trust: str) -> None:
    sign(made, OURS)
    assert refusal(made, trust, active_provenance=make_active_provenance(21)) == (
        "a reissue: made at 2026-11-20T08:00:00Z, it would take over from version 0, made at 2026-11-21T08:00:00Z; "
        "publish it anew"
    )
    reissued = made.evaluate(trust=trust, trusted_keys=TRUSTED, active_provenance=make_active_provenance(21)).report
    assert reissued.provenance is not None, "a reissue has a provenance, by which other refusals differ from it"


@pytest.mark.parametrize("day", [19, 20])
def test_a_version_made_later_or_at_the_same_time_replaces_the_active_one(made: Candidate, day: int) -> None:
    sign(made, OURS)
    assert result(made, "signed", active_provenance=make_active_provenance(day))[0] is Verdict.PASSED


def test_a_version_without_a_trusted_signature_is_no_replay(made: Candidate) -> None:
    """Where unsigned versions are accepted, their order is not protected."""
    assert result(made, active_provenance=make_active_provenance(21)) == (Verdict.SKIPPED, "not signed")
    sign(made, THEIRS)
    assert result(made, active_provenance=make_active_provenance(21))[0] is Verdict.WARNED


def test_a_copy_under_another_name_is_refused_before_this_gate(made: Candidate) -> None:
    sign(made, OURS)
    refused = made.evaluate(trusted_keys=TRUSTED, trust="signed", version="7").report.refusal
    assert refused is not None
    assert (refused.gate, refused.evidence[:39]) == ("integrity", "manifest.json is for m/1, this is m/7: ")


def test_a_manifest_with_other_bytes_is_another_manifest(made: Candidate) -> None:
    """The exact bytes count: a signature does not cover the same document with another spelling."""
    sign(made, OURS)
    document = json.loads(Path(made.files["manifest.json"].path).read_bytes())
    made.write("manifest.json", json.dumps(document, indent=1).encode())
    assert "is not over this manifest.json" in refusal(made)
