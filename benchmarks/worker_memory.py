"""What workers weigh: one more of them, the same with a compiled forest, and a hosted model beside one and four."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.memory import MB, Memory, memory_of, memory_of_pids
from benchmarks.models import large_forests
from benchmarks.run import Run
from benchmarks.server import all_pids, running, wait_settled
from tests.e2e.harness import Server, until

QUIET_SECONDS = 2.0
ZYGOTE = "serving.host.forkserver"


def worker_pids(server: Server) -> list[int]:
    """Wait until all workers of a service answer and return their processes."""

    def find() -> list[int] | None:
        workers = server.get("/workers")["workers"]
        return [one["pid"] for one in workers] if all(one["state"] == "serving" for one in workers) else None

    return until(find, "all workers serving") or []


def weigh_workers(server: Server) -> list[Memory]:
    """Return the memory of each worker of a service that is left alone. Blocks for some seconds."""
    pids = worker_pids(server)
    time.sleep(QUIET_SECONDS)
    return memory_of_pids(pids)


def weigh_empty(directory: Path, workers: int) -> tuple[list[Memory], float]:
    """Return the memory of each worker of a service without any model, and the MB of all workers, the process that they
    are forked from and the supervisor together.
    """
    with running(directory, wait_ready=False, SERVING_SERVER__WORKERS=str(workers)) as server:
        for _ in range(10 * workers):
            server.get("/models")
        found = weigh_workers(server)
        zygotes = {one.pid for one in server.processes() if ZYGOTE in one.cmdline()}
        servers = [pid for pid in all_pids(server) if pid not in zygotes]
        return found, sum(one.proportional for one in memory_of_pids(servers)) / MB


def weigh_host(run: Run, workers: int) -> tuple[float, int]:
    """Return the MB of the host of a forest of 100 MB after some requests to each worker, and how many hosts there are.

    Memory that a host shares with the zygote it is forked from counts in full: it is the host's in both services.
    """
    directory = run.scratch / f"hosted-{workers}"
    store = large_forests(run.cache, run.count(100, 20), 1)[0].parent.parent
    settings: Mapping[str, str] = {"SERVING_ENGINE__COMPILE": "off", "SERVING_SERVER__WORKERS": str(workers)}
    with running(directory, store=store, **settings) as server:
        wait_settled(server, 1)
        for _ in range(5 * workers):
            server.predict("large", [[0.0] * 20]).raise_for_status()
        time.sleep(QUIET_SECONDS)
        hosts = [one.pid for one in server.hosts() if ZYGOTE in one.cmdline()]  # not workers, nor what they come from
        return sum(memory_of(pid).resident for pid in hosts) / MB, len(hosts)
