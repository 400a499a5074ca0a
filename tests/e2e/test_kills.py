"""kill -9 at each stage of the road, and what is there afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import peculiar
import pytest

from tests.e2e.harness import Server, constant, serving, until, write_version

STAGES = ["STAGING", "LOADING", "VALIDATING", "WARMING", "READY", "ACTIVE", "DRAINING"]


def _has_reached(server: Server, version: int, state: str, offset: int) -> bool:
    return any(
        one.get("event") == "transition" and one.get("version") == str(version) and one.get("after") == state
        for one in server.log(offset)
    )


@pytest.mark.parametrize("stage", STAGES)
def test_kill_9_of_the_server_at_each_stage(tmp_path: Path, stage: str) -> None:
    """Invariant 13: whatever was under way, the next start serves the aspired version, and no process is left."""
    write_version(tmp_path / "store" / "m", 1, constant(1))
    kind: Any = peculiar.SlowToAnswer if stage in ("VALIDATING", "WARMING") else peculiar.Constant
    if stage == "LOADING":
        kind = peculiar.SlowToLoad
    ballast = 64 << 20 if stage == "STAGING" else 0
    with serving(tmp_path, wait_ready=True, SERVING_STORE__KEEP_WARM="0") as server:
        offset = server.log_path.stat().st_size
        server.drop("m", 2, constant(2, kind, ballast_bytes=ballast))
        watched = 1 if stage == "DRAINING" else 2
        until(lambda: _has_reached(server, watched, stage, offset), f"version {watched} in {stage}", every=0.001)
        children = server.processes()
        server.kill()
        until(lambda: not any(child.is_running() for child in children), "the end of every child", 5)
        server.start(wait_ready=True)
        server.wait_active("m", 2)
        assert server.predict("m").json()["predictions"] == [2.0]
        assert server.model("m")["last_failure"] is None
        leftovers = [path for path in (server.state / "cache" / "tmp").glob("*") if path.is_file()]
        assert not leftovers, "what a killed server left half-copied is removed by the next one"


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
