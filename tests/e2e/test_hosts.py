"""Hosts that die, hang or are asked too much: the others never notice."""

from __future__ import annotations

import concurrent.futures
import contextlib
from pathlib import Path

import peculiar
import psutil

from tests.e2e.harness import Server, constant, serving, until, write_version
from tests.e2e.record import check
from tests.e2e.traffic import Traffic


def test_kill_9_of_a_serving_host_costs_no_request(tmp_path: Path) -> None:
    """It is seen at once, brought back from the cache, and what was in flight is asked again."""
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True) as server:
        with Traffic(server.url, "m") as traffic:
            for _ in range(5):
                (host,) = until(lambda: [one for one in server.hosts() if one.status() != "zombie"], "a host")
                seen = len(traffic.replies)
                host.kill()
                until(lambda host=host: not psutil.pid_exists(host.pid), "its end")
                until(lambda seen=seen: len(traffic.replies) > seen + 50, "traffic going on")
        check(traffic.replies)
        assert len([one for one in server.log() if one.get("event") == "host_respawned"]) == 5
        metrics = server.client.get(server.url + "/metrics").text
        assert 'serving_host_restarts_total{model="m"} 5.0' in metrics


def test_kill_9_of_a_replica_costs_no_request(tmp_path: Path) -> None:
    """The others answer until a whole new host is there; the old one ends then."""
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True, SERVING_ENGINE__REPLICAS="2") as server:
        with Traffic(server.url, "m") as traffic:
            for _ in range(3):
                host = until(lambda: _whole(server, 2), "one host with one replica")
                (replica,) = host.children()
                seen = len(traffic.replies)
                replica.kill()
                until(lambda host=host: not psutil.pid_exists(host.pid), "the end of the old host")
                until(lambda seen=seen: len(traffic.replies) > seen + 50, "traffic going on")
            host = until(lambda: _whole(server, 2), "one host with one replica")
            host.kill()
            until(lambda host=host: not psutil.pid_exists(host.pid), "its end")
            until(lambda: _whole(server, 2), "another host with one replica")
        check(traffic.replies)
        assert len([one for one in server.log() if one.get("event") == "host_respawned"]) == 4


def _whole(server: Server, processes: int) -> psutil.Process | None:
    """Return the only host when it has as many processes as it should."""
    with contextlib.suppress(psutil.NoSuchProcess):
        hosts = server.hosts()
        if len(hosts) == 1 and len(hosts[0].children()) == processes - 1:
            return hosts[0]
    return None


def test_kill_9_of_a_loading_host_is_tried_again_once(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.drop("m", 1, constant(1, peculiar.SlowToLoad))
        server.wait_state("m", 1, "LOADING")
        (host,) = until(server.hosts, "a host")
        host.kill()
        server.wait_active("m", 1)

        server.drop("m", 2, constant(2, peculiar.SlowToLoad))
        for _ in range(2):
            server.wait_state("m", 2, "LOADING")
            known = until(lambda: len(server.hosts()) == 2 and server.hosts(), "a second host")
            newest = max(known, key=lambda one: one.pid)
            newest.kill()
            until(lambda newest=newest: not psutil.pid_exists(newest.pid), "its end")
        refused = server.wait_state("m", 2, "REJECTED")
        assert "killed" in refused["reason"]
        assert server.active("m") == "1"


def test_a_request_that_crashes_its_host_does_not_fail_its_neighbours(tmp_path: Path) -> None:
    """Invariant 12: the poison is told when its host has died twice of it alone; everybody else is answered."""
    write_version(tmp_path / "store" / "m", 1, constant(1, peculiar.Suicidal))
    with serving(tmp_path, wait_ready=True) as server, concurrent.futures.ThreadPoolExecutor(8) as pool:
        poison = pool.submit(server.predict, "m", [[13.0, 0.0]])
        good = [pool.submit(server.predict, "m", [[0.0, 0.0]]) for _ in range(6)]
        assert poison.result().status_code == 503
        assert poison.result().headers["retry-after"]
        assert {future.result().status_code for future in good} == {200}
        assert until(lambda: server.predict("m").status_code == 200, "the model answering again")


def test_a_request_past_its_deadline_is_told_so_and_the_stuck_host_replaced(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, constant(1, peculiar.Slow))
    with serving(tmp_path, wait_ready=True, SERVING_SERVER__PREDICT_SECONDS="0.5") as server:
        late = server.predict("m", [[50.0, 77.0]])
        assert late.status_code == 504
        assert "0.5 s" in late.json()["detail"]
        assert until(lambda: server.predict("m").status_code == 200, "another host")


def test_a_full_queue_sheds_with_retry_after(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, constant(1, peculiar.Slow))
    settings = {"SERVING_SERVER__MAX_QUEUE": "2"}
    with serving(tmp_path, wait_ready=True, **settings) as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(server.predict, "m", [[1.0, 77.0]]) for _ in range(2)]
        until(lambda: "2.0" in _leases(server.client.get(server.url + "/metrics").text), "both under way")
        shed = server.predict("m")
        assert shed.status_code == 503
        assert int(shed.headers["retry-after"]) >= 1
        assert [future.result().status_code for future in slow] == [200, 200]


def _leases(text: str) -> str:
    return " ".join(line for line in text.splitlines() if line.startswith("serving_leases{"))
