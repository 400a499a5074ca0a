"""Servers and workers are killed in every step of a rollout; what answered before goes on, and so does the rollout."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from peculiar import Slow

from serving.domain.rollout import RolloutPhase, RunningRollout
from serving.failpoints import Point
from tests.e2e.armed import Faults
from tests.e2e.harness import Server, armed, constant, serving, until, write_version
from tests.e2e.test_rollouts import QUICK, Traffic, rollout, running, wait_end

SLOW_ROWS = [[0.25, 77.0]]  # on which `Slow` takes longer than is fine, and other models do not


@pytest.fixture(scope="module")
def fated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Faults]]:
    """A server that dies in every test and is started again. Version 1 is always there.

    Answers of `m` may take long, as any may on a busy machine; those of `hurried` may not.
    """
    directory = tmp_path_factory.mktemp("fated")
    for model in ("m", "hurried"):
        write_version(directory / "store" / model, 1, constant(1))
    slo = {"SERVING_MODELS__HURRIED__ROLLOUT__SLO_SECONDS": "0.2"}
    with armed(directory, wait_ready=True, **slo, **QUICK) as (server, faults):
        yield server, faults


def die_and_come_back(server: Server, model: str, before: str) -> None:
    """Wait until the server has been killed; start it, and see that what answered before answers first."""
    assert server.process is not None
    assert server.process.wait(30) == -signal.SIGKILL
    offset = server.log_path.stat().st_size
    server.start()
    server.wait_active(model, before)
    active = [one["version"] for one in server.log(offset) if one.get("after") == "ACTIVE" and one["model"] == model]
    assert active[0] == before


@pytest.mark.parametrize("point", ["rollout-begun", "rollout-stepped"])
def test_kill_9_on_the_way_up(fated: tuple[Server, Faults], point: Point) -> None:
    server, faults = fated
    before = str(server.active("m"))
    newest = str(int(before) + 1)
    with Traffic(server, "m") as traffic:
        faults.arm(point, "kill")
        server.drop("m", newest, constant(int(newest)))
        die_and_come_back(server, "m", before)
        status = wait_end(server, "m", newest)
        assert server.active("m") == newest
    assert status.last is not None
    assert (status.last.end, status.last.new.bad) == ("promoted", 0)
    assert traffic.failures.keys() <= {("", 404), ("", 503)}, "only before anything was loaded"
    assert all(one.value == float(one.version) for one in traffic.replies if one.status == 200)


@pytest.mark.parametrize(("point", "version"), [("rollout-failed", 1001), ("rolled-back", 1002)])
def test_kill_9_on_the_way_back(fated: tuple[Server, Faults], point: Point, version: int) -> None:
    server, faults = fated
    before, newest = str(server.active("hurried")), str(version)
    with Traffic(server, "hurried", rows=lambda _: SLOW_ROWS) as traffic:
        faults.arm(point, "kill")
        server.drop("hurried", newest, constant(int(newest), Slow))
        die_and_come_back(server, "hurried", before)
        since = len(traffic.replies)
        status = wait_end(server, "hurried", newest)
        server.wait_state("hurried", newest, "QUARANTINED")
    assert status.last is not None
    assert status.last.end == "rolled-back"
    assert status.last.new.bad >= 2, "the evidence is still there"
    if point == "rolled-back":
        assert newest not in {one.version for one in traffic.asked_after(since)}
    (server.store / "hurried" / newest).rename(server.directory / newest)


# --- several workers, and clients that stay ---------------------------------------------------------------------------

KEYS = [f"user-{number}" for number in range(60)]
PLACES = [(RolloutPhase.CANARY, 1), (RolloutPhase.CANARY, 2), (RolloutPhase.BAKE, 1)]


def steer(server: Server, action: str) -> None:
    assert server.operate("POST", "/models/m/rollout", {"action": action}).status_code == 200


def ask(server: Server, key: str) -> str:
    """Ask over a connection of its own, so that any worker may answer; return the version."""
    address = urlsplit(server.url).netloc
    for _ in range(3):
        with (
            contextlib.closing(http.client.HTTPConnection(address, timeout=20)) as connection,
            contextlib.suppress(OSError, http.client.HTTPException),  # of a worker that has just been killed
        ):
            connection.request("POST", "/models/m/predict", b'{"instances": [[0.0, 0.0]]}', {"X-User": key})
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body
            return str(json.loads(body)["version"])
    raise AssertionError("no worker answers")


def ask_all(server: Server) -> dict[str, str]:
    return {key: ask(server, key) for key in KEYS}


def kill_a_worker(server: Server) -> None:
    """Kill a worker that serves, and wait for another one in its place."""

    def serving_ones() -> list[int] | None:
        with contextlib.suppress(httpx.TransportError):
            listed = server.get("/workers")["workers"]
            return [one["pid"] for one in listed] if {one["state"] for one in listed} == {"serving"} else None
        return None

    victim = until(serving_ones, "all workers serving")[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in (serving_ones() or [victim]), "another worker in its place")


def place(server: Server) -> tuple[RolloutPhase, int]:
    """Return where the rollout is."""

    def found() -> RunningRollout | None:
        with contextlib.suppress(httpx.TransportError):
            return running(server, "m")
        return None

    run = until(found, "a rollout")
    return run.phase, run.step


def go_on(server: Server) -> None:
    """Ask until the rollout has come to its next step, and hold it there."""
    before = place(server)
    steer(server, "resume")
    for key in itertools.cycle(KEYS):
        ask(server, key)
        if place(server) != before:
            steer(server, "hold")
            return


@pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux")
def test_clients_stay_with_their_version_while_workers_are_killed_in_every_step(tmp_path: Path) -> None:
    options = {**QUICK, "SERVING_SERVER__WORKERS": "2", "SERVING_ROLLOUT__STICKY": "header:X-User"}
    options["SERVING_ROLLOUT__BAKE_SECONDS"] = "3600"  # the old version keeps its part until the server is killed
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True, **options) as server:
        server.drop("m", 2, constant(2))
        place(server)
        steer(server, "hold")
        on_new: set[str] = set()
        for here in PLACES:
            if place(server) != here:
                go_on(server)
            assert place(server) == here
            first = ask_all(server)
            kill_a_worker(server)
            assert ask_all(server) == first, "a client was given another version"
            before, on_new = on_new, {key for key, version in first.items() if version == "2"}
            assert before < on_new, "a client went back while the share grew"
        assert 30 < len(on_new) < len(KEYS), "the version before keeps a part"
        run = running(server, "m")
        assert run is not None
        assert (run.new.bad, run.old.bad) == (0, 0)
        assert run.new.answers + run.old.answers > 6 * len(KEYS)
        server.kill()
        server.start(wait_ready=True)
        assert server.active("m") == "2"
        assert {*ask_all(server).values()} == {"2"}
        last = rollout(server, "m").last
        assert last is not None
        assert (last.version, last.end) == ("2", "promoted")
