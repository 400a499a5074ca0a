"""Several processes of one application share one control, and in real time no client ever goes back."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from serving.settings import Settings, dump_shared, make_shared
from serving.wire.control_socket import Hello, connect_to_control, receive_admission, send_greeting
from tests.e2e.harness import NO_TLS, START_SECONDS, Server, constant, is_alive, until, write_version
from tests.e2e.real_time import WHILE_WAITING, Clients
from tests.e2e.test_workers import answering, assert_sound, count_answers, wait_all_serving, workers_of

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
WHOLE_SERVICE = ("--factory", "serving:create_app")
# a process that was stopped, or a client that waits for a processor, is not idle
PATIENT = ("--timeout-worker-healthcheck", "120", "--timeout-keep-alive", "120")
OPTIONS = ("--port", "0", "--no-access-log", *PATIENT)
PROCESSES = 3
SWAPS = [4, pytest.param(10, marks=pytest.mark.soak)]


class Application(Server):
    """An application under ``uvicorn --workers``."""

    app: tuple[str, ...] = WHOLE_SERVICE
    processes = PROCESSES

    def start(self, *, wait_ready: bool = False) -> Application:
        """Start uvicorn, and wait until it listens (and, if asked, is ready)."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SERVING_")}
        material = str(Path(__file__).parent / "material")
        environment = {
            **clean,
            "PYTHONPATH": material,
            "SERVING_SERVER__WORKERS": str(self.processes),
            "SERVING_STORE__PATH": str(self.store),
            "SERVING_STATE__PATH": str(self.state),
            **self.environment,
        }
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-m", "uvicorn", *self.app, *OPTIONS, "--workers", str(self.processes)],
                env=environment,
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.url = until(self._find_url, "a port", START_SECONDS)
        until(self._answers, "answers", START_SECONDS)
        if wait_ready:
            self.wait_ready()
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            self.client.get(self.url + "/")
            return True
        return False

    def _find_url(self) -> str | None:
        words = self.log_path.read_text().split()
        return next((word for word in words if word.startswith("http://127.0.0.1")), None)

    def control(self) -> psutil.Process:
        """Return the process that has control."""
        return until(self._find_control, "control", START_SECONDS)

    def _find_control(self) -> psutil.Process | None:
        found = [one for one in self.everything() if "control_process" in " ".join(_command_of(one))]
        return found[0] if len(found) == 1 else None

    def everything(self) -> list[psutil.Process]:
        """Return every process that has anything to do with this application and lives."""
        mark = f"SERVING_STATE__PATH={self.state}".encode()
        found = []
        for one in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                environment = Path(f"/proc/{one.pid}/environ").read_bytes()
                if mark in environment.split(b"\0") and is_alive(one):
                    found.append(one)
        return found

    def tree(self) -> list[psutil.Process]:
        """Return all that the application and control have started, themselves included."""
        found = {one.pid: one for root in self.everything() for one in (root, *_children_of(root))}
        return list(found.values())


class TwoProcesses(Application):
    """The smallest application of several: each process imports everything, which takes seconds."""

    processes = 2


def _command_of(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _children_of(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return process.children(recursive=True)
    return []


@contextlib.contextmanager
def running(directory: Path, kind: type[Application] | None = None, **options: Any) -> Iterator[Application]:
    """Run an application for the length of a ``with`` block, and leave nothing of it."""
    server = (kind or Application)(directory, **options)
    try:
        server.start()
        yield server
    except BaseException:
        print(server.log_path.read_text()[-30000:])
        raise
    finally:
        server.client.close()
        for one in server.tree():
            with contextlib.suppress(psutil.Error):
                one.kill()
        if server.process is not None:
            server.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    directory = tmp_path_factory.mktemp("shared")
    write_version(directory / "store" / "m", 1, answering(1))
    write_version(directory / "store" / "hosted", 1, constant(1))
    with running(directory, SERVING_SERVER__WORKER_SECONDS="4") as server:
        server.wait_active("m", 1, START_SECONDS)
        server.wait_active("hosted", 1, START_SECONDS)
        wait_all_serving(server)
        yield server


def swap(server: Server, model: str, make: Any) -> int:
    """Let a newer version of a model become active, and return which."""
    version = int(server.active(model) or 0) + 1
    server.drop(model, version, make(version))
    server.wait_active(model, version, 60)
    return version


@pytest.mark.parametrize("swaps", SWAPS)
@pytest.mark.parametrize(("model", "make"), [("m", answering), ("hosted", constant)], ids=["compiled", "hosted"])
def test_no_client_goes_back_and_no_request_fails_over_swaps(
    model: str, make: Any, swaps: int, server: Application
) -> None:
    with Clients(server.url, model) as clients:
        for _ in range(swaps):
            newest = swap(server, model, make)
        until(lambda: any(one.version == newest for one in clients.seen), "an answer of the newest version", 60)
    assert clients.failures() == []
    assert_sound(clients)


def test_processes_share_one_control_and_one_host_and_are_counted_together(server: Application) -> None:
    pids = {one["pid"] for one in workers_of(server)}
    assert len(pids) == PROCESSES
    assert server.predict("m").status_code == 200
    assert sum(one["requests"] for one in workers_of(server)) >= count_answers(server, "m") > 0
    assert server.control().pid not in pids
    environments = [one for one in _children_of(server.control()) if _children_of(one)]
    hosts = [host for zygote in environments for host in zygote.children()]
    until(lambda: len([host for host in hosts if is_alive(host)]) <= 2, "one host, and one of the version before")


def test_a_killed_process_is_replaced_by_its_manager_and_keeps_its_counts(server: Application) -> None:
    before = [one["pid"] for one in wait_all_serving(server)]
    counted = count_answers(server, "m")
    control = server.control()
    with Clients(server.url, "m", pause_seconds=WHILE_WAITING) as clients:
        os.kill(before[1], signal.SIGKILL)
        until(lambda: before[1] not in _pids_serving(server) and len(_pids_serving(server)) == PROCESSES, "another one")
    assert {one.status for one in clients.failures()} <= {0}
    assert_sound(clients)
    answered = sum(one.status == 200 for one in clients.seen)
    assert answered <= count_answers(server, "m") - counted <= answered + len(clients.failures())
    assert server.control() == control


def test_when_control_is_killed_compiled_versions_go_on_and_another_one_takes_over(server: Application) -> None:
    before = {one["pid"] for one in wait_all_serving(server)}
    control = server.control()
    theirs = [control, *_children_of(control)]
    assert len(theirs) >= 3, "control, the zygote, a host"
    with Clients(server.url, "m", pause_seconds=WHILE_WAITING) as clients:
        control.kill()
        until(lambda: not any(is_alive(one) for one in theirs), "the end of the zygote and its hosts")
        refused = server.predict("hosted")
        assert (refused.status_code, "has ended with control" in refused.text) == (503, True)
        until(lambda: _pids_serving(server) == before, "all processes attached again", 60)
        newest = swap(server, "m", answering)
        until(lambda: clients.seen[-1].version == newest, "its answers")
    assert clients.failures() == []
    assert_sound(clients)
    assert server.control() != control
    assert count_answers(server, "m") >= len(clients.seen), "processes keep what they have counted"
    until(lambda: server.predict("hosted").status_code == 200, "answers of a host again")
    swap(server, "hosted", constant)


def test_a_process_that_was_stopped_does_not_hold_up_a_swap_and_never_answers_with_what_was_before(
    server: Application,
) -> None:
    stopped = wait_all_serving(server)[0]["pid"]
    version = int(server.active("m") or 0) + 1
    with Clients(server.url, "m", pause_seconds=WHILE_WAITING) as clients:
        os.kill(stopped, signal.SIGSTOP)
        try:  # all of those may have come to the process that is stopped now; later ones come to the others
            with Clients(server.url, "m", pause_seconds=WHILE_WAITING) as others:
                server.drop("m", version, answering(version))
                until(lambda: any(one.version == version for one in others.seen), "the swap", 60)
        finally:
            os.kill(stopped, signal.SIGCONT)
        until(lambda: len(_pids_serving(server)) == PROCESSES, "all processes attached", 60)
    assert others.failures() == []
    assert {one.status for one in clients.failures()} <= {503}
    clients.seen += others.seen
    assert_sound(clients)
    assert any(event.get("event") == "worker_detached" and event.get("pid") == stopped for event in server.log())


def _pids_serving(server: Application) -> set[int]:
    """Return the processes that answer, as any of them says; empty while none can say it."""
    try:
        response = server.client.get(server.url + "/workers")
    except httpx.TransportError:  # the connection was a killed process's
        return set()
    if response.status_code != 200:
        return set()
    return {one["pid"] for one in response.json()["workers"] if one["state"] == "serving"}


def test_other_settings_and_other_releases_are_refused(server: Application) -> None:
    own = {"store": {"path": server.store}, "state": {"path": server.state}, "server": {"workers": PROCESSES}}
    settings = make_shared(Settings(**own))
    with connected(server.state) as sock:
        send_greeting(sock, Hello("0.0.9", dump_shared(settings), wire=1))
        assert "runs release 0.0.9 of serving, and the control" in refusal(sock)
    with connected(server.state) as sock:
        send_greeting(sock, Hello("0.1.0", dump_shared(settings)))
        assert "store.settle_seconds is 0.5 in this process and 0.2 in the others" in refusal(sock)


@contextlib.contextmanager
def connected(state: Path) -> Iterator[socket.socket]:
    sock = connect_to_control(state)
    assert sock is not None
    with sock:
        yield sock


def refusal(sock: socket.socket) -> str:
    received = receive_admission(sock)
    assert received is not None
    assert received[0].refusal is not None
    return received[0].refusal


def test_control_goes_on_after_a_signal_until_every_process_is_killed(server: Application) -> None:
    control, everything = server.control(), server.tree()
    for sent in (signal.SIGUSR1, signal.SIGTERM):
        control.send_signal(sent)
    until(lambda: "control ends with the last process" in server.log_path.read_text(), "the signal in the log")
    assert is_alive(control)
    for one in everything:
        if one not in (control, *_children_of(control)):
            with contextlib.suppress(psutil.NoSuchProcess):  # one that ends with its parent
                one.kill()
    until(lambda: not any(is_alive(one) for one in everything), "the end of everything")


class Example(Application):
    """The example of docs/embedding.md."""

    app = ("--app-dir", str(EXAMPLES), "shared_app:app")
    processes = 2


def test_the_example_answers_with_one_version_at_one_instant_and_leaves_nothing(tmp_path: Path) -> None:
    long = tmp_path / ("a" * 100) / "b"  # longer than the address of a socket may be
    long.mkdir(parents=True)
    write_version(long / "store" / "price", 1, answering(1))
    with running(long, kind=Example) as server:
        versions = until(lambda: _ask_prices(server), "prices", START_SECONDS)
        assert versions == {"1"}
        write_version(server.store / "price", 2, answering(2))
        until(lambda: "2" in _ask_prices(server), "version 2")
        assert _ask_prices(server) == {"2"}
        until(lambda: _list_states(server) == ["serving", "serving"], "both processes serving")
        everything = server.tree()
        assert len(everything) >= 5, "uvicorn, two workers, control, the zygote"
        assert server.stop() == 0
        until(lambda: not any(is_alive(one) for one in everything), "the end of everything")
    assert not (server.state / "control.socket").exists()


def _list_states(server: Server) -> list[str]:
    return [one["state"] for one in server.client.get(server.url + "/processes").json()]


def _ask_prices(server: Server) -> set[str]:
    """Return the versions of some answers, each over a connection of its own; none while there is no answer."""
    answers = [httpx.post(server.url + "/price", json=[[0.0, 0.0]], verify=NO_TLS, timeout=60) for _ in range(8)]
    return {one.json()["version"] for one in answers if one.status_code == 200}
