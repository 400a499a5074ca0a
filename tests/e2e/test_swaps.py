"""Swaps under traffic: nobody notices."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

import joblib
import peculiar

from tests.e2e.harness import Server, constant, serving, until, write_version
from tests.e2e.record import Usage, check
from tests.e2e.traffic import Traffic

SWAPS = 200


def test_two_hundred_swaps_under_load_among_every_kind_of_bad_version(tmp_path: Path) -> None:
    """Invariants 1, 4 and 5: no request fails, each answer is its version's own, and nothing is left behind."""
    settings = {"SERVING_CANDIDATE__TIMEOUT_SECONDS": "3", "SERVING_STORE__SETTLE_SECONDS": "0.05"}
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True, **settings) as server:
        for version in (2, 3):  # the standby is part of the baseline
            server.drop("m", version, constant(version))
            server.wait_active("m", version)
        baseline = Usage.of(server)
        version = 3
        with Traffic(server.url, "m") as traffic:
            for swap in range(SWAPS):
                version += 1
                if swap % 10 == 9:
                    _drop_something_bad(server, version, swap // 10)
                    version += 1
                server.drop("m", version, constant(version))
                server.wait_active("m", version)
        check(traffic.replies)
        assert len({reply.version for reply in traffic.replies}) > (version - 3) / 2
        assert server.model("m")["active"]["version"] == str(version)
        until(
            lambda: Usage.of(server).is_back_at(baseline), f"resources back at {baseline}, now {Usage.of(server)}", 20
        )


def _drop_something_bad(server: Server, version: int, number: int) -> None:
    """Drop a version that must not go live; it is still under way when the next one comes."""
    directory = server.store / "m"
    kinds = [
        peculiar.CrashesWhileLoading,
        peculiar.HangsWhileLoading,
        peculiar.SlowToLoad,
        peculiar.NotFinite,
        peculiar.ExitsWhileLoading,
    ]
    choice = number % (len(kinds) + 2)
    if choice < len(kinds):
        write_version(directory, version, constant(version, kinds[choice]))
        return
    whole = directory / ".whole"
    joblib.dump(constant(version), whole)
    raw = whole.read_bytes()
    whole.unlink()
    half = raw[: len(raw) // 2] if choice == len(kinds) else bytes(len(raw))
    (directory / f"{version}.joblib").write_bytes(half)


def test_a_request_of_three_seconds_ends_on_the_version_it_began_on(tmp_path: Path) -> None:
    """Invariants 1 and 4: version 1 is drained, not torn down, while version 3 answers everybody else."""
    write_version(tmp_path / "store" / "m", 1, constant(1, peculiar.Slow))
    with serving(tmp_path, wait_ready=True, SERVING_STORE__KEEP_WARM="0") as server:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            slow = pool.submit(server.predict, "m", [[3.0, 77.0]])
            until(lambda: _leases(server) == 1, "the slow request being under way")
            server.drop("m", 2, constant(2))
            server.wait_active("m", 2)
            assert server.predict("m").json() == {"model": "m", "version": "2", "predictions": [2.0]}
            assert server.version("m", 1)["state"] == "DRAINING"
            assert not slow.done()
            answer = slow.result()
        assert answer.json() == {"model": "m", "version": "1", "predictions": [1.0]}
        server.wait_state("m", 1, "RETIRED")
        until(lambda: len(server.hosts()) == 1, "the old host's end")


def _leases(server: Server) -> float:
    text = server.client.get(server.url + "/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("serving_leases{"))


def test_swapping_ten_times_a_second_ends_at_the_newest(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, constant(1))
    aside = tmp_path / "aside"
    for version in range(2, 42):
        write_version(aside, version, constant(version))
    with serving(tmp_path, wait_ready=True) as server, Traffic(server.url, "m") as traffic:
        for version in range(2, 42):
            (aside / str(version)).rename(server.store / "m" / str(version))
            until(lambda: len(traffic.replies), "traffic")
            target = len(traffic.replies) + 20  # a tenth of a second of traffic
            until(lambda target=target: len(traffic.replies) >= target, "a tenth of a second")
        server.wait_active("m", 41)
        assert len(server.hosts()) <= 5
    check(traffic.replies)
