"""From a file in the store to its first answer."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial

import joblib

from benchmarks.models import BODY, logistic, publish_logistic
from benchmarks.percentiles import percentile
from benchmarks.result import Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import running
from benchmarks.steps import Drop, read_timelines, steps
from benchmarks.wire import Connection, request_bytes
from tests.e2e.harness import Server

POLL_SECONDS = 0.001
SETTLE_MS = 500
END = "first answer"
METHOD = """A server with default settings on all cores. A logistic pipeline (30 features) with manifest and five \
golden examples is published aside, then its directory is renamed into the store; or a bare model file is \
copied there. From just before the rename or copy, one client on one keep-alive connection asks for a \
prediction, pauses 1 ms and asks again, until the answer's `version` is the new one: that answer's \
arrival is the end. Between drops 0.4 to 1 s pass, so that the previous version is gone. "A new model" \
renames a whole model directory whose name the server has never seen. Bare files are published when they \
have been quiet for `store.settle_seconds` (0.5 s), which is in the figure."""


def run(run: Run) -> Result:
    """Drop versions one after another and time each."""
    versions = range(2, run.count(40, 5) + 2)
    aside = run.scratch / "aside"
    directory = run.scratch / "server"
    publish_logistic(directory / "store", "renamed", 1)
    (directory / "store" / "copied").mkdir()
    joblib.dump(logistic(), directory / "store" / "copied" / "1.joblib")
    with running(directory) as server:
        renamed, copied, new = [], [], []
        for version in versions:
            path = publish_logistic(aside, "renamed", version)
            target = server.store / "renamed" / path.name
            renamed.append(time_drop(server, "renamed", version, partial(path.rename, target)))
        for version in versions:
            joblib.dump(logistic(version), aside / "model.joblib")
            copy = partial(shutil.copyfile, aside / "model.joblib", server.store / "copied" / f"{version}.joblib")
            copied.append(time_drop(server, "copied", version, copy))
        for number in versions:
            path = publish_logistic(aside, f"new{number}", 1).parent
            new.append(time_drop(server, path.name, 1, partial(path.rename, server.store / path.name)))
        drops = dict(zip(map(str, versions), renamed, strict=True))
        where = steps(read_timelines(server, "renamed", drops, END), END)
    renamed_ms, copied_ms, new_ms = ([drop.seconds * 1000 for drop in drops] for drops in (renamed, copied, new))
    return Result(
        name="drop",
        title="From a file in the store to its first answer",
        method=METHOD,
        figures=(
            figure("rename of a version with manifest to its first answer", "ms", renamed_ms, at_most=300),
            figure("the same, 90th percentile", "ms", percentile(renamed_ms, 0.9)),
            figure("`cp` of a bare file to its first answer", "ms", copied_ms, at_most=300 + SETTLE_MS),
            figure("the same, 90th percentile", "ms", percentile(copied_ms, 0.9)),
            figure("rename of a new model's directory to its first answer", "ms", new_ms),
        ),
        tables=(Table("Where the time of a rename goes (medians, from the history)", ("step", "ms"), where),),
    )


def time_drop(server: Server, model: str, version: int, act: Callable[[], object]) -> Drop:
    """Return how long it takes from `act` to the first answer of a version."""
    time.sleep(random.uniform(0.4, 1.0))
    request = request_bytes(f"/models/{model}/predict", BODY)
    connection = Connection(server.url)
    wall_clock, began = time.time(), time.perf_counter()
    act()
    for _ in _polls():
        status, body = connection.exchange(request)
        if status == 200 and json.loads(body)["version"] == str(version):
            break
    seconds = time.perf_counter() - began
    connection.close()
    return Drop(wall_clock, seconds)


def _polls() -> Iterator[int]:
    ends_at = time.monotonic() + 30
    for number in itertools.count():
        yield number
        if time.monotonic() > ends_at:
            raise RuntimeError("the version did not become active")
        time.sleep(POLL_SECONDS)
