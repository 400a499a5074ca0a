"""This code beside that of an earlier commit, with one worker each: what a change of the request's way has cost.

``EARLIER`` in the environment names the Python of a checkout of that commit, in an environment of its own.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cores import CLIENT_CORE, SERVER_CORE
from benchmarks.memory import MB, memory_of
from benchmarks.models import BODY, publish_logistic
from benchmarks.result import Figure, Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import pid_of, running, wait_settled
from benchmarks.worker_swaps import publish_forest
from benchmarks.worker_turns import COLUMNS, Stretch, load_in_rounds, ratios, rows
from benchmarks.wrk import Generator
from tests.e2e.harness import Server

NOW, EARLIER = "now", "earlier"
FORMS: Mapping[str, Mapping[str, str]] = {"compiled": {}, "hosted": {"SERVING_ENGINE__COMPILE": "off"}}
MODELS = {"compiled": "forest", "hosted": "small"}
AT_LEAST, AT_MOST = 0.97, 1.03
METHOD = """This checkout and an earlier one, each with one worker and all of its processes on one core, the load \
generator ({generator}) on another: one row of JSON, 16 connections, 1 s each in turns, forwards and backwards; a \
random forest of 100 trees that is compiled, and a logistic pipeline that is hosted. Processor time is that of all \
processes of a server over the requests answered. Ratios are taken within a round. Starts are timed from before the \
process exists, in turns, with that pipeline; memory is the server process's after a start, two seconds and one \
request."""


@dataclass(frozen=True, slots=True)
class Starts:
    """How long one checkout takes to start, and what its server process weighs then, start by start."""

    listening: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    private: list[float] = field(default_factory=list)


def run(run: Run) -> Result:
    """Measure both in turns."""
    pythons = {NOW: sys.executable, EARLIER: os.environ["EARLIER"]}
    generator = Generator(run.scratch, BODY, [CLIENT_CORE])
    turns = {form: _load(run, generator, pythons, form) for form in FORMS}
    starts = _start(run, pythons)
    tables = (Table(f"{form}: medians of all rounds", COLUMNS, rows(found)) for form, found in turns.items())
    return Result(
        name="earlier",
        title="One worker, now and earlier",
        method=METHOD.format(generator=generator.name),
        figures=tuple(_figures(turns, starts)),
        tables=tuple(tables),
    )


def _load(run: Run, generator: Generator, pythons: Mapping[str, str], form: str) -> dict[str, list[Stretch]]:
    with ExitStack() as stack:

        def start(name: str) -> Server:
            directory = run.scratch / f"{form}-{name}"
            publish_forest(directory / "store", 1)
            publish_logistic(directory / "store", "small", 1)
            server = stack.enter_context(running(directory, on=[SERVER_CORE], python=pythons[name], **FORMS[form]))
            wait_settled(server, 2)
            return server

        services = {name: (start(name),) for name in pythons}
        path = f"/models/{MODELS[form]}/predict"
        for rounds in (1, run.count(30, 2)):  # the first is a warm-up
            found = load_in_rounds(services, generator, connections=16, rounds=rounds, seconds=1, path=path)
    return found


def _start(run: Run, pythons: Mapping[str, str]) -> dict[str, Starts]:
    starts = {name: Starts() for name in pythons}
    stores = {name: run.scratch / f"start-{name}" / "store" for name in pythons}
    for store in stores.values():
        publish_logistic(store, "small", 1)
    for number in range(run.count(8, 2)):
        for name in list(pythons)[:: 1 if number % 2 == 0 else -1]:
            _time_start(stores[name].parent, pythons[name], starts[name])
    return starts


def _time_start(directory: Path, python: str, starts: Starts) -> None:
    began = time.monotonic()
    with running(directory, wait_ready=False, python=python, **FORMS["hosted"]) as server:
        starts.listening.append(time.monotonic() - began)
        server.wait_ready()
        starts.ready.append(time.monotonic() - began)
        server.predict("small", [[0.0] * 30]).raise_for_status()
        time.sleep(2)
        starts.private.append(memory_of(pid_of(server)).private / MB)
        server.stop()


def _figures(turns: Mapping[str, Mapping[str, Sequence[Stretch]]], starts: Mapping[str, Starts]) -> Iterator[Figure]:
    """Yield the ratios of now to earlier."""
    for form, found in turns.items():
        per_second, cost = (ratios(found, what, NOW, EARLIER) for what in ("per_second", "cpu_us"))
        yield figure(f"{form}: requests/s, now / earlier", "×", per_second, at_least=AT_LEAST)
        yield figure(f"{form}: processor time per request, now / earlier", "×", cost, at_most=AT_MOST)
        least = {name: min(one.cpu_us for one in stretches) for name, stretches in found.items()}
        what = f"{form}: least processor time per request of all rounds, now / earlier"
        yield figure(what, "×", least[NOW] / least[EARLIER])
        failures = sum(one.failures for stretches in found.values() for one in stretches)
        yield figure(f"{form}: requests that failed", "", float(failures), at_most=0)
    for what in ("listening", "ready", "private"):
        now, earlier = (getattr(starts[name], what) for name in (NOW, EARLIER))
        title = "private memory of the server" if what == "private" else f"start to {what}"
        each = [a / b for a, b in zip(now, earlier, strict=True)]
        yield figure(f"{title}, now / earlier", "×", each, at_most=AT_MOST)
        yield figure(f"{title}, now", "MB" if what == "private" else "s", now)
