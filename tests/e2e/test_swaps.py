"""Swaps under traffic: nobody notices."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Collection, Iterator
from pathlib import Path

import joblib
import peculiar
import psutil
import pytest

from tests.e2e.frozen import frozen
from tests.e2e.harness import Server, constant, serving, until, write_version
from tests.e2e.record import Usage, check
from tests.e2e.traffic import Traffic

BAD_EACH = 4  # swaps
KINDS = (
    peculiar.CrashesWhileLoading,
    peculiar.HangsWhileLoading,
    peculiar.SlowToLoad,
    peculiar.NotFinite,
    peculiar.ExitsWhileLoading,
)
HALF, ZEROS = len(KINDS), len(KINDS) + 1  # of a file
SWAPS = BAD_EACH * (ZEROS + 1)
SOAKING = 700 // SWAPS  # times as many


def test_swaps_under_load_among_every_kind_of_bad_version(tmp_path: Path) -> None:
    """Invariants 1, 4 and 5: no request fails, each answer is its version's own, and nothing is left behind."""
    assert_nobody_notices(SWAPS, tmp_path)


@pytest.mark.soak
def test_hundreds_of_swaps_under_load_among_every_kind_of_bad_version(tmp_path: Path) -> None:
    assert_nobody_notices(SOAKING * SWAPS, tmp_path)


def assert_nobody_notices(swaps: int, tmp_path: Path) -> None:
    settings = {"SERVING_CANDIDATE__TIMEOUT_SECONDS": "3", "SERVING_STORE__SETTLE_SECONDS": "0.05"}
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True, **settings) as server:
        for version in (2, 3):  # the standby is part of the baseline
            server.drop("m", version, constant(version))
            server.wait_active("m", version)
        baseline = Usage.of(server)
        version = 3
        with Traffic(server.url, "m", rate=100) as traffic:
            for swap in range(swaps):
                version += 1
                if swap % BAD_EACH == BAD_EACH - 1:
                    _drop_something_bad(server, version, swap // BAD_EACH)
                    version += 1
                server.drop("m", version, constant(version))
                _wait_answering(traffic, version)
        check(traffic.replies)
        assert len({reply.version for reply in traffic.replies}) >= swaps
        assert server.model("m")["active"]["version"] == str(version)
        until(
            lambda: Usage.of(server).is_back_at(baseline), f"resources back at {baseline}, now {Usage.of(server)}", 20
        )


def _wait_answering(traffic: Traffic, version: int) -> None:
    """Wait until the clients are answered by a version: they need not ask the server for it, which is busy enough."""
    until(lambda: traffic.replies and traffic.replies[-1].version == str(version), f"answers of version {version}")


def _drop_something_bad(server: Server, version: int, number: int) -> None:
    """Drop a version that must not go live; it is still under way when the next one comes."""
    directory = server.store / "m"
    choice = number % (ZEROS + 1)
    if choice < len(KINDS):
        write_version(directory, version, constant(version, KINDS[choice]))
        return
    whole = directory / ".whole"
    joblib.dump(constant(version), whole)
    raw = whole.read_bytes()
    whole.unlink()
    half = raw[: len(raw) // 2] if choice == HALF else bytes(len(raw))
    (directory / f"{version}.joblib").write_bytes(half)


@pytest.fixture(scope="module")
def draining(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that keeps no standby, so that every swap drains a version; each test has a model of its own there."""
    with serving(tmp_path_factory.mktemp("draining"), SERVING_STORE__KEEP_WARM="0") as server:
        yield server


def test_a_request_under_way_ends_on_the_version_it_began_on(draining: Server) -> None:
    """Invariants 1 and 4: version 1 is drained, not torn down, while version 2 answers everybody else."""
    others = draining.hosts()
    draining.drop("slow", 1, constant(1))
    draining.wait_active("slow", 1)
    old = [host for host in draining.hosts() if host not in others]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with frozen(old):
            slow = pool.submit(draining.predict, "slow")
            until(lambda: _leases(draining) == 1, "the slow request being under way")
            draining.drop("slow", 2, constant(2))
            draining.wait_active("slow", 2)
            assert draining.predict("slow").json() == {"model": "slow", "version": "2", "predictions": [2.0]}
            draining.wait_state("slow", 1, "DRAINING")
            assert not slow.done()
        answer = slow.result()
    assert answer.json() == {"model": "slow", "version": "1", "predictions": [1.0]}
    draining.wait_state("slow", 1, "RETIRED")
    until(lambda: _more_hosts(draining, others) == 1, "the old host's end")


def _more_hosts(server: Server, others: Collection[psutil.Process]) -> int:
    return sum(host not in others for host in server.hosts())


def _leases(server: Server) -> float:
    text = server.client.get(server.url + "/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith('serving_leases{model="slow"'))


def test_swapping_ten_times_a_second_ends_at_the_newest(draining: Server, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    newest = 21
    for version in range(2, newest + 1):
        write_version(aside, version, constant(version))
    others = draining.hosts()
    draining.drop("fast", 1, constant(1))
    draining.wait_active("fast", 1)
    with Traffic(draining.url, "fast") as traffic:
        for version in range(2, newest + 1):
            (aside / str(version)).rename(draining.store / "fast" / str(version))
            until(lambda: len(traffic.replies), "traffic")
            target = len(traffic.replies) + 20  # a tenth of a second of traffic
            until(lambda target=target: len(traffic.replies) >= target, "a tenth of a second")
        draining.wait_active("fast", newest)
        assert _more_hosts(draining, others) <= 4, "the active one, two candidates and one that drains"
    check(traffic.replies)
