"""`make serve` once everything is installed: how long until the first demo model answers, and until all six do."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from benchmarks.result import Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import running, wait_settled
from serving.demo import demo_versions
from tests.e2e.harness import Server, until

METHOD = """The six demo models are published once. A server with default settings is started on them with an empty \
state directory (cold: every version is copied, loaded, taken through the gates and compiled), stopped (SIGTERM), and \
started again on the same state (warm). Each start is timed from before the process exists until `GET /models/active` \
names a first active model, and until it says that all six are active in their newest versions. What the system has \
read before stays in its page cache. A cold and a warm start take turns."""


def run(run: Run) -> Result:
    """Start on nothing, then on what that has left, several times."""
    store = run.scratch / "store"
    versions = demo_versions()
    for each in versions:
        each.publish(store)
    models = len({each.model for each in versions})
    cold, warm, engines = [], [], Counter[str]()
    for number in range(run.count(5, 1)):
        directory = run.scratch / str(number)
        cold.append(_start(directory, store, models, engines))
        warm.append(_start(directory, store, models, engines))
    (cold_first, cold_all), (warm_first, warm_all) = zip(*cold, strict=True), zip(*warm, strict=True)
    return Result(
        name="demo_start",
        title="A start with the six demo models",
        method=METHOD,
        figures=(
            figure("cold start to the first model active", "s", cold_first),
            figure("cold start to all six active", "s", cold_all),
            figure("warm start to the first model active", "s", warm_first),
            figure("warm start to all six active", "s", warm_all),
            figure(
                "all six active, warm as a part of cold",
                "",
                [after / before for after, before in zip(warm_all, cold_all, strict=True)],
            ),
        ),
        tables=(Table("Engines", ("engine", "models"), tuple(engines.items())),),
    )


def _start(directory: Path, store: Path, models: int, engines: Counter[str]) -> tuple[float, float]:
    """Return the seconds until the first and until all models are active, and stop the server."""
    began = time.monotonic()
    with running(directory, store=store, wait_ready=False) as server:
        until(lambda: _has_active(server), "a first active model", 180.0)
        first = time.monotonic() - began
        found = wait_settled(server, models)
        whole = time.monotonic() - began
        engines.clear()
        engines.update(found.values())
        assert server.stop() == 0
    return first, whole


def _has_active(server: Server) -> bool:
    return any(each["active"] for each in server.get("/models/active")["models"])
