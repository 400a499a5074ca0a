"""What is there after kill -9, and after worse. At each point of the road: test_faults_killed.py."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.e2e.harness import constant, serving, write_version


def test_kill_9_at_an_operators_decision_keeps_it(tmp_path: Path) -> None:
    """Invariants 11 and 13: an answer of 200 means that the decision is on the disk."""
    for version in (1, 2):
        write_version(tmp_path / "store" / "m", version, constant(version))
    with serving(tmp_path, wait_ready=True) as server:
        server.wait_active("m", 2)
        assert server.operate("POST", "/models/m/rollback").status_code == 200
        server.kill()
        server.start(wait_ready=True)
        server.wait_active("m", 1)
        assert server.version("m", 2)["is_quarantined"] is True


def test_a_start_without_the_store_serves_what_was_active_from_the_cache(tmp_path: Path) -> None:
    """Invariants 7 and 13."""
    for version in (1, 2):
        write_version(tmp_path / "store" / "m", version, constant(version))
    with serving(tmp_path, wait_ready=True) as server:
        server.wait_active("m", 2)
        server.kill()
        server.store.rename(tmp_path / "away")
        server.start(wait_ready=True)
        assert server.predict("m").json() == {"model": "m", "version": "2", "predictions": [2.0]}
        (tmp_path / "away").rename(server.store)
        server.drop("m", 3, constant(3))
        server.wait_active("m", 3)


def test_a_damaged_or_lost_state_costs_the_history_and_nothing_else(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True) as server:
        server.stop()
        (server.state / "state.sqlite").write_bytes(b"this is no database" * 1000)
        for name in ("state.sqlite-wal", "state.sqlite-shm"):
            (server.state / name).unlink(missing_ok=True)
        server.start(wait_ready=True)
        assert server.predict("m").json()["predictions"] == [1.0]
        assert server.operate("POST", "/models/m/pin", {"version": "1"}).status_code == 503
        server.stop()
        shutil.rmtree(server.state)
        server.start(wait_ready=True)
        server.drop("m", 2, constant(2))
        server.wait_active("m", 2)
