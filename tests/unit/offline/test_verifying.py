"""Verifying a version directory offline: who signed it, that nothing has changed, and that it is where it belongs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serving.domain.errors import NotPublished
from serving.domain.manifest import Golden
from serving.domain.provenance import PublicKey
from serving.domain.report import Verdict
from serving.offline.keys import SigningKey, create_key, load_key
from serving.offline.verifying import Verified, verify
from serving.settings import StoreSettings
from serving.store.publishing import Publication, publish

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
GOLDEN = Golden(instances=[[1.5]], expected={"predict": [2]})


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    path = tmp_path_factory.mktemp("keys") / "key"
    create_key(path)
    return load_key(path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def signed(store: Path, key: SigningKey) -> Path:
    return write(store, key)


def write(store: Path, key: SigningKey | None, version: str = "2", artefact: bytes = b"bytes of a model") -> Path:
    publication = Publication(
        model="iris",
        artefact_name="model.joblib",
        artefact=lambda file: file.write(artefact),
        version=version,
        golden=GOLDEN,
        sign=None if key is None else key.sign,
    )
    return publish(store, publication, NOW).path


def look(path: Path, *keys: PublicKey, store: Path | None = None) -> tuple[Verified, ...]:
    return verify(path, keys, StoreSettings(path=store or path.parent.parent))


def refusal(path: Path, *keys: PublicKey, store: Path | None = None) -> tuple[str, str]:
    *passed, last = look(path, *keys, store=store)
    assert {one.verdict for one in passed} <= {Verdict.PASSED}
    assert last.verdict is Verdict.REFUSED
    return last.check, last.evidence


def test_a_signed_version_is_verified(signed: Path, key: SigningKey) -> None:
    assert look(signed, key.public) == (
        Verified("manifest", Verdict.PASSED, "iris/2, made at 2026-11-20T08:00:00Z"),
        Verified("files", Verdict.PASSED, "2 as listed in manifest.json"),
        Verified("signature", Verdict.PASSED, f"by {key.public}"),
    )


def test_one_of_the_keys_is_enough_and_none_is_not(signed: Path, key: SigningKey) -> None:
    other = PublicKey(bytes(32))
    assert look(signed, other, key.public)[-1].verdict is Verdict.PASSED
    expected = f"signed by {key.public}, which is none of the trusted keys (--key, security.trusted_keys)"
    assert refusal(signed, other) == ("signature", expected)


@pytest.mark.parametrize("name", ["model.joblib", "golden.json", "manifest.json"])
def test_a_changed_byte_is_found_wherever_it_is(name: str, signed: Path, key: SigningKey) -> None:
    raw = bytearray((signed / name).read_bytes())
    place = raw.index(b"2026") + 3 if name == "manifest.json" else 5
    raw[place] ^= 1
    (signed / name).write_bytes(raw)
    check, evidence = refusal(signed, key.public)
    expected = ("signature", "is not over this") if name == "manifest.json" else ("files", f"'{name}' has sha256")
    assert (check, expected[1] in evidence) == (expected[0], True)


def test_a_changed_signature_is_found(signed: Path, key: SigningKey) -> None:
    path = signed / "manifest.sig"
    line = path.read_text()
    path.write_text(line[:-10] + ("A" if line[-10] != "A" else "B") + line[-9:])
    assert refusal(signed, key.public)[0] == "signature"


def test_an_extra_file_is_found_and_one_too_few(signed: Path, key: SigningKey) -> None:
    (signed / "notes.txt").write_text("hello")
    assert refusal(signed, key.public) == (
        "files",
        "'notes.txt' is not listed in manifest.json: remove it, or publish a new version with it",
    )
    (signed / "notes.txt").unlink()
    (signed / "golden.json").unlink()
    assert refusal(signed, key.public) == ("files", "manifest.json lists 'golden.json', which is not there")


def test_the_signature_of_another_version_is_not_its_own(signed: Path, store: Path, key: SigningKey) -> None:
    other = write(store, key, "3", b"another model")
    shutil.copy(signed / "manifest.sig", other)
    assert "is not over this manifest.json" in refusal(other, key.public)[1]


def test_an_unsigned_version_says_what_is_missing(store: Path, key: SigningKey, tmp_path: Path) -> None:
    path = write(store, None)
    assert refusal(path, key.public) == (
        "signature",
        "not signed: there is no manifest.sig; 'serving publish --sign KEYFILE' writes one",
    )
    (path / "manifest.json").unlink()
    assert refusal(path, key.public)[0] == "manifest"
    (tmp_path / "single.joblib").write_bytes(b"model")
    assert "there is no manifest.json" in refusal(tmp_path / "single.joblib", key.public)[1]


@pytest.mark.parametrize("place", ["iris/7", "wine/2"])
def test_a_copy_under_another_name_of_the_store_is_found(
    place: str, signed: Path, store: Path, key: SigningKey
) -> None:
    shutil.copytree(signed, store / place)
    check, evidence = refusal(store / place, key.public)
    assert (check, evidence) == (
        "manifest",
        f"manifest.json is for iris/2, this is {place}: publish it under its own name",
    )


def test_outside_of_a_store_it_has_the_names_in_its_manifest(signed: Path, key: SigningKey, tmp_path: Path) -> None:
    shutil.copytree(signed, tmp_path / "dist" / "build-4711")
    found = look(tmp_path / "dist" / "build-4711", key.public, store=tmp_path / "store")
    assert [one.verdict for one in found] == [Verdict.PASSED] * 3


def test_a_manifest_that_cannot_be_read_is_refused(signed: Path, key: SigningKey) -> None:
    (signed / "manifest.json").write_text(json.dumps({"model": "iris"}))
    check, evidence = refusal(signed, key.public)
    assert check == "manifest"
    assert "Field required" in evidence


def test_documents_of_absurd_size_are_not_read(signed: Path, key: SigningKey) -> None:
    (signed / "manifest.sig").write_bytes(b"x" * 5000)
    assert refusal(signed, key.public) == ("signature", "manifest.sig has 5000 bytes, at most 4096 are read")


def test_what_is_no_version_is_an_error(tmp_path: Path, key: SigningKey) -> None:
    with pytest.raises(NotPublished, match="cannot be read: No such file or directory"):
        look(tmp_path / "gone" / "1", key.public)


def test_nothing_is_loaded_and_nothing_of_machine_learning_imported() -> None:
    code = (
        "import sys, serving.offline.verifying;"
        "heavy = {'sklearn', 'scipy', 'joblib', 'skops', 'onnxruntime'};"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
