"""Connections outlive the worker that has them: restarts, kills and stops of workers, seen by clients."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import peculiar
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.frozen import frozen
from tests.e2e.harness import NO_TLS, Server, connect, constant, serving, until, write_version
from tests.e2e.real_time import WHILE_WAITING, Clients
from tests.e2e.test_workers import answering, assert_sound, wait_all_serving

WORKERS = 2
MOST_CONNECTIONS = 60
FIRST_FREE_PORT = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("connections")
    write_version(directory / "store" / "m", 1, answering(1))
    write_version(directory / "store" / "hosted", 1, constant(1, peculiar.Slow))
    (directory / "settings.toml").write_text('[server]\nhost = ""\n')  # all addresses, of both families
    settings = {"WORKERS": WORKERS, "ADMIN_PORT": 0, "MAX_CONNECTIONS": MOST_CONNECTIONS}
    environment = {f"SERVING_SERVER__{name}": str(value) for name, value in settings.items()}
    with serving(directory, wait_ready=True, **environment) as running:
        running.wait_active("m", 1)
        running.wait_active("hosted", 1)
        running.client.close()  # with another one that keeps no connections, which would be counted
        running.client = httpx.Client(timeout=60.0, verify=NO_TLS, limits=httpx.Limits(max_keepalive_connections=0))
        yield running


def pids_of(server: Server) -> list[int]:
    return [one["pid"] for one in wait_all_serving(server)]


def operators_url(server: Server) -> str:
    url: str = next(event["url"] for event in server.log() if event.get("event") == "listening_for_operators")
    return url


def restart(server: Server, worker: int) -> None:
    """Ask one worker to end, and wait for its successor."""
    before = pids_of(server)
    os.kill(before[worker], signal.SIGTERM)
    until(lambda: wait_all_serving(server)[worker]["pid"] != before[worker], "another worker in its place")


def test_a_rolling_restart_under_load_fails_no_request(server: Server) -> None:
    before = pids_of(server)
    compiled, hosted = (Clients(server.url, model, pause_seconds=WHILE_WAITING) for model in ("m", "hosted"))
    with compiled, hosted:
        for worker in range(WORKERS):
            restart(server, worker)
            asked = len(compiled.seen), len(hosted.seen)
            until(lambda asked=asked: len(compiled.seen) > asked[0] + 200 and len(hosted.seen) > asked[1] + 50)
    after = wait_all_serving(server)
    assert not {one["pid"] for one in after} & set(before)
    assert [one["restarts"] for one in after] == [1] * WORKERS
    for clients in (compiled, hosted):
        assert clients.failures() == []
        assert_sound(clients)


# --- clients that keep their connections ------------------------------------------------------------------------------


class KeptOpen:
    """Connections that each send one request after another, and are never opened again."""

    def __init__(self, url: str, count: int) -> None:
        self._opened = [connect(url) for _ in range(count)]
        self._files = [one.makefile("rb") for one in self._opened]

    def __enter__(self) -> KeptOpen:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (*self._files, *self._opened):
            one.close()

    def send(self, path: str = "/models/m/predict", row: Sequence[float] = (0.0, 0.0)) -> None:
        """Send a prediction on each connection."""
        for one in self._opened:
            one.sendall(prediction(path, row))

    def read(self) -> list[int]:
        """Return the status of each answer; 0 where the connection has ended."""
        return [read_status(file) for file in self._files]

    def are_answered(self) -> bool:
        """Whether every connection has something to read."""
        return len(select.select(self._opened, [], [], 0)[0]) == len(self._opened)

    def ask(self) -> list[int]:
        """Send a prediction on each connection, and return the status of each answer."""
        self.send()
        return self.read()


def prediction(path: str = "/models/m/predict", row: Sequence[float] = (0.0, 0.0)) -> bytes:
    body = json.dumps({"instances": [row]}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def read_status(file: Any) -> int:
    try:
        status = file.readline()
        if not status:
            return 0
        fields = dict(iter(lambda: file.readline().strip().lower().partition(b": ")[::2], (b"", b"")))
        file.read(int(fields[b"content-length"]))
    except ConnectionResetError:
        return 0
    return int(status.split()[1])


def count_open(server: Server, pid: int) -> int:
    """Return how many connections of clients a worker has."""
    port = urlsplit(server.url).port
    found = psutil.Process(pid).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in found)


def wait_even(server: Server, wanted: list[int]) -> None:
    until(lambda: [count_open(server, pid) for pid in pids_of(server)] == wanted, f"{wanted} connections")


def test_few_connections_are_even_and_go_on_over_restarts(server: Server) -> None:
    """Four over two workers are two each, and again when each of the workers was replaced; none is closed."""
    with KeptOpen(server.url, 4) as clients:
        assert clients.ask() == [200] * 4
        wait_even(server, [2, 2])
        for worker in range(WORKERS):
            restart(server, worker)
            assert clients.ask() == [200] * 4
            wait_even(server, [2, 2])
        assert clients.ask() == [200] * 4


def test_a_request_under_way_is_answered_before_its_connection_goes_on(server: Server) -> None:
    with KeptOpen(server.url, 4) as clients:
        with frozen(hosts_of(server)):
            clients.send("/models/hosted/predict", (0.5, 77.0))
            until(lambda: requests_under_way(server) == 4, "the requests under way")
        for worker in range(WORKERS):
            restart(server, worker)
        assert clients.read() == [200] * 4
        assert clients.ask() == [200] * 4


def hosts_of(server: Server) -> list[psutil.Process]:
    """Return the hosts, and what else is no worker but a child of a process that forks."""
    workers = pids_of(server)
    return [one for one in server.hosts() if one.pid not in workers]


def requests_under_way(server: Server) -> int:
    text = server.client.get(operators_url(server) + "/metrics").text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return int(sum(one.value for one in samples if one.name == "serving_leases"))


# --- workers that do not accept ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process do nothing for the length of a ``with`` block; it may end within."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_what_waits_for_a_worker_that_is_killed_is_answered(server: Server) -> None:
    """Only what it had read is reset."""
    victim = pids_of(server)[0]
    with KeptOpen(server.url, 4) as under_way:
        assert under_way.ask() == [200] * 4
        wait_even(server, [2, 2])
        with frozen(hosts_of(server)):
            under_way.send("/models/hosted/predict")
            until(lambda: requests_under_way(server) == 4, "the requests under way")
            its_own = count_open(server, victim)
            with stopped(victim), KeptOpen(server.url, 20) as waiting:
                waiting.send()
                os.kill(victim, signal.SIGKILL)
                assert waiting.read() == [200] * 20
        assert Counter(under_way.read()) == {0: its_own, 200: 4 - its_own}
        assert 0 < its_own < 4
    until(lambda: pids_of(server)[0] != victim, "another worker in its place")


def test_a_worker_that_hangs_delays_nobody_and_gets_connections_again(server: Server) -> None:
    """While it hangs, and is not replaced yet, the others answer what comes and what waits for it."""
    victim = pids_of(server)[1]
    with stopped(victim), KeptOpen(server.url, 20) as clients:
        assert clients.ask() == [200] * 20
        assert psutil.Process(victim).status() == psutil.STATUS_STOPPED
    assert pids_of(server)[1] == victim
    with KeptOpen(server.url, 4) as clients:
        assert clients.ask() == [200] * 4
        wait_even(server, [2, 2])


def test_a_worker_that_is_not_started_again_yet_delays_nobody(server: Server) -> None:
    """Each death makes the pause longer until the next start."""

    def is_waiting() -> str | None:
        worker = server.get("/workers")["workers"][1]
        return worker["retry_at"] if worker["state"] == "waiting" else None

    def kill_again() -> bool:
        worker = server.get("/workers")["workers"][1]
        if worker["pid"] is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker["pid"], signal.SIGKILL)
        retry_at = datetime.fromisoformat(worker["retry_at"]) if worker["state"] == "waiting" else datetime.now(UTC)
        return retry_at - datetime.now(UTC) > timedelta(seconds=2.5)

    until(kill_again, "a long pause", every=0.05)
    retry_at = is_waiting()
    with KeptOpen(server.url, 20) as clients:
        assert clients.ask() == [200] * 20
    assert retry_at is not None
    assert is_waiting() == retry_at
    wait_all_serving(server)


# --- ports and limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_every_address_of_the_host_is_served_by_all_workers(host: str, server: Server) -> None:
    port = urlsplit(server.url).port
    with KeptOpen(f"http://{host}:{port}", 4) as clients:

        def have_all_answered() -> bool:
            assert clients.ask() == [200] * 4
            return all(count_open(server, pid) for pid in pids_of(server))

        until(have_all_answered, "connections at each worker")


def test_the_admin_port_is_served_by_all_workers_and_has_its_calls_alone(server: Server) -> None:
    assert server.client.get(server.url + "/metrics").status_code == 404
    for _ in range(8):  # connections of their own
        assert httpx.get(operators_url(server) + "/metrics", verify=NO_TLS, timeout=60).status_code == 200


def test_the_most_connections_are_those_of_all_workers(server: Server) -> None:
    """Each has its share, and one that is full passes on what others have room for."""
    until(lambda: sum(count_open(server, pid) for pid in pids_of(server)) == 0, "no connections")
    with KeptOpen(server.url, MOST_CONNECTIONS) as clients:
        assert clients.ask() == [200] * MOST_CONNECTIONS
        with KeptOpen(server.url, 3) as more:
            assert more.ask() == [503] * 3
        assert clients.ask() == [200] * MOST_CONNECTIONS
    until(lambda: server.predict("m").status_code == 200, "room again")


def test_no_client_can_connect_while_all_workers_drain(server: Server) -> None:
    """The last test of this server: it stops. Requests under way are answered."""
    with KeptOpen(server.url, 4) as clients:

        def is_refused() -> bool:
            with contextlib.suppress(ConnectionResetError):
                try:
                    connect(server.url).close()
                except ConnectionRefusedError:
                    return True
            return False

        assert server.process is not None
        with frozen(hosts_of(server)):
            clients.send("/models/hosted/predict")
            until(lambda: requests_under_way(server) == 4, "the requests under way")
            server.process.send_signal(signal.SIGTERM)
            until(is_refused, "refused connections")
            assert not clients.are_answered()
        assert clients.read() == [200] * 4
        assert clients.read() == [0] * 4
    assert server.process.wait(30) == 0


# --- ports that cannot be opened --------------------------------------------------------------------------------------


def test_an_admin_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = start_in_vain(tmp_path, 0, SERVING_SERVER__ADMIN_PORT=str(port))
        assert f"server.admin_port: cannot listen on 127.0.0.1:{port}: Address already in use" in said


def start_in_vain(directory: Path, port: int, *before: str, **environment: str) -> str:
    """Start a server that cannot serve, and return what it says."""
    found = subprocess.run(
        [*before, sys.executable, "-m", "serving", "serve", "--workers", "2", "--port", str(port)],
        cwd=directory,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 1
    assert "Traceback" not in found.stdout + found.stderr
    return found.stdout + found.stderr


@pytest.mark.skipif(FIRST_FREE_PORT < 2 or shutil.which("setpriv") is None, reason="every port is free to all here")
def test_a_port_that_this_user_may_not_open_is_said(tmp_path: Path) -> None:
    """Also root's processes may not, without the capability."""
    without = ("--inh-caps=-net_bind_service", "--bounding-set=-net_bind_service")
    before = ["setpriv", *without] if os.geteuid() == 0 else []
    said = start_in_vain(tmp_path, FIRST_FREE_PORT - 1, *before)
    assert f"server.port: cannot listen on 127.0.0.1:{FIRST_FREE_PORT - 1}: Permission denied" in said
