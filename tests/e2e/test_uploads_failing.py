"""Uploads to a server that dies, or whose disk is full or read-only: no half version, and nothing left behind."""

from __future__ import annotations

import concurrent.futures
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from serving.failpoints import POINTS, Point
from tests.e2e.armed import Faults
from tests.e2e.harness import NO_TLS, Server, armed, constant, is_alive, serving, until, write_version
from tests.e2e.test_shared_control import TwoProcesses, running
from tests.e2e.test_unwritable_state import mounted
from tests.e2e.uploading import HEADERS, UPLOADS, begin_upload, dump, leftovers, upload

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def ailing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Faults]]:
    directory = tmp_path_factory.mktemp("ailing")
    write_version(directory / "store" / "m", 1, constant(1))
    with armed(directory, wait_ready=True, **UPLOADS) as (server, faults):
        yield server, faults
        for point in POINTS:
            faults.disarm(point)


@pytest.mark.parametrize(
    ("point", "error", "status", "reason"),
    [
        ("upload-write", "ENOSPC", 507, "No space left"),
        ("upload-write", "EDQUOT", 507, "quota"),
        ("upload-write", "EIO", 503, "Input/output error"),
        ("cache-write", "ENOSPC", 503, "No space left"),
        ("before-publication", "ENOSPC", 507, "No space left"),
        ("before-publication", "EACCES", 503, "Permission denied"),
    ],
)
def test_a_disk_that_takes_nothing_is_told(
    ailing: tuple[Server, Faults], point: Point, error: str, status: int, reason: str
) -> None:
    server, faults = ailing
    faults.arm(point, error)
    answer = upload(server, "new", "1", dump(constant(1)))
    faults.disarm(point)
    assert (answer.status_code, reason in answer.json()["detail"]) == (status, True), answer.text
    assert str(server.directory) not in answer.text
    assert leftovers(server.store) == []
    assert not (server.store / "new").exists()
    assert server.predict("m").status_code == 200


def test_a_host_that_is_killed_while_it_checks_is_replaced_once(ailing: tuple[Server, Faults]) -> None:
    server, faults = ailing
    before = {host.pid for host in server.hosts()}
    faults.arm("host-spawned", "pause")
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        answer = threads.submit(upload, server, "hosted", "1", dump(constant(1)))
        until(lambda: faults.has_struck("host-spawned"), "a host")
        for host in server.hosts():
            if host.pid not in before:
                with contextlib.suppress(psutil.NoSuchProcess):
                    host.kill()
        faults.disarm("host-spawned")
        assert answer.result().status_code == 201
    server.wait_active("hosted", 1)


def test_it_works_when_there_is_room_again(ailing: tuple[Server, Faults]) -> None:
    server, _ = ailing
    assert upload(server, "new", "1", dump(constant(1))).status_code == 201
    server.wait_active("new", 1)


@pytest.fixture(scope="module")
def mortal_ones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Faults]]:
    directory = tmp_path_factory.mktemp("mortal")
    write_version(directory / "store" / "m", 1, constant(1))
    with armed(directory, wait_ready=True, **UPLOADS) as (server, faults):
        yield server, faults


@pytest.fixture
def mortal(mortal_ones: tuple[Server, Faults]) -> tuple[Server, Faults]:
    """A server that runs, with nothing that is going to happen: each test starts it again when it has killed it."""
    server, faults = mortal_ones
    for point in POINTS:
        faults.disarm(point)
    assert server.process is not None
    if server.process.poll() is not None:
        server.start(wait_ready=True)
    return server, faults


@pytest.mark.parametrize(
    "point",
    ["upload-begun", "upload-write", "upload-received", "upload-checked", "before-publication", "upload-published"],
)
def test_a_server_that_is_killed_leaves_a_whole_version_or_none(mortal: tuple[Server, Faults], point: Point) -> None:
    server, faults = mortal
    model = point  # of its own for each
    faults.arm(point, "kill")
    with pytest.raises(httpx.HTTPError):
        upload(server, model, "1", dump(constant(7)))
    assert server.process is not None
    assert server.process.wait(30) == -signal.SIGKILL
    is_published = point == "upload-published"
    assert (server.store / model / "1").exists() is is_published
    assert leftovers(server.store)
    server.start(wait_ready=True)
    until(lambda: not leftovers(server.store), "nothing is left")
    if is_published:
        server.wait_active(model, 1)
    else:
        until(lambda: not (server.store / model).exists(), "no empty model")
        assert server.get(f"/models/{model}")["status"] == 404
        assert upload(server, model, "1", dump(constant(7))).status_code == 201
    assert server.predict("m").json()["predictions"] == [1.0]


def test_a_server_that_is_stopped_gives_up_what_it_receives(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True, SERVING_SERVER__DRAIN_SECONDS="0.5", **UPLOADS) as server:
        with begin_upload(server, "m", "2"):
            until(lambda: leftovers(server.store), "a directory")
            assert server.stop() == 0
        assert leftovers(server.store) == []


@contextlib.contextmanager
def a_store_of_its_own(directory: Path, options: str, *more: str) -> Iterator[Path]:
    store = directory / "store"
    with mounted(store, options):
        write_version(store / "m", 1, constant(1))
        yield store


def test_a_real_disk_that_is_full(tmp_path: Path) -> None:
    with (
        a_store_of_its_own(tmp_path, "size=4m") as store,
        serving(tmp_path, store=store, wait_ready=True, **UPLOADS) as server,
    ):
        announced = upload(server, "m", "2", bytes(5 * MEGABYTE))
        assert (announced.status_code, "bytes left" in announced.json()["detail"]) == (507, True)
        chunks = (bytes(MEGABYTE) for _ in range(8))
        with contextlib.suppress(httpx.WriteError):  # the server closes the connection when it has said so
            found = upload(server, "m", "2", chunks)
            assert (found.status_code, "No space left" in found.json()["detail"]) == (507, True)
        until(lambda: not leftovers(store), "nothing is left")
        assert upload(server, "m", "2", dump(constant(2))).status_code == 201


def test_a_store_that_is_read_only_says_so_before_the_body_is_read(tmp_path: Path) -> None:
    with a_store_of_its_own(tmp_path, "size=4m") as store:
        import subprocess

        subprocess.run(["mount", "-o", "remount,ro", store], check=True)
        with serving(tmp_path, store=store, wait_ready=True, **UPLOADS) as server:
            with begin_upload(server, "m", "2") as sock:
                answer = sock.recv(1 << 16).decode()
            assert answer.startswith("HTTP/1.1 409 ")
            assert "this server cannot write into its store: Read-only file system" in answer
            assert server.predict("m").status_code == 200


def test_uploads_are_off_by_default(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, SERVING_SERVER__ADMIN_PORT="0", wait_ready=True) as server:
        public = upload(server, "m", "2", b"x")
        assert (public.status_code, public.json()["title"]) == (404, "Not Found")
        (admin,) = [line["url"] for line in server.log() if line["event"] == "listening_for_operators"]
        url = f"{admin}/models/m/versions/2?file=model.joblib"
        closed = httpx.put(url, content=b"x", headers=HEADERS, verify=NO_TLS, timeout=60)
        assert (closed.status_code, "store.uploads = true" in closed.json()["detail"]) == (403, True)
        assert leftovers(server.store) == []


# --- several processes


def test_a_worker_that_is_killed_leaves_nothing_of_what_it_received(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True, SERVING_SERVER__WORKERS="2", **UPLOADS) as server:
        with begin_upload(server, "m", "2"), begin_upload(server, "n", "2"):
            until(lambda: len(leftovers(server.store)) == 2, "two directories")
            for worker in server.get("/workers")["workers"]:
                psutil.Process(worker["pid"]).kill()
            until(lambda: not leftovers(server.store), "nothing is left")
        server.wait_ready()
        assert upload(server, "m", "2", dump(constant(2))).status_code == 201
        with begin_upload(server, "m", "3"):
            until(lambda: leftovers(server.store), "a directory")
            server.kill()
        server.start(wait_ready=True)
        until(lambda: not leftovers(server.store), "nothing is left")
        server.wait_active("m", 2)


def test_an_application_of_ones_own_in_several_processes(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with running(tmp_path, TwoProcesses, **UPLOADS) as server:
        assert upload(server, "m", "2", dump(constant(2))).status_code == 201
        server.wait_active("m", 2)
        half = dump(constant(3, ballast_bytes=1_500_000))
        with begin_upload(server, "m", "3", f"Content-Length: {len(half)}", body=half[:1_200_000]) as sock:
            until(lambda: leftovers(server.store), "a directory")
            control = server.control()
            control.kill()
            until(lambda: not is_alive(control), "its end")
            until(lambda: not leftovers(server.store), "another control removes it", 60)
            sock.sendall(half[1_200_000:])
            assert sock.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
        assert not (server.store / "m" / "3").exists()
        answer = until(lambda: (found := upload(server, "m", "3", half)).status_code != 503 and found, "room", 60)
        assert answer.status_code == 201, answer.text
