"""A version that is uploaded is checked before anybody sees it, and then published like any other."""

from __future__ import annotations

import concurrent.futures
import json
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Server, constant, linear, serving, until, write_version
from tests.e2e.hostile import Touch, dumped
from tests.e2e.uploading import UPLOADS, archive, begin_upload, dump, leftovers, manifest_of, upload, upload_tar

LIMIT_MB = 4
GOLDEN = {"instances": [[1.0, 2.0]], "expected": {"predict": [5.0]}, "rtol": 1e-6, "atol": 1e-9, "deterministic": True}


@pytest.fixture(scope="module", params=["1", "2"], ids=["one worker", "two workers"])
def taking(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("taking")
    write_version(directory / "store" / "m", 1, constant(1))
    limits = {"SERVING_STORE__MAX_ARTIFACT_MB": str(LIMIT_MB), "SERVING_SERVER__BODY_SECONDS": "8"}
    with serving(directory, wait_ready=True, SERVING_SERVER__WORKERS=request.param, **UPLOADS, **limits) as server:
        yield server


@pytest.fixture(autouse=True)
def tidy(taking: Server) -> Iterator[None]:
    """Whatever became of an upload, nothing of it is left beside the versions, and what answered answers."""
    yield
    until(lambda: not leftovers(taking.store), "no leftovers")
    assert taking.predict("m").status_code == 200


def versions(server: Server, model: str) -> list[str]:
    directory = server.store / model
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def uploads_in_history(server: Server, model: str) -> list[dict[str, Any]]:
    entries = server.get(f"/models/{model}/history")["history"]
    return [entry for entry in entries if entry["event"] == "upload"]


def shown(server: Server) -> dict[str, dict[str, Any]]:
    """Return the uploads that a client of the stream of events sees, by id."""
    events = server.client.get(server.url + "/events", headers={"Accept": "application/json"}).json()["events"]
    return {event["data"]["id"]: event["data"] for event in events if event["event"] == "upload"}


def test_everybody_sees_how_far_an_upload_is(taking: Server) -> None:
    with begin_upload(taking, "seen", "1"):
        until(lambda: [one for one in shown(taking).values() if one["model"] == "seen"], "an upload that is received")
    until(
        lambda: [one for one in shown(taking).values() if one["model"] == "seen" and one["state"] == "failed"],
        "its end",
    )
    published = upload(taking, "seen", "1", dump(constant(1))).json()
    until(lambda: shown(taking).get(published["id"]) == published, "an upload that is published")


def test_a_file_becomes_the_next_version_and_serves(taking: Server) -> None:
    answer = upload(taking, "m", "next", dump(constant(2)))
    assert answer.status_code == 201, answer.text
    published = answer.json()
    assert (published["version"], published["state"]) == ("2", "published")
    assert answer.headers["location"] == "/models/m/versions/2"
    assert {gate["verdict"] for gate in published["gates"]} <= {"passed", "warned", "skipped"}
    taking.wait_active("m", 2)
    assert taking.predict("m").json()["predictions"] == [2.0]
    manifest = manifest_of(taking, "m", 2)
    assert manifest["signature"]["features"]
    assert manifest["libraries"]["scikit-learn"]
    assert taking.version("m", 2)["digest"] == published["digest"]
    (entry,) = until(lambda: uploads_in_history(taking, "m"), "its entry")
    assert (entry["version"], entry["digest"]) == ("2", published["digest"])
    assert entry["actor"] == "admin@127.0.0.1"
    (line,) = [line for line in taking.log() if line.get("call") == "upload" and line["model"] == "m"]
    assert (line["outcome"], line["version"], line["actor"]) == ("done", "2", "admin@127.0.0.1")


def test_a_new_model_is_not_evaluated_twice(taking: Server) -> None:
    answer = upload(taking, "fresh", "1", dump(linear()), '?file=line.joblib&metrics={"accuracy": 0.5}')
    assert answer.status_code == 201, answer.text
    taking.wait_active("fresh", 1)
    assert taking.predict("fresh", [[1.0, 2.0]]).json()["predictions"] == pytest.approx([5.0])
    recalled = [line for line in taking.log() if line["event"] == "evaluation_recalled" and line["model"] == "fresh"]
    assert len(recalled) == 1
    assert manifest_of(taking, "fresh", 1)["metrics"] == {"accuracy": 0.5}


def test_a_directory_is_published_with_its_golden_examples(taking: Server) -> None:
    files = {"model.joblib": dump(linear()), "golden.json": json.dumps(GOLDEN).encode()}
    answer = upload_tar(taking, "golden", "next", archive(files))
    assert answer.status_code == 201, answer.text
    assert {gate["gate"]: gate["verdict"] for gate in answer.json()["gates"]}["golden"] == "passed"
    listed = {file["name"] for file in manifest_of(taking, "golden", 1)["files"]}
    assert listed == set(files)
    taking.wait_active("golden", 1)


def test_a_version_that_exists_is_never_changed(taking: Server) -> None:
    before = (taking.store / "m" / "1" / "model.joblib").read_bytes()
    for version in ("1", "01"):
        answer = upload(taking, "m", version, dump(constant(9)))
        assert answer.status_code == 409
        assert "versions are never changed" in answer.json()["detail"]
    assert (taking.store / "m" / "1" / "model.joblib").read_bytes() == before


def refused(server: Server, answer: Any, model: str, gate: str, reason: str) -> dict[str, Any]:
    document: dict[str, Any] = answer.json()
    assert answer.status_code == 422, answer.text
    assert (document["gate"], document["gates"][-1]["gate"], document["gates"][-1]["verdict"]) == (
        gate,
        gate,
        "refused",
    )
    assert reason in document["reason"]
    assert str(server.directory) not in answer.text, "a path of the machine is nobody's business"
    assert versions(server, model) == []
    return document


def test_a_hostile_file_runs_nothing_and_is_refused(taking: Server, tmp_path: Path) -> None:
    evil = dumped(Touch(tmp_path / "touched"))
    refused(taking, upload(taking, "evil", "1", evil), "evil", "load", "posix.system")
    refused(taking, upload(taking, "broken", "1", dump(linear())[:100]), "broken", "load", "")
    assert not (tmp_path / "touched").exists()


def test_what_breaks_the_contract_of_the_active_version_is_refused(taking: Server) -> None:
    import numpy as np
    from sklearn.linear_model import LinearRegression

    assert upload(taking, "contract", "1", dump(linear())).status_code == 201
    taking.wait_active("contract", 1)
    wider = dump(LinearRegression().fit(np.eye(3), [0.0, 1.0, 2.0]))
    answer = upload(taking, "contract", "next", wider)
    assert answer.status_code == 422
    assert answer.json()["gate"] == "contract"
    assert versions(taking, "contract") == ["1"]
    assert taking.active("contract") == "1"
    _, entry = until(lambda: len(found := uploads_in_history(taking, "contract")) == 2 and found[::-1], "its entry")
    assert entry["reason"].count("refused by contract: not compatible with") == 1
    assert taking.model("contract")["quarantined"] == []
    assert taking.model("contract")["last_failure"] is None
    answer = upload(taking, "contract", "next", wider, "?file=model.joblib&breaking=true")
    assert (answer.status_code, answer.json()["version"]) == (201, "2")
    taking.wait_active("contract", 2)


def test_a_wrong_golden_example_is_refused(taking: Server) -> None:
    wrong = {**GOLDEN, "expected": {"predict": [6.0]}}
    files = {"model.joblib": dump(linear()), "golden.json": json.dumps(wrong).encode()}
    refused(taking, upload_tar(taking, "wrong", "1", archive(files)), "wrong", "golden", "expected 6.0, got 5.0")


MANIFEST = {
    "model": "told",
    "version": "7",
    "created_at": "2026-11-20T12:00:00Z",
    "files": [{"name": "model.joblib", "sha256": "0" * 64, "size": 3}],
}


@pytest.mark.parametrize(
    ("version", "files", "status", "detail"),
    [
        ("8", {"model.joblib": b"abc", "manifest.json": json.dumps(MANIFEST).encode()}, 422, "is for told/7"),
        ("next", {"model.joblib": b"abc", "manifest.json": json.dumps(MANIFEST).encode()}, 422, "names version '7'"),
        ("7", {"model.joblib": b"abc", "manifest.json": json.dumps(MANIFEST).encode()}, 422, "is not the file whose"),
        ("7", {"model.joblib": b"abc", "manifest.json": b"{"}, 422, "manifest.json"),
        ("7", {"model.joblib": b"abc", "manifest.sig": b"x"}, 422, "without the manifest.json"),
        ("7", {"golden.json": b"{}"}, 422, "no artefact"),
        ("7", {"a.joblib": b"abc", "b.onnx": b"abc"}, 422, "holds 2 artefacts"),
        ("7", {"../model.joblib": b"abc"}, 400, "cannot be a file of a version"),
        ("7", {}, 400, "holds no file"),
    ],
)
def test_archives_that_are_no_version_are_refused_with_the_reason(
    taking: Server, version: str, files: dict[str, bytes], status: int, detail: str
) -> None:
    answer = upload_tar(taking, "told", version, archive(files))
    assert (answer.status_code, detail in answer.json()["detail"]) == (status, True), answer.text
    assert ".upload-" not in answer.text
    assert versions(taking, "told") == []
    assert not (taking.store / "told").exists()


def test_a_link_in_an_archive_is_refused(taking: Server) -> None:
    link = tarfile.TarInfo("model.joblib")
    link.type, link.linkname = tarfile.SYMTYPE, "../../m/1/model.joblib"
    answer = upload_tar(taking, "linked", "1", link.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    assert (answer.status_code, "symbolic link" in answer.json()["detail"]) == (400, True)


@pytest.mark.parametrize("name", ["model.txtx", "../model.joblib", ".model.joblib", "a/model.joblib", "manifest.json"])
def test_the_name_of_a_file_is_one_that_a_store_takes(taking: Server, name: str) -> None:
    answer = upload(taking, "named", "1", b"x", f"?file={name}")
    assert answer.status_code == 422
    assert not (taking.store / "named").exists()


def test_two_uploads_of_one_version_have_one_winner(taking: Server) -> None:
    bodies = [dump(constant(number, ballast_bytes=100_000)) for number in (1, 2)]
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda body: upload(taking, "race", "5", body), bodies))
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    taking.wait_active("race", 5)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda body: upload(taking, "race", "next", body), bodies))
    assert {answer.json()["version"] for answer in answers} == {"6", "7"}


# --- bodies that are too large, too slow, or never whole


def status_of(sock: socket.socket) -> int:
    return int(sock.recv(1 << 16).split(b" ")[1])


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_read(taking: Server) -> None:
    length = f"Content-Length: {(LIMIT_MB << 20) + 1}"
    with begin_upload(taking, "large", "1", length, "Expect: 100-continue") as sock:
        assert status_of(sock) == 413


def test_a_body_in_chunks_is_refused_when_it_has_become_too_large(taking: Server) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(LIMIT_MB + 1):
            yield bytes(1 << 20)

    assert upload(taking, "large", "1", chunks()).status_code == 413
    assert upload(taking, "large", "1", iter([dump(constant(1))])).status_code == 201


@pytest.mark.parametrize("framing", ["Content-Length: 2000000", "Transfer-Encoding: chunked"])
def test_a_client_that_goes_away_leaves_nothing(taking: Server, framing: str) -> None:
    part = bytes(1_500_000)
    body = part if framing.startswith("Content") else b"%x\r\n" % len(part) + part
    with begin_upload(taking, "cut", "1", framing, body=body):
        until(lambda: leftovers(taking.store), "a directory for it")
    until(lambda: not leftovers(taking.store), "no directory")
    assert versions(taking, "cut") == []


def test_a_body_that_stops_is_given_up(taking: Server) -> None:
    with begin_upload(taking, "cut", "1", body=bytes(1000)) as sock:
        assert status_of(sock) == 408


def test_only_a_few_are_under_way_at_once(taking: Server) -> None:
    with begin_upload(taking, "cut", "1"), begin_upload(taking, "other", "1"):
        until(lambda: len(leftovers(taking.store)) == 2, "two uploads")
        answer = upload(taking, "many", "3", b"x")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    until(lambda: not leftovers(taking.store), "room")
    assert upload(taking, "many", "3", dump(constant(1))).status_code == 201


def test_what_is_served_answers_while_versions_are_uploaded(taking: Server) -> None:
    stop, seen = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            seen.append(taking.predict("m").status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert upload(taking, "busy", "1", dump(constant(1, ballast_bytes=3_000_000))).status_code == 201
    finally:
        stop.set()
        asking.join()
    assert set(seen) == {200}
