"""Hosts that die, hang or are asked too much: the others never notice."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

import peculiar
import psutil
import pytest

from tests.e2e.harness import Server, constant, is_alive, serving, until, write_version
from tests.e2e.record import check
from tests.e2e.traffic import Traffic


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the usual settings; each test has a model of its own there."""
    with serving(tmp_path_factory.mktemp("usual")) as server:
        yield server


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits a short time for an answer; each test has a model of its own."""
    with serving(tmp_path_factory.mktemp("limited"), SERVING_SERVER__PREDICT_SECONDS="4.5") as server:
        yield server


def _hosts(server: Server, but: Collection[psutil.Process]) -> list[psutil.Process]:
    """Return the hosts that live, but those that are known."""
    return [host for host in server.hosts() if host not in but and is_alive(host)]


def _only_host(server: Server, but: Collection[psutil.Process]) -> psutil.Process | None:
    """Return the host that lives, when there is one beside those that are known."""
    found = _hosts(server, but)
    return found[0] if len(found) == 1 else None


def _killed(host: psutil.Process) -> list[psutil.Process]:
    """Kill a host; return its children, which the zygote inherits for as long as they take to end."""
    host.suspend()
    until(lambda: host.status() == psutil.STATUS_STOPPED, "its standing still: it forks nothing any more")
    children: list[psutil.Process] = host.children()
    host.kill()
    until(lambda: not psutil.pid_exists(host.pid), "its end")
    return children


def test_kill_9_of_a_serving_host_costs_no_request(usual: Server) -> None:
    """It is seen at once, brought back from the cache, and what was in flight is asked again."""
    others = usual.hosts()
    usual.drop("served", 1, constant(1))
    usual.wait_active("served", 1)
    with Traffic(usual.url, "served", rate=100) as traffic:
        for _ in range(3):
            host = until(lambda: _only_host(usual, others), "a host, and nothing that is about to end")
            seen = len(traffic.replies)
            others.extend(_killed(host))
            until(lambda seen=seen: len(traffic.replies) > seen + 20, "traffic going on")
    check(traffic.replies)
    respawned = [one for one in usual.log() if one.get("event") == "host_respawned" and one["model"] == "served"]
    assert len(respawned) == 3
    metrics = usual.client.get(usual.url + "/metrics").text
    assert 'serving_host_restarts_total{model="served"} 3.0' in metrics


def test_kill_9_of_a_replica_costs_no_request(tmp_path: Path) -> None:
    """The others answer until a whole new host is there; the old one ends then."""
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True, SERVING_ENGINE__REPLICAS="2") as server:
        with Traffic(server.url, "m", rate=100) as traffic:
            for _ in range(2):
                host = until(lambda: _whole(server, 2), "one host with one replica")
                (replica,) = host.children()
                seen = len(traffic.replies)
                replica.kill()
                until(lambda host=host: not psutil.pid_exists(host.pid), "the end of the old host")
                until(lambda seen=seen: len(traffic.replies) > seen + 20, "traffic going on")
            host = until(lambda: _whole(server, 2), "one host with one replica")
            host.kill()
            until(lambda host=host: not psutil.pid_exists(host.pid), "its end")
            until(lambda: _whole(server, 2), "another host with one replica")
        check(traffic.replies)

        def count_respawned() -> int:
            return len([one for one in server.log() if one.get("event") == "host_respawned"])

        until(lambda: count_respawned() >= 3, "the last one being noted")
        assert count_respawned() == 3


def _whole(server: Server, processes: int) -> psutil.Process | None:
    """Return the only host when it has as many processes as it should."""
    with contextlib.suppress(psutil.NoSuchProcess):
        hosts = server.hosts()
        if len(hosts) == 1 and len(hosts[0].children()) == processes - 1:
            return hosts[0]
    return None


def test_kill_9_of_a_loading_host_is_tried_again_once(usual: Server) -> None:
    known = usual.hosts()
    usual.drop("loading", 1, constant(1, peculiar.SlowToLoad))
    usual.wait_state("loading", 1, "LOADING")
    host = until(lambda: _only_host(usual, known), "a host, and nothing that is about to end")
    host.kill()
    usual.wait_active("loading", 1)

    known = usual.hosts()
    usual.drop("loading", 2, constant(2, peculiar.HangsWhileLoading))
    for _ in range(2):
        usual.wait_state("loading", 2, "LOADING")
        (newest,) = until(lambda: _hosts(usual, known), "one more host")
        known.extend(_killed(newest))
    refused = usual.wait_state("loading", 2, "REJECTED")
    assert "killed" in refused["reason"]
    assert usual.active("loading") == "1"


def test_a_request_that_crashes_its_host_does_not_fail_its_neighbours(usual: Server) -> None:
    """Invariant 12: the poison is told when its host has died twice of it alone; everybody else is answered."""
    usual.drop("poisoned", 1, constant(1, peculiar.Suicidal))
    usual.wait_active("poisoned", 1)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        poison = pool.submit(usual.predict, "poisoned", [[13.0, 0.0]])
        good = [pool.submit(usual.predict, "poisoned", [[0.0, 0.0]]) for _ in range(6)]
        assert poison.result().status_code == 503
        assert poison.result().headers["retry-after"]
        assert {future.result().status_code for future in good} == {200}
    assert until(lambda: usual.predict("poisoned").status_code == 200, "the model answering again")


def test_a_request_past_its_deadline_is_told_so_and_the_stuck_host_replaced(limited: Server) -> None:
    limited.drop("stuck", 1, constant(1, peculiar.Slow))
    limited.wait_active("stuck", 1)
    late = limited.predict("stuck", [[50.0, 77.0]])
    assert late.status_code == 504
    assert "4.5 s" in late.json()["detail"]
    assert until(lambda: limited.predict("stuck").status_code == 200, "another host")


def test_a_host_that_is_stopped_while_it_answers_is_replaced(limited: Server) -> None:
    others = limited.hosts()
    limited.drop("stopped", 1, constant(1))
    limited.wait_active("stopped", 1)
    host = until(lambda: _only_host(limited, others), "its host, and nothing that is about to end")
    host.suspend()
    assert limited.predict("stopped").status_code == 504
    assert until(lambda: limited.predict("stopped").status_code == 200, "another host")
    until(lambda: not is_alive(host), "the end of the stopped one")


def test_a_full_queue_sheds_with_retry_after(tmp_path: Path) -> None:
    """Two requests take the queue for as long as the host stands still."""
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True, SERVING_SERVER__MAX_QUEUE="2") as server:
        host = until(lambda: _only_host(server, ()), "its host, and nothing that is about to end")
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            host.suspend()
            slow = [pool.submit(server.predict, "m") for _ in range(2)]
            until(lambda: 'serving_leases{model="m",version="1"} 2.0' in _metrics(server), "both under way")
            shed = server.predict("m")
            host.resume()
            assert [future.result().status_code for future in slow] == [200, 200]
        assert shed.status_code == 503
        assert int(shed.headers["retry-after"]) >= 1


def _metrics(server: Server) -> str:
    return server.client.get(server.url + "/metrics").text
