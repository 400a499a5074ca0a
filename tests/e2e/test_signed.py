"""A server that takes signed versions only, and what somebody who can write to its store tries to make it take."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import joblib
import pytest

from serving.offline.keys import SigningKey, create_key, load_key
from serving.store.publishing import Publication, publish
from tests.e2e.harness import Server, constant, serving, until

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)


def settings(key: SigningKey) -> dict[str, str]:
    return {
        "SERVING_SECURITY__TRUST": "signed",
        "SERVING_SECURITY__TRUSTED_KEYS": str(key.public),
        "SERVING_SECURITY__PICKLE_TRUSTED": "",  # a signature stands for the class, too
    }


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Iterator[Server]:
    """Serves signed versions only: m/1, made on 2026-11-20, and what the tests bring."""
    directory = tmp_path_factory.mktemp("guarded")
    put(directory / "store", "1", key)
    with serving(directory, wait_ready=True, **settings(key)) as server:
        yield server


def put(store: Path, version: str, key: SigningKey | None, model: str = "m", value: float = 1, hours: int = 0) -> Path:
    """Publish a version, made so many hours after m/1 by its manifest."""
    publication = Publication(
        model=model,
        artefact_name="model.joblib",
        artefact=lambda file: joblib.dump(constant(value), file),
        version=version,
        sign=None if key is None else key.sign,
    )
    return publish(store, publication, NOW + timedelta(hours=hours)).path


def refused(server: Server, version: str, gate: str, evidence: str, model: str = "m") -> None:
    """Wait for the refusal, and make sure that the good version still answers."""
    last = server.wait_state(model, version, "REJECTED")["gates"][-1]
    assert (last["gate"], last["verdict"]) == (gate, "refused")
    assert evidence in last["evidence"]
    assert server.active("m") == "1"
    assert server.predict("m").json()["predictions"] == [1.0]


def test_a_signed_version_goes_live_and_says_who_signed_it(guarded: Server, key: SigningKey) -> None:
    gates = {one["gate"]: one for one in guarded.version("m", 1)["gates"]}
    assert gates["provenance"]["verdict"] == "passed"
    assert gates["provenance"]["evidence"].startswith(
        f"signed by {key.public.fingerprint}, a trusted key; made at 2026"
    )


def test_the_server_itself_knows_no_cryptography(guarded: Server) -> None:
    assert guarded.process is not None
    (host,) = until(lambda: len(found := guarded.hosts()) == 1 and found, "the end of what checked beside its host")
    ours, theirs = (Path(f"/proc/{pid}/maps").read_text() for pid in (guarded.process.pid, host.pid))
    assert "/cryptography/" not in ours
    assert "/cryptography/" in theirs


def test_what_nobody_signed_is_refused(guarded: Server, tmp_path: Path) -> None:
    guarded.drop("m", 10, constant(10))
    refused(guarded, "10", "provenance", "not signed (no manifest.json)")
    put(guarded.store, "11", None)
    refused(guarded, "11", "provenance", "not signed (no manifest.sig)")
    create_key(tmp_path / "foreign")
    put(guarded.store, "12", load_key(tmp_path / "foreign"))
    refused(guarded, "12", "provenance", "which is not in security.trusted_keys")


def aside(guarded: Server, key: SigningKey, version: str) -> Path:
    """Publish a good signed version where the server does not look, for the test to spoil."""
    return put(guarded.directory / f"aside-{version}", version, key, value=2)


def take(guarded: Server, path: Path, version: str, model: str = "m") -> None:
    """Put a version into the store in one step."""
    (guarded.store / model).mkdir(exist_ok=True)
    path.rename(guarded.store / model / version)


def spoil_nothing(path: Path) -> None:
    """A whole, signed version, as it is."""


def spoil_artefact(path: Path) -> None:
    with (path / "model.joblib").open("r+b") as file:
        file.seek(20)
        file.write(b"!")


def spoil_manifest(path: Path) -> None:
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"breaking": false', '"breaking": true'))


def strip(path: Path) -> None:
    (path / "manifest.sig").unlink()


def add_a_file(path: Path) -> None:
    (path / "golden.json").write_text('{"instances": [[0, 0]], "expected": {"predict": [2]}}')


def paste_the_signature_of_another(path: Path) -> None:
    shutil.copy(path.parents[2] / "store" / "m" / "1" / "manifest.sig", path / "manifest.sig")


ATTACKS: dict[str, tuple[Any, str, str, str, str]] = {
    "copied to another version": (spoil_nothing, "m", "21", "integrity", "manifest.json is for m/20, this is m/21"),
    "copied to another model": (spoil_nothing, "n", "22", "integrity", "manifest.json is for m/22, this is n/22"),
    "a changed byte of the model": (spoil_artefact, "m", "23", "integrity", "'model.joblib' has sha256"),
    "a changed byte of the manifest": (spoil_manifest, "m", "24", "provenance", "is not over this manifest.json"),
    "the signature taken away": (strip, "m", "25", "provenance", "not signed (no manifest.sig)"),
    "a file added": (add_a_file, "m", "26", "integrity", "'golden.json' is not listed"),
    "another version's signature": (paste_the_signature_of_another, "m", "27", "provenance", "is not over this"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_signed_version_that_was_tampered_with_is_refused(guarded: Server, key: SigningKey, name: str) -> None:
    spoil, model, version, gate, evidence = ATTACKS[name]
    path = aside(guarded, key, "20" if version == "21" else version)
    spoil(path)
    # changed bytes are noticed by the staging first, which waits for a copy to become whole; quiet files are judged
    take(guarded, path, version, model)
    refused(guarded, version, gate, evidence, model)


def test_neither_a_reissue_nor_a_copy_gets_in_by_a_restart(guarded: Server, key: SigningKey, tmp_path: Path) -> None:
    """The newest by name is tried first when nothing is active yet: what was signed for it must be remembered."""
    put(guarded.store, "1", key, "r", value=1, hours=1)
    guarded.wait_active("r", 1)
    put(guarded.store, "2", key, "r", value=2, hours=2)
    guarded.wait_active("r", 2)
    put(guarded.store, "30", key, "r", value=30, hours=0)
    last = guarded.wait_state("r", 30, "REJECTED")["gates"][-1]
    assert (last["gate"], "a reissue" in last["evidence"]) == ("provenance", True)
    take(guarded, shutil.copytree(guarded.store / "r" / "2", tmp_path / "copy"), "40", "r")
    assert guarded.wait_state("r", 40, "REJECTED")["gates"][-1]["gate"] == "integrity"
    guarded.stop()
    guarded.start(wait_ready=True)
    guarded.wait_active("r", 2)
    assert guarded.predict("r").json()["predictions"] == [2.0]
    for version in (30, 40):
        assert guarded.wait_state("r", version, "REJECTED")
    path = put(tmp_path / "aside", "50", key, "r", value=50, hours=3)
    late = (path / "manifest.sig").rename(tmp_path / "late")
    path.rename(guarded.store / "r" / "50")
    assert guarded.wait_state("r", 50, "REJECTED")["gates"][-1]["gate"] == "provenance"
    late.rename(guarded.store / "r" / "50" / "manifest.sig")
    guarded.wait_active("r", 50)
    assert guarded.operate("POST", "/models/r/pin", {"version": "1"}).is_success
    guarded.wait_active("r", 1)  # an operator's way back, to what was made before, is no reissue
