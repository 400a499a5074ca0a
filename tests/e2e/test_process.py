"""The server process itself: what it imports, how it stops, what it leaves behind. After kill -9: test_kills.py."""

from __future__ import annotations

import concurrent.futures
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import peculiar
import psutil
import pytest

from serving.sandbox.process import LOADING_NICENESS
from tests.e2e.armed import Faults
from tests.e2e.frozen import frozen
from tests.e2e.harness import Server, armed, connect, constant, serving, until, write_version
from tests.e2e.traffic import Traffic

INTERRUPTED = Path(__file__).with_name("interrupted.py")
LEASED = 'serving_leases{model="m",version="1"} 1.0'


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that nothing happens to but new models: each test that needs another one than `m` brings its own.

    It ignores SIGHUP, as it does when nohup(1) starts it.
    """
    directory = tmp_path_factory.mktemp("calm")
    write_version(directory / "store" / "m", 1, constant(1))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serving(directory, wait_ready=True, imports_anew=True) as server:
            signal.signal(signal.SIGHUP, before)
            until(lambda: len(server.processes()) == 2, "the end of all but the zygote and a host")
            yield server
    finally:
        signal.signal(signal.SIGHUP, before)


def _niceness(pid: int) -> set[int]:
    """Return the niceness of each thread."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # the thread has ended
            found.add(os.getpriority(os.PRIO_PROCESS, int(task.name)))
    return found


def _modules(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def test_the_server_imports_nothing_that_could_unpickle_a_model(calm: Server) -> None:
    """Invariant 9: no scikit-learn, scipy, pandas or joblib in the server; the hosts have them."""
    assert calm.process is not None
    calm.predict("m")
    ours, theirs = _modules(calm.process.pid), _modules(calm.hosts()[0].pid)
    for library in ("sklearn", "scipy", "pandas"):
        assert f"/{library}/" not in ours
        assert f"/{library}/" in theirs


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What was imported by a server that finds its port taken, and then by what embeds one."""
    script = "from serving.cli import main\ntry: main()\nfinally: import serving.embed"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [sys.executable, "-c", script, "serve", "--port", str(taken.getsockname()[1])],
            cwd=tmp_path_factory.mktemp("imported"),
            env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    found = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert {"serving.embed", "serving.server", "serving.app", "structlog"} <= found
    return found


@pytest.mark.parametrize("library", ["sklearn", "scipy", "pandas", "joblib", "skops", "onnxruntime"])
def test_neither_a_server_nor_who_embeds_one_imports_a_library_of_models(imported: set[str], library: str) -> None:
    """Also of those that have no shared objects."""
    assert library not in imported


def test_the_server_imports_nothing_for_pictures_on_a_terminal(imported: set[str]) -> None:
    """Rich comes with the command line, and structlog imports what it finds of it: 4 MB that no server uses."""
    assert imported.isdisjoint({"rich.console", "rich.pretty", "pygments"})


def test_a_host_knows_no_secret_and_has_one_thread_for_arithmetic(calm: Server) -> None:
    """A model file is a program: there is nothing in its environment worth reading."""
    assert calm.process is not None
    for process in calm.processes():
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"SERVING_" not in environment
        assert b"OMP_NUM_THREADS=1" in environment
    host = calm.hosts()[0]
    assert Path(f"/proc/{host.pid}/cwd").readlink().parent == calm.state / "scratch"
    limits = Path(f"/proc/{host.pid}/limits").read_text()
    assert 0 < int(re.search(r"Max address space +(\d+)", limits)[1]) < 20 << 30  # type: ignore[index]
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    until(lambda: _niceness(host.pid) == {usual}, "the thread that serves, of the normal priority, being the only one")


def test_a_host_loads_with_low_priority(calm: Server) -> None:
    """What is being served goes first; the thread that will serve keeps its own priority."""
    others = calm.hosts()
    calm.drop("late", 1, constant(1, peculiar.HangsWhileLoading))
    calm.wait_state("late", 1, "LOADING")
    usual = os.getpriority(os.PRIO_PROCESS, 0)

    def loading() -> psutil.Process | None:
        for one in calm.hosts():  # also what checks graphs beside it
            with suppress(FileNotFoundError):
                if one not in others and _niceness(one.pid) == {usual, LOADING_NICENESS}:
                    return one
        return None

    host = until(loading, "a host with a thread of low priority beside the usual one")
    # in another session niceness would not count against the server: see sched_autogroup in sched(7)
    assert calm.process is not None
    assert os.getsid(host.pid) == os.getsid(calm.process.pid)
    assert os.getpgid(host.pid) != os.getpgid(calm.process.pid), "a terminal's signals are for the server alone"
    shutil.rmtree(calm.store / "late" / "1")
    calm.drop("late", 2, constant(2))
    calm.wait_active("late", 2)


def test_sigterm_turns_readiness_false_first_then_drains_then_exits_0(tmp_path: Path) -> None:
    """While the stop is announced, new connections are still taken; what is in flight at the end of it is answered."""
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True, SERVING_SERVER__LAME_DUCK_SECONDS="7") as server:
        assert server.process is not None
        children = server.processes()

        def is_leased() -> bool:
            return LEASED in server.client.get(server.url + "/metrics").text

        def is_refused() -> bool:
            try:
                connect(server.url).close()
            except ConnectionRefusedError:
                return True
            return False

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            with frozen(server.hosts()):
                short = pool.submit(server.predict, "m")
                until(is_leased, "a lease")
                server.process.send_signal(signal.SIGTERM)
                until(lambda: server.client.get(server.url + "/health/ready").status_code == 503, "readiness false")
            assert short.result().json()["predictions"] == [1.0]
            assert httpx.get(server.url + "/health/live", timeout=60).status_code == 200, "a new connection"
            with frozen(server.hosts()):
                long = pool.submit(server.predict, "m")
                until(is_leased, "another lease")
                until(is_refused, "the end of the announcement")
                assert not long.done()
            assert long.result().json()["predictions"] == [1.0], "in flight when the server stopped to listen"
        assert server.process.wait(20) == 0
        until(lambda: not any(child.is_running() for child in children), "the end of every child")


# Each is the first of a pair or the second; all pairs of equal ones in `make soak`: a server stops but once.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
PAIRS = [
    (signal.SIGINT, signal.SIGHUP),
    (signal.SIGQUIT, signal.SIGTERM),
    *(pytest.param(each, each, marks=pytest.mark.soak) for each in STOPPING),
]


@pytest.fixture
def heeded() -> Iterator[None]:
    """Where the suite runs under nohup or in the background it ignores some signals, and so would the server."""
    ignored = [each for each in STOPPING if signal.getsignal(each) is signal.SIG_IGN]
    for each in ignored:
        signal.signal(each, signal.SIG_DFL)
    yield
    for each in ignored:
        signal.signal(each, signal.SIG_IGN)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize(("sent", "hurrying"), PAIRS)
def test_signals_that_end_a_program_stop_it_in_order(
    tmp_path: Path, sent: signal.Signals, hurrying: signal.Signals
) -> None:
    """As SIGTERM does, and under traffic: requests are answered while the stop is announced; a second one hurries."""
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True, SERVING_SERVER__LAME_DUCK_SECONDS="600") as server:
        assert server.process is not None
        children = server.processes()
        with Traffic(server.url, "m", rate=100) as traffic:
            until(lambda: len(traffic.replies) > 20, "traffic")
            server.process.send_signal(sent)
            until(lambda: any(one.get("event") == "stopping" for one in server.log()), "the announcement of its stop")
            seen = len(traffic.replies)
            until(lambda: len(traffic.replies) > seen + 20, "traffic afterwards")
        assert server.client.get(server.url + "/health/ready").status_code == 503
        server.process.send_signal(hurrying)
        assert {reply.status for reply in traffic.replies} == {200}
        assert server.process.wait(20) == 0
        until(lambda: not any(child.is_running() for child in children), "the end of every child")
        said = next(one for one in server.log() if one.get("event") == "stopping")
        assert said["signal"] == sent.name


@pytest.mark.parametrize("workers", ["1", "2"])
def test_signals_that_come_while_a_line_is_logged_are_heeded(tmp_path: Path, workers: str) -> None:
    """The thread that a signal interrupts has the lock of the log: see `interrupted`."""
    with serving(tmp_path, entry=(INTERRUPTED,), imports_anew=False, SERVING_SERVER__WORKERS=workers) as server:
        assert server.process is not None
        server.process.send_signal(signal.SIGUSR1)
        assert server.process.wait(60) == 0
        said = [(one["event"], one["signal"]) for one in server.log() if "signal" in one and "worker" not in one]
    assert said == [("signal_ignored", "SIGUSR1"), ("stopping", "SIGTERM"), ("stopping_now", "SIGTERM")]


@pytest.mark.parametrize("sent", [signal.SIGUSR1, signal.SIGUSR2])
def test_signals_that_mean_nothing_here_are_logged_and_ignored(calm: Server, sent: signal.Signals) -> None:
    assert calm.process is not None
    with Traffic(calm.url, "m", rate=100) as traffic:
        calm.process.send_signal(sent)
        until(lambda: any(one.get("signal") == sent.name for one in calm.log()), "a line in the log")
        seen = len(traffic.replies)
        until(lambda: len(traffic.replies) > seen + 20, "traffic afterwards")
    assert {reply.status for reply in traffic.replies} == {200}


def test_nohup_keeps_a_server_alive_when_its_terminal_closes(calm: Server) -> None:
    assert calm.process is not None
    ignored = len([one for one in calm.log() if one.get("event") == "signal_ignored"])
    calm.process.send_signal(signal.SIGHUP)
    calm.process.send_signal(signal.SIGUSR1)  # which says that the other one has been dealt with
    until(
        lambda: len([one for one in calm.log() if one.get("event") == "signal_ignored"]) > ignored, "a line in the log"
    )
    assert not [one for one in calm.log() if one.get("event") == "stopping"]
    assert calm.predict("m").status_code == 200


def test_fail_fast_exits_with_the_reasons_when_nothing_can_be_served(tmp_path: Path) -> None:
    (tmp_path / "store" / "m").mkdir(parents=True)
    (tmp_path / "store" / "m" / "1.joblib").write_bytes(b"no model")
    Faults(tmp_path / "faults").arm("listing", "pause")  # until it is known to have started
    with armed(tmp_path, SERVING_SERVER__FAIL_FAST="true") as (server, faults):
        faults.disarm("listing")
        assert server.process is not None
        assert server.process.wait(30) == 1
    reasons = [one for one in server.log() if one.get("event") == "nothing_to_serve"]
    assert reasons[0]["model"] == "m"
    assert "format" in reasons[0]["reason"]


def test_two_servers_may_share_a_store(calm: Server, tmp_path: Path) -> None:
    """But not their state: test_faults_state.py."""
    others = calm.hosts()
    with serving(tmp_path, store=calm.store, wait_ready=True) as other:
        for version in (1, 2, 3):
            calm.drop("shared", version, constant(version))
            for server in (calm, other):
                server.wait_active("shared", version)
                assert server.predict("shared").json()["predictions"] == [float(version)]
        calm.operate("POST", "/models/shared/pin", {"version": "2"})
        calm.wait_active("shared", 2)
        assert other.active("shared") == "3", "pins belong to a server, not to the store"
    until(lambda: sum(one not in others for one in calm.hosts()) == 2, "only the pinned version and a standby left")


def test_memory_of_the_server_stays_below_its_bound(calm: Server) -> None:
    """The target is 90 MB after start; here only that nothing large has crept in."""
    assert calm.process is not None
    assert psutil.Process(calm.process.pid).memory_info().rss < 120 << 20


def test_a_full_disk_never_stops_serving(tmp_path: Path) -> None:
    """A state directory that takes no more bytes: the candidate fails with the reason and is tried again."""
    state_disk = tmp_path / "disk"
    state_disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", state_disk], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs a small file system of its own: {mounted.stderr.decode().strip()}")
    try:
        write_version(tmp_path / "store" / "m", 1, constant(1))
        server = Server(tmp_path, imports_anew=False)
        server.state = state_disk / "state"
        try:
            server.start(wait_ready=True)
            filler = state_disk / "filler"
            with filler.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
            server.drop("m", 2, constant(2, ballast_bytes=1 << 20))
            failed = server.wait_state("m", 2, "FAILED")
            assert "space" in failed["reason"]
            assert server.predict("m").json()["predictions"] == [1.0]
            assert server.operate("POST", "/models/m/pin", {"version": "1"}).status_code in (200, 503)
            filler.unlink()
            if server.get("/models/m/active")["pinned"]:
                server.operate("DELETE", "/models/m/pin")
            server.wait_active("m", 2)
        finally:
            server.client.close()
            server.kill()
    finally:
        subprocess.run(["umount", "-l", state_disk], check=False)
