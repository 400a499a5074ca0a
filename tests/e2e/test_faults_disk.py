"""A disk that is full or forbids: the candidate fails with the reason and is tried again, and serving goes on."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator

import peculiar
import pytest

from serving.failpoints import POINTS, Point
from tests.e2e.armed import Faults
from tests.e2e.harness import Server, armed, constant, until, write_version
from tests.e2e.record import Record, Usage
from tests.e2e.traffic import Traffic

REASONS = {"ENOSPC": "No space left", "EACCES": "Permission denied"}
RESYNC = {"SERVING_STORE__RESYNC_SECONDS": "0.5", "SERVING_STORE__POLL_SECONDS": "0.2"}


@pytest.fixture(scope="module")
def ailing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Faults]]:
    directory = tmp_path_factory.mktemp("ailing")
    write_version(directory / "store" / "m", 1, constant(1))
    with armed(directory, wait_ready=True, SERVING_STORE__WATCH="events", **RESYNC) as (server, faults):
        yield server, faults


@pytest.fixture(autouse=True)
def disarmed(ailing: tuple[Server, Faults]) -> Iterator[None]:
    """Leave no fault to the next test, whatever became of this one."""
    yield
    for point in POINTS:
        ailing[1].disarm(point)


@pytest.fixture
def record(ailing: tuple[Server, Faults]) -> Iterator[Record]:
    """Traffic while the test runs; nothing that these faults do excuses anything."""
    server, _ = ailing
    with Traffic(server.url, "m", rate=100) as traffic:
        until(lambda: traffic.record.counts[200] > 10, "traffic")
        yield traffic.record
        seen = traffic.record.counts[200]
        until(lambda: traffic.record.counts[200] > seen + 10, "traffic going on")
    traffic.record.verify()
    assert server.client.get(server.url + "/health/ready").status_code == 200


def _next(server: Server) -> int:
    return int(server.active("m") or 0) + 1


@pytest.mark.parametrize("error", REASONS)
@pytest.mark.parametrize(("point", "nth"), [("before-staging", 1), ("cache-write", 1), ("cache-write", 2)])
def test_a_version_that_cannot_be_copied_is_tried_again(
    ailing: tuple[Server, Faults], record: Record, point: Point, nth: int, error: str
) -> None:
    server, faults = ailing
    version = _next(server)
    faults.arm(point, error, nth)
    server.drop("m", version, constant(version))
    failed = server.wait_state("m", version, "FAILED")
    assert REASONS[error] in failed["reason"]
    assert failed["retry_at"]
    assert str(server.directory) not in failed["reason"], "a path of the machine is nobody's business"
    assert server.active("m") == str(version - 1)
    faults.disarm(point)
    server.wait_active("m", version)


def test_an_evaluation_that_cannot_be_kept_costs_nothing_but_time(
    ailing: tuple[Server, Faults], record: Record
) -> None:
    server, faults = ailing
    version = _next(server)
    faults.arm("cache-write", "ENOSPC", 3)  # after the copy and its descriptor
    server.drop("m", version, constant(version))
    server.wait_active("m", version)
    assert faults.has_struck("cache-write")
    faults.disarm("cache-write")
    assert [one for one in server.log() if one.get("event") == "evaluation_not_kept"]


@pytest.mark.parametrize("error", REASONS)
def test_a_database_that_cannot_be_written_refuses_operators_and_nobody_else(
    ailing: tuple[Server, Faults], record: Record, error: str
) -> None:
    """What happened meanwhile is kept in memory and written when it can be."""
    server, faults = ailing
    version = _next(server)
    faults.arm("state-write", error)
    server.drop("m", version, constant(version))
    server.wait_active("m", version)
    refused = server.operate("POST", "/models/m/pin", {"version": str(version)})
    assert refused.status_code == 503
    assert server.get("/models/m/active")["pinned"] is None
    assert "serving_state_errors_total 0.0" not in server.client.get(server.url + "/metrics").text
    faults.disarm("state-write")
    assert server.operate("POST", "/models/m/pin", {"version": str(version)}).status_code == 200
    assert server.operate("DELETE", "/models/m/pin").status_code == 200
    story = server.get("/models/m/history?limit=100")["history"]
    assert (str(version), "ACTIVE") in {(one["version"], one["after"]) for one in story}


@pytest.mark.parametrize("error", ["EACCES", "EIO", "ESTALE"])
def test_a_store_that_cannot_be_read_is_not_empty(ailing: tuple[Server, Faults], record: Record, error: str) -> None:
    """Invariant 7, also for what a network file system says."""
    server, faults = ailing
    version = _next(server)
    faults.arm("listing", error)
    server.drop("m", version, constant(version))
    until(lambda: faults.has_struck("listing"), "a look at the store")
    until(lambda: server.get("/models")["store"]["is_available"] is False, "the store being missed")
    assert server.active("m") == str(version - 1)
    faults.disarm("listing")
    server.wait_active("m", version)


def test_a_watcher_whose_thread_has_died_is_replaced_by_the_next_resync(
    ailing: tuple[Server, Faults], record: Record
) -> None:
    """Invariant 6: also what an overflowing queue of events looks like, nobody is told of a change."""
    server, faults = ailing
    version = _next(server)
    log = server.log_path.stat().st_size
    faults.arm("event", "EIO")
    server.drop("m", version, constant(version))
    until(lambda: faults.has_struck("event"), "an event that ends the thread")
    faults.disarm("event")
    server.wait_active("m", version)
    until(lambda: any(one.get("event") == "watching" for one in server.log(log)), "another watcher")
    assert any(one.get("event") == "watcher_lost" for one in server.log(log))
    assert server.get("/models")["store"]["watch"] == "events"
    server.drop("m", version + 1, constant(version + 1))
    server.wait_active("m", version + 1)


def test_requests_wait_while_a_host_is_brought_back(ailing: tuple[Server, Faults], record: Record) -> None:
    """However long that takes within their deadline: none fails."""
    server, faults = ailing
    version = _next(server)
    server.drop("m", version, constant(version))
    server.wait_active("m", version)
    faults.arm("respawn", "pause")
    server.kill_hosts()
    until(lambda: faults.has_struck("respawn"), "the respawn")
    answered = record.counts[200]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.predict, "m")
        assert not waiting.done()
        faults.disarm("respawn")
        assert waiting.result().json()["predictions"] == [float(version)]
    until(lambda: record.counts[200] > answered, "those that waited")


def test_nothing_is_left_over(ailing: tuple[Server, Faults]) -> None:
    """Failing and trying again takes no descriptors, threads, processes or memory."""
    server, faults = ailing
    version = _next(server)
    server.drop("m", version, constant(version))
    server.wait_active("m", version)
    until(lambda: len(server.hosts()) == 2, "the hosts of the active version and of its standby, and no other")
    baseline = Usage.of(server)
    version = _next(server)
    faults.arm("cache-write", "ENOSPC")
    server.drop("m", version, constant(version, peculiar.Constant, ballast_bytes=1 << 20))
    log = server.log_path.stat().st_size
    until(lambda: sum(one.get("after") == "FAILED" for one in server.log(log)) >= 3, "three failures")
    faults.disarm("cache-write")
    server.wait_active("m", version)
    until(lambda: Usage.of(server).is_back_at(baseline), f"resources back at {baseline}, now {Usage.of(server)}")
