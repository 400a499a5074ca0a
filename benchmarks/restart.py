"""A restart with a hundred models that have not changed: how long until all of them answer again."""

from __future__ import annotations

import time
from collections import Counter

from benchmarks.models import publish_logistic
from benchmarks.result import Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import running, wait_settled

METHOD = """Every model is a logistic pipeline of its own with manifest and golden examples. A server with default \
settings on all cores takes them all up, with an empty cache, and is stopped (SIGTERM). Then it is started several \
times on the same store and the same state, and each start is timed from before the process exists until `GET \
/models/active`, asked five times a second, says that every model is active."""


def run(run: Run) -> Result:
    """Start, stop and start again."""
    models = run.count(100, 8)
    directory = run.scratch / "server"
    for number in range(models):
        publish_logistic(directory / "store", f"model{number:03}", 1, strength=1 + number / models)
    seconds, engines = [], Counter[str]()
    for _ in range(1 + run.count(5, 2)):
        began = time.monotonic()
        with running(directory, wait_ready=False) as server:
            engines = Counter(wait_settled(server, models).values())
            seconds.append(time.monotonic() - began)
            server.stop()
    first, *again = seconds
    return Result(
        name="restart",
        title=f"A restart with {models} unchanged models",
        method=METHOD,
        figures=(
            figure("restart to all models active", "s", again, at_most=5),
            figure("first start to all models active", "s", first),
        ),
        tables=(Table("Engines", ("engine", "models"), tuple(engines.items())),),
    )
