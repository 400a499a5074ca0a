"""Workers, hosts, nursery, zygote and supervisor are killed, at chosen points and at any, while versions are swapped.

In real time no client may ever see an older version again, whatever has died in between.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from serving.failpoints import POINTS, Point
from tests.e2e.armed import Faults
from tests.e2e.harness import Server, armed, constant, until, write_version
from tests.e2e.real_time import Clients, Seen, find_going_back
from tests.e2e.test_workers import answering

SWAPS = 200  # in `make soak`
WORKERS = 3
CLIENTS = 6  # of each model
PAUSE_SECONDS = 0.01  # of each of them, after an answer
MODELS = {"compiled": answering, "hosted": constant}
IN_WORKERS: tuple[Point, ...] = ("worker-loaded", "worker-prepared", "worker-told", "worker-draining")
IN_SUPERVISOR = tuple(
    one
    for one in (*(point for point in POINTS if point.startswith("worker")), "activated", "draining", "retired")
    if one not in IN_WORKERS
)


@dataclass
class Excuse:
    """What a fault makes unavoidable for what was under way in these seconds (monotonic clock)."""

    model: str | None
    statuses: tuple[int, ...]
    most: int
    began_at: float
    ended_at: float = float("inf")
    used: int = 0

    def covers(self, model: str, seen: Seen) -> bool:
        """Whether it excuses this answer, among not more than `most`."""
        return (
            self.model in (None, model)
            and seen.status in self.statuses
            and seen.sent_at <= self.ended_at
            and seen.arrived_at >= self.began_at
            and self.used < self.most
        )


@dataclass
class Scene:
    """One server with faults, its clients, and what was done to it."""

    server: Server
    faults: Faults
    clients: dict[str, Clients] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MODELS, 1))
    excuses: list[Excuse] = field(default_factory=list)

    def swap(self) -> None:
        """Put the next version of each model into the store, and wait until it answers."""
        self.drop()
        self.settle()

    def drop(self) -> None:
        """Put the next version of each model into the store."""
        for model, make in MODELS.items():
            self.newest[model] += 1
            self.server.drop(model, self.newest[model], make(self.newest[model]))

    def settle(self) -> None:
        """Wait until the newest version of each model answers."""
        for model, version in self.newest.items():
            until(
                lambda model=model, version=version: self.asked(model) == str(version), f"version {version} of {model}"
            )

    def asked(self, model: str) -> str | None:
        """Return the active version; None if the worker that was asked has died."""
        with contextlib.suppress(httpx.TransportError):
            return self.server.active(model)
        return None

    def workers(self) -> list[int]:
        """Return the process ids of the workers that serve, once all do."""

        def found() -> list[int] | None:
            with contextlib.suppress(httpx.TransportError):
                workers = self.server.get("/workers")["workers"]
                return [one["pid"] for one in workers] if {one["state"] for one in workers} == {"serving"} else None
            return None

        return until(found, "all workers serving")

    @contextlib.contextmanager
    def excuse(self, *statuses: int, most: int = 1 << 30, model: str | None = None) -> Iterator[None]:
        """While the block lasts, and until every client has noticed, so many answers may have these statuses."""
        excuse = Excuse(model, statuses, most, time.monotonic())
        self.excuses.append(excuse)
        yield
        wanted = {one: len(clients.seen) + 3 * CLIENTS for one, clients in self.clients.items()}
        until(lambda: all(len(self.clients[one].seen) >= count for one, count in wanted.items()), "traffic going on")
        excuse.ended_at = time.monotonic()

    # --- faults ------------------------------------------------------------------------------------------------------

    def kill_worker(self) -> None:
        """Its own requests are lost, one of each client at most."""
        pids = self.workers()
        victim = random.choice(pids)
        self.drop()
        with self.excuse(0, most=len(MODELS) * CLIENTS):
            os.kill(victim, signal.SIGKILL)
            until(lambda: victim not in self.workers(), "another worker in its place")
        self.settle()

    def kill_worker_at(self, point: Point) -> None:
        """The one that comes past there first."""
        before = self.workers()
        with self.excuse(0, most=len(MODELS) * CLIENTS):
            self.faults.arm(point, "kill")
            self.drop()
            until(lambda: self.faults.has_struck(point), f"a worker at {point}")
            until(lambda: self.workers() != before, "another worker in its place")
        self.settle()

    def kill_host(self) -> None:
        """Nobody notices: what was in flight is asked again."""
        with contextlib.suppress(psutil.NoSuchProcess):  # a standby that has just been retired
            random.choice(self.hosts()).kill()
        self.swap()

    def kill_zygote(self) -> None:
        """Every host goes with it; until another one has imported everything, requests wait or find no room."""
        zygote = psutil.Process(self.hosts()[0].ppid())
        with self.excuse(503, model="hosted"):
            zygote.kill()
            until(lambda: self.server.predict("hosted").status_code == 200, "the model answering again")
        self.swap()

    def kill_nursery(self) -> None:
        """Nobody notices, and workers that are killed afterwards are replaced nevertheless."""
        os.kill(psutil.Process(self.workers()[0]).ppid(), signal.SIGKILL)
        self.kill_worker()

    def kill_supervisor(self) -> None:
        """Everything ends with it, and is started again."""
        self.drop()
        with self.excuse(0, 404, 503):
            self.server.kill()
            self.start_again()

    def kill_supervisor_at(self, point: Point) -> None:
        """At a chosen point of a swap."""
        assert self.server.process is not None
        with self.excuse(0, 404, 503):
            self.faults.arm(point, "kill")
            if point == "worker-forked":
                os.kill(self.workers()[0], signal.SIGKILL)
            self.drop()
            assert self.server.process.wait(30) == -signal.SIGKILL
            self.start_again()

    def start_again(self) -> None:
        """Start the server that was killed, and have the clients find it."""
        self.server.start(wait_ready=True)
        for one in self.clients.values():
            one.url = self.server.url
        self.settle()

    def hosts(self) -> list[psutil.Process]:
        """Return the host processes."""
        workers = set(self.workers())
        return [one for one in self.server.hosts() if one.pid not in workers]

    # --- judgement ---------------------------------------------------------------------------------------------------

    def failures(self) -> list[tuple[str, Seen]]:
        """Return what has failed and is excused by nothing that was done."""
        found = []
        for model, clients in self.clients.items():
            for seen in clients.failures():
                excuse = next((one for one in self.excuses if one.covers(model, seen)), None)
                if excuse is None:
                    found.append((model, seen))
                else:
                    excuse.used += 1
        return found


@pytest.mark.parametrize("is_long", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["some", "all"])
def test_no_client_goes_back_and_no_request_is_lost_whatever_is_killed(is_long: bool, tmp_path: Path) -> None:
    for model, make in MODELS.items():
        write_version(tmp_path / "store" / model, 1, make(1))
    options = {"SERVING_SERVER__WORKERS": str(WORKERS), "SERVING_STORE__SETTLE_SECONDS": "0.05"}
    with armed(tmp_path, wait_ready=True, **options) as (server, faults), contextlib.ExitStack() as stack:
        scene = Scene(server, faults)
        scene.settle()
        for model in MODELS:
            scene.clients[model] = stack.enter_context(Clients(server.url, model, CLIENTS, PAUSE_SECONDS))
        deeds: list[Callable[[], None]] = [
            *(scene.kill_host, scene.kill_nursery),
            *(partial(scene.kill_worker_at, point) for point in ("worker-prepared", "worker-told")),
            partial(scene.kill_supervisor_at, "workers-committed"),
        ]
        if is_long:
            deeds += [
                *(scene.kill_worker, scene.kill_zygote, scene.kill_supervisor),
                *(partial(scene.kill_worker_at, point) for point in IN_WORKERS),
                *(partial(scene.kill_supervisor_at, point) for point in IN_SUPERVISOR),
            ]
        for deed in itertools.islice(itertools.cycle(deeds), SWAPS // 2) if is_long else deeds:
            scene.swap()
            deed()
    for clients in scene.clients.values():
        assert find_going_back(clients.seen) == []
        assert [one for one in clients.seen if one.status == 200 and one.value != pytest.approx(one.version)] == []
        assert len(clients.seen) > 1000
    assert scene.failures() == []
