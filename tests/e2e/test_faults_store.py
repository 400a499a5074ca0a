"""What may happen to a store, under traffic: hostile files, odd names, thousands at once, and files that go away."""

from __future__ import annotations

import concurrent.futures
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Server, constant, serving, until, write_version
from tests.e2e.hostile import HOSTILE
from tests.e2e.record import Record, Usage
from tests.e2e.traffic import Traffic


@pytest.fixture(scope="module")
def beset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("beset")
    write_version(directory / "store" / "m", 1, constant(1))
    with serving(directory, wait_ready=True, SERVING_STORE__POLL_SECONDS="0.2") as server:
        yield server


@pytest.fixture
def record(beset: Server) -> Iterator[Record]:
    """Traffic while the test runs; no request fails, whatever comes into the store."""
    with Traffic(beset.url, "m", rate=100) as traffic:
        until(lambda: traffic.record.counts[200] > 10, "traffic")
        yield traffic.record
        seen = traffic.record.counts[200]
        until(lambda: traffic.record.counts[200] > seen + 10, "traffic going on")
    traffic.record.verify()
    assert beset.client.get(beset.url + "/health/ready").status_code == 200


def _next(server: Server) -> int:
    return max((int(one["version"]) for one in server.model("m")["versions"]), default=0) + 1


# --- hostile files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_its_reason(beset: Server, record: Record, tmp_path: Path, name: str) -> None:
    """No side effect, and the server's memory is as it was."""
    make, gate, evidence = HOSTILE[name]
    sentinel = tmp_path / "sentinel"
    version = _next(beset)
    baseline = Usage.of(beset)
    aside = beset.store / "m" / f".{version}.aside"
    aside.write_bytes(make(sentinel))
    aside.rename(beset.store / "m" / f"{version}.joblib")
    refused = beset.wait_state("m", version, "REJECTED")
    assert beset.model("m")["last_failure"]["gate"] == gate
    assert evidence in refused["reason"]
    assert "Traceback" not in refused["reason"]
    assert not sentinel.exists()
    until(lambda: Usage.of(beset).is_back_at(baseline), f"resources back at {baseline}, now {Usage.of(beset)}")


def test_a_flipped_bit_under_a_manifest_never_reaches_a_host(beset: Server, record: Record) -> None:
    """Without the manifest it may well load: a digest tells, loading does not."""
    from serving import publish

    version = str(_next(beset))
    publish(constant(99, ballast_bytes=4096), "aside", version=version, store=beset.store / ".aside", check=False)
    directory = beset.store / ".aside" / "aside" / version
    (artefact,) = directory.glob("model.*")
    raw = bytearray(artefact.read_bytes())
    raw[len(raw) // 2] ^= 1
    artefact.write_bytes(raw)
    directory.rename(beset.store / "m" / version)
    seen = until(lambda: "sha256" in str(beset.version("m", version).get("reason")) and beset.version("m", version))
    assert seen["state"] in ("DISCOVERED", "REJECTED")
    assert beset.active("m") != version
    shutil.rmtree(beset.store / "m" / version)


# --- names -----------------------------------------------------------------------------------------------------------


ODD_NAMES = (b"\xff\xfe", b"new\nline", b"a b", b"-rf", "é".encode(), b"x" * 200, b"active", b"%2e%2e")
ODD_PATHS = ("%2e%2e", "..%2fm", "m%00", "x" * 300, "%ff")


@pytest.fixture
def oddities(beset: Server, tmp_path: Path) -> Iterator[Path]:
    """Loops, links out of the store and names nobody could type, each with a sound version behind it."""
    outside = write_version(tmp_path / "outside", 777, constant(777))
    made = [beset.store / os.fsdecode(name) for name in ODD_NAMES]
    for directory in made:
        directory.mkdir()
        shutil.copytree(outside, directory / "1")
    links = {"loop": Path("loop"), "escape": outside.parent, "up": Path("../.."), "m/777": outside}
    links |= {"m/778.joblib": outside / "model.joblib"}
    for name, target in links.items():
        (beset.store / name).symlink_to(target)
    yield outside
    for directory in made:
        shutil.rmtree(directory)
    for name in links:
        (beset.store / name).unlink()
    until(lambda: not beset.get("/models")["store"]["problems"], "the end of the oddities")


def test_names_that_lead_elsewhere_or_nowhere(beset: Server, oddities: Path, record: Record) -> None:
    """None of them is served, what is wrong with each is told, and what is beside them is served."""
    until(lambda: len(beset.get("/models")["store"]["problems"]) >= len(ODD_NAMES), "all names being told")
    version = _next(beset)
    beset.drop("m", version, constant(version))
    beset.wait_active("m", version)
    assert [one["name"] for one in beset.get("/models/active")["models"]] == ["m"]
    escaped = [one for one in beset.model("m")["versions"] if one["version"] in ("777", "778")]
    assert {one["state"] for one in escaped} <= {"REJECTED"}


@pytest.mark.parametrize("name", ODD_PATHS)
def test_a_name_in_a_request_reaches_no_file(beset: Server, record: Record, name: str) -> None:
    answer = beset.client.post(f"{beset.url}/models/{name}/predict", json={"instances": [[0.0, 0.0]]})
    assert answer.status_code in (400, 404, 422)
    assert "Traceback" not in answer.text
    assert str(beset.directory) not in answer.text


# --- many at once ----------------------------------------------------------------------------------------------------


def test_a_thousand_versions_at_once(beset: Server, record: Record) -> None:
    """The newest goes live; hosts, cache and memory stay within their bounds."""
    first = _next(beset)
    newest = first + 999
    aside = beset.store / ".thousand"
    write_version(aside, first, constant(newest))
    for version in range(first + 1, newest + 1):
        (aside / str(version)).mkdir()
        os.link(aside / str(first) / "model.joblib", aside / str(version) / "model.joblib")
    seen = len(beset.hosts())
    for version in range(first, newest + 1):
        (aside / str(version)).rename(beset.store / "m" / str(version))
    with record.excuse(may_go_back=True):  # those that came first may have gone live: all have the same bytes
        beset.wait_active("m", newest, 60)
    assert len(beset.hosts()) <= seen + 3
    assert len(list((beset.state / "cache" / "versions" / "m").iterdir())) <= 10
    assert Usage.of(beset).megabytes < 200
    for version in range(first, newest):
        shutil.rmtree(beset.store / "m" / str(version))
    until(lambda: len(beset.model("m")["versions"]) < 100, "the end of the others")


# --- files that go away ----------------------------------------------------------------------------------------------


def test_an_empty_directory_where_the_store_was_mounted(beset: Server, record: Record) -> None:
    """Invariant 10: an unmounted store looks empty and is readable; what is served goes on being served."""
    active = beset.active("m")
    away = beset.store.with_name("away")
    beset.store.rename(away)
    beset.store.mkdir()
    note = until(lambda: beset.get("/models/m/active")["active"]["note"], "a note about the files")
    assert "no longer in the store" in note
    assert beset.active("m") == active
    beset.store.rmdir()
    away.rename(beset.store)
    until(lambda: beset.get("/models/m/active")["active"]["note"] is None, "the files being there again")
    version = _next(beset)
    beset.drop("m", version, constant(version))
    beset.wait_active("m", version)


def test_the_active_version_overwritten_in_place_with_rubbish(beset: Server, record: Record) -> None:
    """The copy that was verified goes on answering; what is in the store now is refused under the same name."""
    version = _next(beset)
    beset.drop("m", version, constant(version))
    beset.wait_active("m", version)
    with (beset.store / "m" / str(version) / "model.joblib").open("r+b") as file:
        file.write(b"rubbish" * 100)
    until(lambda: (beset.model("m")["last_failure"] or {}).get("version") == str(version), "the refusal")
    assert beset.active("m") == str(version)
    beset.drop("m", version + 1, constant(version + 1))
    beset.wait_active("m", version + 1)


# --- operators beside it ---------------------------------------------------------------------------------------------


def test_pins_rollbacks_and_deploys_at_the_same_time(beset: Server, record: Record) -> None:
    """All are serialised: the loser is told 409, nobody 5xx, and when they have ended the policy says what serves."""
    randomness = random.Random(1)
    first = _next(beset)
    for version in (first, first + 1):
        beset.drop("m", version, constant(version))
        beset.wait_active("m", version)
    calls = ["pin", "unpin", "rollback", "release"] * 10
    randomness.shuffle(calls)

    def operate(call: str) -> int:
        if call == "pin":
            return beset.operate("POST", "/models/m/pin", {"version": str(first)}).status_code
        if call == "unpin":
            return beset.operate("DELETE", "/models/m/pin").status_code
        if call == "rollback":
            return beset.operate("POST", "/models/m/rollback").status_code
        return beset.operate("POST", f"/models/m/versions/{first + 1}/release").status_code

    with record.excuse(may_go_back=True), concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(operate, call) for call in calls]
        for version in range(first + 2, first + 6):
            beset.drop("m", version, constant(version))
        assert {answer.result() for answer in answers} <= {200, 409}
        beset.operate("DELETE", "/models/m/pin")
        for version in range(first, first + 6):
            beset.operate("POST", f"/models/m/versions/{version}/release")
        beset.wait_active("m", first + 5)
