"""A state database that is damaged, in the way, or of a later release: no decision is lost, or nothing newer goes live.

What the file goes through, byte by byte and kill by kill: tests/unit/lifecycle/test_recovery.py.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.armed import Faults
from tests.e2e.harness import TOKEN, Server, armed, constant, until

RUBBISH = b"this is no database" * 1000
SOUND = {"problem": None, "is_held": False}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Faults]]:
    """A server whose state is spoiled in every test; each test brings a model of its own."""
    with armed(tmp_path_factory.mktemp("written")) as (server, faults):
        yield server, faults


@pytest.fixture
def server(written: tuple[Server, Faults]) -> Iterator[Server]:
    """The server, running on a sound state: a test that failed does not take the others with it.

    Models are taken away at the end, so that no later start loads them.
    """
    server, faults = written
    assert server.process is not None
    if server.process.poll() is not None or server.get("/models")["state"]["is_held"]:
        faults.disarm("state-replaced")
        server.kill()
        for path in server.state.glob("state.sqlite*"):
            path.rmdir() if path.is_dir() else path.unlink()
        server.start()
    yield server
    models = [path for path in server.store.iterdir() if path.is_dir()]
    for model in models:
        shutil.rmtree(model)
    if server.process.poll() is None:
        server.operate("POST", "/refresh")
        for model in models:
            server.operate("POST", f"/v2/repository/models/{model.name}/unload")


def bring(server: Server, model: str) -> str:
    """Bring two versions of a model: 1 is active, 2 is in quarantine."""
    for version in (1, 2):
        server.drop(model, version, constant(version))
        server.wait_active(model, version)
    assert server.operate("POST", f"/models/{model}/rollback").status_code == 200
    server.wait_active(model, 1)
    return model


def database(server: Server) -> Path:
    return server.state / "state.sqlite"


def spoil(server: Server, *, has_copy: bool = True) -> None:
    """Leave rubbish where the database of a server that does not run was."""
    for name in ("state.sqlite-wal", "state.sqlite-shm", *(() if has_copy else ("state.sqlite.copy",))):
        (server.state / name).unlink(missing_ok=True)
    database(server).write_bytes(RUBBISH)


def answer(server: Server, model: str) -> float:
    return float(server.predict(model).json()["predictions"][0])


def state(server: Server) -> dict[str, object]:
    found: dict[str, object] = server.get("/models")["state"]
    return found


def command(server: Server, *arguments: str) -> str:
    environment = {"PATH": "/usr/bin:/bin", "SERVING_SECURITY__ADMIN_TOKEN": TOKEN, "PYTHONPATH": ":".join(sys.path)}
    line = [sys.executable, "-m", "serving", *arguments, "--url", server.url]
    done = subprocess.run(line, cwd=server.directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- damaged ---------------------------------------------------------------------------------------------------------


def test_a_damaged_state_is_replaced_by_its_copy(server: Server) -> None:
    model = bring(server, "copied")
    server.kill()
    spoil(server)
    server.start(wait_ready=True)
    assert answer(server, model) == 1.0
    server.wait_state(model, 2, "QUARANTINED")
    told = state(server)
    assert told["is_held"] is False
    assert "it was replaced by its copy of" in str(told["problem"])
    assert [path.read_bytes() for path in server.state.glob("state.sqlite.damaged-*")] == [RUBBISH]
    assert str(told["problem"]).startswith("state.sqlite is no database: it was replaced")
    server.drop(model, 3, constant(3))
    server.wait_active(model, 3)


def test_without_a_good_copy_nothing_newer_is_activated_until_an_operator_goes_on(server: Server) -> None:
    """A version that was in quarantine does not come back, nor does anything else; over a restart, too."""
    model = bring(server, "held")
    server.drop("unloaded", 1, constant(1))
    server.wait_active("unloaded", 1)
    assert server.operate("POST", "/v2/repository/models/unloaded/unload").status_code == 200
    server.kill()
    spoil(server, has_copy=False)
    server.drop("newcomer", 1, constant(1))
    server.drop(model, 4, constant(4))
    server.start(wait_ready=True)
    for is_started_again in (False, True):
        if is_started_again:
            server.stop()
            server.start(wait_ready=True)
        assert server.operate("POST", "/refresh").status_code == 200
        assert (server.active(model), answer(server, model)) == ("1", 1.0)
        told = state(server)
        assert told["is_held"] is True
        assert "pins and quarantines are lost" in str(told["problem"])
        assert "accept-state-loss" in str(told["problem"])
        waiting = server.version(model, 2)
        assert (waiting["state"], waiting["is_loaded"]) == ("DISCOVERED", False)
        assert "waits until that is accepted" in waiting["reason"]
        assert server.predict("newcomer").status_code == 503
        assert "nothing is activated" in server.get("/models/newcomer/active")["problem"]
        assert server.predict("unloaded").status_code == 503, "an operator has unloaded it"
        refused = server.operate("POST", f"/models/{model}/rollback")
        assert (refused.status_code, "no other valid version" in refused.json()["detail"]) == (409, True)
    assert "only what was active before answers" in command(server, "status")
    pinned = server.operate("POST", f"/models/{model}/pin", {"version": "4"})
    assert pinned.status_code == 200, "what an operator names may answer"
    server.wait_active(model, 4)
    assert answer(server, model) == 4.0
    assert server.operate("DELETE", f"/models/{model}/pin").status_code == 200
    assert server.active("newcomer") is None
    assert "activates versions again" in command(server, "accept-state-loss")
    server.wait_active("newcomer", 1)
    assert state(server) == SOUND
    story = server.get(f"/models/{model}/history")["history"]
    assert [one["event"] for one in story].count("accept-state-loss") == 1


def test_a_state_that_is_damaged_while_the_server_runs_costs_nothing(server: Server) -> None:
    """Memory has every decision; another server that is started on the same state touches nothing meanwhile."""
    model = bring(server, "running")
    database(server).write_bytes(RUBBISH)
    other = Server(server.directory, store=server.store)
    other.log_path = server.directory / "other.log"
    with pytest.raises(AssertionError, match="exited with 1"):
        other.start()
    other.client.close()
    assert "in use by another server" in other.log_path.read_text()
    assert "Traceback" not in other.log_path.read_text()
    assert database(server).read_bytes() == RUBBISH
    server.drop(model, 3, constant(3))
    server.wait_active(model, 3)
    until(
        lambda: server.operate("POST", f"/models/{model}/pin", {"version": "1"}).status_code == 200,
        "decisions being kept again",
    )
    server.kill()
    server.start(wait_ready=True)
    server.wait_active(model, 1)
    assert server.get(f"/models/{model}/active")["pinned"] == "1"
    assert server.version(model, 2)["is_quarantined"] is True
    assert state(server)["is_held"] is False


# --- it cannot be used now -------------------------------------------------------------------------------------------


def test_a_recovery_that_cannot_be_done_holds_everything_and_is_done_when_it_can(
    server: Server, written: tuple[Server, Faults]
) -> None:
    """The disk is full, then the server is killed in the middle of it: the next start recovers."""
    _, faults = written
    model = bring(server, "interrupted")
    server.kill()
    spoil(server)
    server.drop(model, 3, constant(3))
    faults.arm("state-replaced", "kill")
    with pytest.raises(AssertionError, match="exited with -9"):
        server.start()
    faults.arm("state-replaced", "ENOSPC")
    server.start(wait_ready=True)
    server.operate("POST", "/refresh")
    assert (server.active(model), answer(server, model)) == ("1", 1.0)
    told = state(server)
    assert told["is_held"] is True
    assert "No space left on device: pins and quarantines are not known" in str(told["problem"])
    faults.disarm("state-replaced")
    server.operate("POST", "/refresh")
    server.wait_active(model, 3)
    server.wait_state(model, 2, "QUARANTINED")
    assert state(server)["is_held"] is False
    # The names of what is active may be under way to their file just now.
    until(lambda: not [path.name for path in server.state.iterdir() if ".new" in path.name], "the end of what was new")


def test_what_is_no_file_holds_everything_until_it_is_taken_away(server: Server) -> None:
    """A FIFO, for which an open would wait."""
    model = bring(server, "blocked")
    server.stop()
    real = database(server).rename(server.directory / "elsewhere")
    os.mkfifo(database(server))
    server.drop(model, 3, constant(3))
    server.start(wait_ready=True)
    server.operate("POST", "/refresh")
    assert (server.active(model), answer(server, model)) == ("1", 1.0)
    assert state(server)["is_held"] is True
    assert server.operate("POST", "/accept-state-loss").status_code == 503
    assert server.operate("POST", f"/models/{model}/pin", {"version": "3"}).status_code == 503
    real.replace(database(server))  # in one step: with no file there, the server may take its copy
    server.operate("POST", "/refresh")
    server.wait_active(model, 3)
    server.wait_state(model, 2, "QUARANTINED")
    assert state(server) == SOUND


def test_a_state_of_a_later_release_stops_the_start(server: Server) -> None:
    """With one line, before any process is started; the file is not touched."""
    server.stop()
    connection = sqlite3.connect(database(server))
    connection.execute("PRAGMA user_version = 9")
    connection.commit()
    connection.close()
    before = (database(server).read_bytes(), database(server).stat().st_mtime_ns)
    offset = server.log_path.stat().st_size
    with pytest.raises(AssertionError, match="exited with 1"):
        server.start()
    told = server.log(offset)
    assert [one["event"] for one in told] == ["cannot_start"]
    assert "was written by a later release" in told[0]["reason"]
    assert b"Traceback" not in server.log_path.read_bytes()
    assert (database(server).read_bytes(), database(server).stat().st_mtime_ns) == before
