"""What is there after kill -9, and after worse. At each point of the road: test_faults_killed.py."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import psutil
import pytest

from tests.e2e.harness import Server, constant, is_alive, serving, until


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that dies in most tests and is started again; each test has a model of its own there."""
    with serving(tmp_path_factory.mktemp("mortal")) as server:
        yield server


def _kill_9(server: Server) -> None:
    """Kill the server alone: nothing is orphaned, the zygote and the hosts end by themselves."""
    children = server.processes()
    assert len(children) >= 2
    server.kill()
    until(lambda: not any(map(is_alive, children)), "their end")


def test_kill_9_of_the_zygote_costs_no_request(mortal: Server) -> None:
    """Its hosts die with it; another zygote is started, and the version comes back from the cache."""
    mortal.drop("forked", 1, constant(1))
    mortal.wait_active("forked", 1)
    zygote = psutil.Process(mortal.process.pid).children()[0]  # type: ignore[union-attr]
    hosts = mortal.hosts()
    zygote.kill()
    until(lambda: not any(map(is_alive, hosts)), "the end of its hosts")
    assert mortal.predict("forked").json()["predictions"] == [1.0]
    mortal.drop("forked", 2, constant(2))
    mortal.wait_active("forked", 2)


def test_kill_9_orphans_nothing_and_what_was_active_and_decided_outlives_it_without_the_store(mortal: Server) -> None:
    """Invariants 7, 11 and 13: an answer of 200 means that a decision is on the disk, and the cache has the bytes."""
    for version in (1, 2):
        for model in ("decided", "kept"):
            mortal.drop(model, version, constant(version))
        for model in ("decided", "kept"):
            mortal.wait_active(model, version)
    assert mortal.operate("POST", "/models/decided/rollback").status_code == 200
    _kill_9(mortal)
    away = mortal.directory / "away"
    mortal.store.rename(away)
    mortal.start(wait_ready=True)
    assert mortal.predict("kept").json() == {"model": "kept", "version": "2", "predictions": [2.0]}
    assert mortal.predict("decided").json() == {"model": "decided", "version": "1", "predictions": [1.0]}
    away.rename(mortal.store)
    mortal.drop("kept", 3, constant(3))
    mortal.wait_active("kept", 3)
    assert mortal.active("decided") == "1"
    assert mortal.version("decided", 2)["is_quarantined"] is True


def test_a_lost_state_costs_the_history_and_nothing_else(mortal: Server) -> None:
    """What becomes of a damaged one: test_faults_state.py."""
    mortal.drop("stored", 1, constant(1))
    mortal.wait_active("stored", 1)
    mortal.stop()
    shutil.rmtree(mortal.state)
    mortal.start(wait_ready=True)
    assert mortal.predict("stored").json()["predictions"] == [1.0]
    mortal.drop("stored", 2, constant(2))
    mortal.wait_active("stored", 2)
