"""Workers that are killed, hang, have no memory, or die again and again: the others go on, and a successor serves."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.harness import MATERIAL, TOKEN, Server, connect, constant, is_alive, serving, until, write_version
from tests.e2e.real_time import WHILE_WAITING, Clients
from tests.e2e.test_workers import answering, assert_sound

WORKER_SECONDS = 6  # longer than a busy machine makes a healthy worker stand
PATIENCE_SECONDS = 90.0
BETWEEN_SCRAPES = 0.02
DEADLY, STOPS = "666", "workers-stop"  # see odd_workers.py
Samples = dict[str, float]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("deaths")
    write_version(directory / "store" / "m", 1, answering(1))
    write_version(directory / "store" / "hosted", 1, constant(1))
    settings = {
        "SERVING_SERVER__WORKERS": "3",
        "SERVING_SERVER__WORKER_SECONDS": str(WORKER_SECONDS),
        "SERVING_CANDIDATE__RETRY_SECONDS": "300",
    }
    entry = (MATERIAL / "odd_workers.py",)
    with serving(directory, wait_ready=True, entry=entry, imports_anew=False, **settings) as server:
        server.wait_active("m", 1)
        server.wait_active("hosted", 1)
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    """The server of this module, all of its workers serving."""
    wait_workers(running, lambda workers: all(one["state"] == "serving" for one in workers))
    return running


@pytest.fixture
def version(server: Server) -> int:
    """A version of the model m that is not there yet."""
    return 1 + max(int(one["version"]) for one in server.model("m")["versions"])


def ask(server: Server, path: str) -> Any:
    """GET, again when the connection was a killed worker's."""

    def get() -> httpx.Response | None:
        with contextlib.suppress(httpx.TransportError):
            return server.client.get(server.url + path, headers={"Connection": "close"}, timeout=10)
        return None

    return until(get, f"an answer to {path}", PATIENCE_SECONDS)


def list_workers(server: Server) -> list[dict[str, Any]]:
    workers: list[dict[str, Any]] = ask(server, "/workers").json()["workers"]
    return workers


def wait_workers(server: Server, condition: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """Wait until the list of workers is as wanted, and return it."""
    return until(
        lambda: condition(workers := list_workers(server)) and workers, "the workers as wanted", PATIENCE_SECONDS
    )


def wait_successor(server: Server, index: int, pid: int) -> dict[str, Any]:
    """Wait until another process than `pid` serves as this worker."""
    found = wait_workers(server, lambda all_: all_[index]["state"] == "serving" and all_[index]["pid"] != pid)
    return found[index]


def await_swap(clients: Clients, version: int) -> None:
    until(lambda: any(one.version == version for one in clients.seen), "the swap", PATIENCE_SECONDS)


def await_traffic(clients: Clients) -> None:
    seen = len(clients.seen)
    until(lambda: len(clients.seen) > seen + 200, "traffic going on", PATIENCE_SECONDS)


def events(server: Server, name: str) -> list[dict[str, Any]]:
    return [one for one in server.log() if one.get("event") == name]


# --- hung -------------------------------------------------------------------------------------------------------------


def test_a_hung_worker_is_replaced_and_the_others_go_on(server: Server) -> None:
    hung = list_workers(server)[1]
    others = [one["pid"] for one in list_workers(server) if one["index"] != 1]
    with Clients(server.url, "m", pause_seconds=WHILE_WAITING) as clients:
        os.kill(hung["pid"], signal.SIGSTOP)
        successor = wait_successor(server, 1, hung["pid"])
        await_traffic(clients)
    assert successor["restarts"] == hung["restarts"] + 1
    assert [one["pid"] for one in list_workers(server) if one["index"] != 1] == others
    assert {one.status for one in clients.failures()} <= {0}
    assert len(clients.failures()) <= clients.count
    assert_sound(clients)
    killed = [one for one in events(server, "worker_killed") if one["pid"] == hung["pid"]]
    assert [one["reason"].startswith("its event loop has stood for") for one in killed] == [True]


def test_a_worker_that_stops_during_a_swap_holds_it_up_and_answers_nothing_old(server: Server, version: int) -> None:
    stopped = list_workers(server)[2]
    with Clients(server.url, "m", pause_seconds=WHILE_WAITING) as clients:
        os.kill(stopped["pid"], signal.SIGSTOP)
        server.drop("m", version, answering(version))
        await_swap(clients, version)
        with contextlib.suppress(ProcessLookupError):
            os.kill(stopped["pid"], signal.SIGCONT)
        wait_successor(server, 2, stopped["pid"])
        await_traffic(clients)
    assert_sound(clients)
    assert {one.status for one in clients.failures()} <= {0}


def test_a_worker_that_hangs_while_it_starts_holds_up_no_swap(server: Server, version: int) -> None:
    """It is stopped before its event loop runs, so that only its loads are waited for, which may take long."""
    before = list_workers(server)[0]
    (server.directory / STOPS).touch()
    os.kill(before["pid"], signal.SIGKILL)
    starter = wait_workers(server, lambda all_: all_[0]["pid"] not in (None, before["pid"]))[0]["pid"]
    until(lambda: psutil.Process(starter).status() == psutil.STATUS_STOPPED, "a worker that is stopped as it starts")
    (server.directory / STOPS).unlink()
    with Clients(server.url, "m", 4, WHILE_WAITING) as clients:
        server.drop("m", version, answering(version))
        await_swap(clients, version)
        waiting = list_workers(server)[0]
        assert (waiting["pid"], waiting["state"]) == (starter, "starting")
        os.kill(starter, signal.SIGCONT)
        wait_successor(server, 0, before["pid"])
        wait_workers(server, lambda all_: len({one["generation"] for one in all_}) == 1)
        await_traffic(clients)
    assert_sound(clients)


# --- out of memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_without_memory_for_a_version_is_replaced_and_the_others_swap(
    index: int, server: Server, version: int
) -> None:
    poor = list_workers(server)[index]
    limit = psutil.Process(poor["pid"]).memory_info().vms
    with Clients(server.url, "m", pause_seconds=WHILE_WAITING) as clients:
        resource.prlimit(poor["pid"], resource.RLIMIT_AS, (limit, limit))
        server.drop("m", version, answering(version))
        await_swap(clients, version)
        wait_successor(server, index, poor["pid"])
        await_traffic(clients)
    assert_sound(clients)
    assert server.active("m") == str(version)
    wait_workers(server, lambda all_: len({one["generation"] for one in all_}) == 1)
    reason = next(one for one in events(server, "worker_ended") if one["pid"] == poor["pid"])
    assert reason["how"] != "exit status 0"


# --- asked to end -----------------------------------------------------------------------------------------------------


ESTABLISHED = "01"  # see proc(5)
BODY = b'{"instances": [[0.0, 0.0]]}'


@contextlib.contextmanager
def half_sent_requests(server: Server) -> Iterator[list[socket.socket]]:
    """Give nine connections with a request each, half of which was read. Each worker has some of them."""
    head = b"POST /models/m/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(server.url)) for _ in range(9)]
        for one in connections:
            one.sendall(head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY[:9])
        until(lambda: not count_unread(server), "all of it being read")
        yield connections


def count_unread(server: Server) -> int:
    """Return how many connections have brought something that no worker has read."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    place = f":{urlsplit(server.url).port:04X}"  # of an address; then comes the state, and the bytes sent and received
    return sum(row[1].endswith(place) and row[3] == ESTABLISHED and int(row[4].split(":")[1], 16) > 0 for row in rows)


def finish_requests(connections: list[socket.socket]) -> None:
    """Send the rest of each request, and have all of them answered."""
    for one in connections:
        one.sendall(BODY[9:])
    assert [one.recv(1 << 16).split(b"\r\n")[0] for one in connections] == [b"HTTP/1.1 200 OK"] * len(connections)


def test_a_worker_that_is_asked_to_end_has_a_successor_and_is_no_death(server: Server) -> None:
    asked = list_workers(server)[1]
    with Clients(server.url, "m", pause_seconds=WHILE_WAITING) as clients:
        os.kill(asked["pid"], signal.SIGTERM)
        successor = wait_successor(server, 1, asked["pid"])
    assert clients.failures() == [], "its connections go on in the others"
    assert (successor["restarts"], successor["reason"]) == (asked["restarts"] + 1, None)
    ended = next(one for one in events(server, "worker_ended") if one["pid"] == asked["pid"])
    assert (ended["level"], ended["how"]) == ("info", "exit status 0")


def test_a_worker_that_was_asked_to_end_drains_what_it_reads(server: Server) -> None:
    """It is `draining` until the last body has arrived and was answered. Each worker has some of the connections."""
    leaving = list_workers(server)[2]
    with half_sent_requests(server) as connections:
        os.kill(leaving["pid"], signal.SIGTERM)
        wait_workers(server, lambda workers: workers[2]["state"] == "draining")
        finish_requests(connections)
    wait_successor(server, 2, leaving["pid"])


def test_the_end_of_the_service_does_not_hurry_a_worker_that_ends_already(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, answering(1))
    with serving(tmp_path, wait_ready=True, SERVING_SERVER__WORKERS="2") as server:
        assert server.process is not None
        wait_workers(server, lambda workers: all(one["state"] == "serving" for one in workers))
        leaving, other = list_workers(server)
        with half_sent_requests(server) as connections:
            os.kill(leaving["pid"], signal.SIGTERM)
            wait_workers(server, lambda workers: workers[0]["state"] == "draining")
            server.process.send_signal(signal.SIGTERM)
            until(lambda: [one for one in events(server, "stopping") if one.get("worker") == other["index"]], "the end")
            finish_requests(connections)
        assert server.process.wait(30) == 0
        assert events(server, "stopping_now") == []


# --- a deadly version -------------------------------------------------------------------------------------------------


def state_of(server: Server, version: str) -> dict[str, Any]:
    versions: list[dict[str, Any]] = ask(server, "/models/m").json()["versions"]
    return next((one for one in versions if one["version"] == version), {"state": "unknown"})


def test_a_version_that_kills_workers_is_refused_and_one_worker_never_sees_it(server: Server) -> None:
    before = list_workers(server)
    active = server.active("m")
    with Clients(server.url, "m", pause_seconds=WHILE_WAITING) as clients:
        server.drop("m", DEADLY, answering(2))
        until(lambda: state_of(server, DEADLY)["state"] == "FAILED", "the version refused", PATIENCE_SECONDS)
        after = wait_workers(server, lambda all_: all(one["state"] == "serving" for one in all_))
        await_traffic(clients)
    died = "worker 0 has ended while it loaded it; worker 1 has ended while it loaded it"
    assert died in state_of(server, DEADLY)["reason"]
    assert {one.version for one in clients.seen if one.status == 200} == {int(active or 0)}
    assert after[2]["pid"] == before[2]["pid"]
    assert [one["restarts"] for one in after] == [one["restarts"] + (one["index"] < 2) for one in before]
    ended = [one["how"] for one in events(server, "worker_ended") if one["pid"] in (before[0]["pid"], before[1]["pid"])]
    assert ended == ["SIGSEGV", "SIGSEGV"]


# --- the nursery ------------------------------------------------------------------------------------------------------


def find_nurseries(server: Server) -> list[psutil.Process]:
    """Return the processes that fork workers: the first one is the parent of a worker."""
    first = psutil.Process(list_workers(server)[0]["pid"]).parent()
    assert first is not None
    workers = {one["pid"] for one in list_workers(server)}
    spares = [child for child in first.children() if child.pid not in workers]
    return [first, *spares]


def test_a_killed_nursery_is_replaced_and_costs_no_worker(server: Server) -> None:
    before = list_workers(server)
    (nursery, spare) = until(lambda: len(found := find_nurseries(server)) == 2 and found, "a nursery and its spare")
    nursery.kill()
    until(lambda: not is_alive(nursery), "the end of the nursery")
    assert [one["pid"] for one in list_workers(server)] == [one["pid"] for one in before]
    with Clients(server.url, "m", pause_seconds=WHILE_WAITING) as clients:
        for index in range(3):
            os.kill(before[index]["pid"], signal.SIGKILL)
            successor = wait_successor(server, index, before[index]["pid"])
            assert psutil.Process(successor["pid"]).ppid() == spare.pid
    assert_sound(clients)
    (_, another) = until(lambda: len(found := find_nurseries(server)) == 2 and found, "another spare")
    assert another.pid not in (nursery.pid, spare.pid)


# --- counts -----------------------------------------------------------------------------------------------------------


def scrape(server: Server) -> Samples:
    """Return every counter and every bucket by its name and labels, as they are written, which is quick."""
    found = {}
    kind = ""
    for line in ask(server, "/metrics").text.splitlines():
        if line.startswith("# TYPE "):
            kind = line.rpartition(" ")[2]
        elif kind in ("counter", "histogram") and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            found[series] = float(value)
    return found


def test_a_second_signal_ends_a_service_with_a_worker_that_heeds_none(tmp_path: Path) -> None:
    with serving(tmp_path, SERVING_SERVER__WORKERS="2", SERVING_SERVER__DRAIN_SECONDS="600") as server:
        assert server.process is not None
        stopped = psutil.Process(list_workers(server)[0]["pid"])
        stopped.suspend()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: any(event.get("event") == "stopping" for event in server.log()), "the first signal")
        assert server.stop() == 0
        assert not is_alive(stopped)


def test_no_counter_ever_goes_back_while_workers_are_killed(server: Server) -> None:
    last: Samples = {}
    backwards: list[Any] = []
    scrapes = 0
    is_done = threading.Event()

    def watch() -> None:
        nonlocal scrapes
        while not is_done.is_set():
            found = scrape(server)
            backwards.extend((key, value, found.get(key)) for key, value in last.items() if found.get(key, -1) < value)
            last.update(found)
            scrapes += 1
            is_done.wait(BETWEEN_SCRAPES)

    watching = threading.Thread(target=watch)
    with Clients(server.url, "m", pause_seconds=WHILE_WAITING) as clients:
        watching.start()
        try:
            for index in (0, 1, 2, 1):
                pid = list_workers(server)[index]["pid"]
                before = scrapes
                os.kill(pid, signal.SIGKILL)
                wait_successor(server, index, pid)
                until(lambda before=before: scrapes > before + 2, "scrapes")
        finally:
            is_done.set()
            watching.join(60)
    assert backwards == []
    names = {series.partition("{")[0] for series in last}
    assert {"serving_requests_total", "serving_request_duration_seconds_bucket"} <= names
    assert {"serving_worker_requests_total", "serving_process_cpu_seconds_total"} <= names
    assert {one.status for one in clients.failures()} <= {0}
    assert gauges(server)["serving_workers"] == 3
    generations = {value for name, value in gauges(server).items() if name.startswith("serving_worker_generation")}
    assert generations == {list_workers(server)[0]["generation"]}


def gauges(server: Server) -> dict[str, float]:
    families = text_string_to_metric_families(ask(server, "/metrics").text)
    return {
        sample.name + str(sample.labels or ""): sample.value
        for family in families
        if family.type == "gauge"
        for sample in family.samples
    }


def test_what_dead_workers_counted_of_a_version_goes_with_the_version(server: Server, version: int) -> None:
    def names_version(one: int) -> bool:
        return any('model="m"' in series and f'version="{one}"' in series for series in scrape(server))

    server.drop("m", version, answering(version))
    server.wait_active("m", version)
    with Clients(server.url, "m", pause_seconds=WHILE_WAITING):
        for index in range(3):
            pid = list_workers(server)[index]["pid"]
            os.kill(pid, signal.SIGKILL)
            wait_successor(server, index, pid)
    assert names_version(version)
    for newer in (version + 1, version + 2):  # one version is kept as a standby
        server.drop("m", newer, answering(newer))
        server.wait_active("m", newer)
    until(lambda: not names_version(version), "the end of its series")


# --- again and again --------------------------------------------------------------------------------------------------


def test_workers_that_die_again_and_again_back_off_and_everything_says_so(server: Server) -> None:
    others = [one["pid"] for one in list_workers(server)[1:]]
    killed: set[int] = set()

    def kill_and_see() -> tuple[dict[str, Any], httpx.Response] | None:
        one = list_workers(server)[0]
        if one["pid"] and one["pid"] not in killed:
            killed.add(one["pid"])
            with contextlib.suppress(ProcessLookupError):
                os.kill(one["pid"], signal.SIGKILL)
        ready = ask(server, "/health/ready")
        says_so = str(ready.json()["reason"]).startswith("worker 0 does not serve:")
        return (one, ready) if one["state"] == "waiting" and says_so else None

    waiting, ready = until(kill_and_see, "a worker that waits, and says so", PATIENCE_SECONDS)
    assert waiting["pid"] is None
    assert waiting["reason"].startswith("SIGKILL")
    assert waiting["retry_at"] > waiting["started_at"]
    assert ready.status_code == 200
    assert [one["pid"] for one in list_workers(server)[1:]] == others
    told = events(server, "worker_waits")[-1]
    assert (told["worker"], told["level"], told["effect"]) == (0, "error", "2 of 3 workers serve")
    wait_workers(server, lambda workers: workers[0]["state"] == "serving")
    assert until(lambda: ask(server, "/health/ready").json()["reason"] is None, "no reason any more")


# --- the command ------------------------------------------------------------------------------------------------------


def test_serving_status_shows_the_workers(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving", "status", "--url", server.url],
        env={**os.environ, "SERVING_SECURITY__ADMIN_TOKEN": TOKEN},
        cwd=server.directory,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    start = lines.index("3 of 3 workers serve")
    found = [line.split()[:3] for line in lines[start + 2 : start + 5]]
    assert found == [[str(one["index"]), str(one["pid"]), "serving"] for one in list_workers(server)]


# --- the end ----------------------------------------------------------------------------------------------------------


def test_without_any_nursery_workers_go_on_and_the_service_ends_with_the_last_one(server: Server) -> None:
    """The last test of this server: it ends."""
    assert server.process is not None
    nurseries = until(lambda: len(found := find_nurseries(server)) == 2 and found, "a nursery and its spare")
    workers = [one["pid"] for one in list_workers(server)]
    for one in nurseries:
        one.suspend()
    for one in reversed(nurseries):  # the system lets a stopped group go on when its parent ends
        one.kill()
    reason = until(lambda: ask(server, "/health/ready").json()["reason"], "a reason")
    assert reason == "workers that end cannot be replaced until the service is started again"
    assert server.predict("m").status_code == 200
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    assert server.process.wait(60) == 1
    assert events(server, "no_worker_left")
