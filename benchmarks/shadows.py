"""What requests notice of a shadow: a server with one beside a server without, on a core at rest and on a busy one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.cores import CLIENT_CORE, SERVER_CORE
from benchmarks.load import OpenLoop
from benchmarks.models import BODY, publish_logistic
from benchmarks.percentiles import Latency, median
from benchmarks.result import Figure, Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import running, wait_settled
from benchmarks.worker_swaps import publish_forest
from benchmarks.worker_turns import COLUMNS, Stretch, load_in_rounds, ratios, rows
from benchmarks.wrk import Generator
from serving.plane.shadow import MOST_WAIT_SECONDS
from tests.e2e.harness import Server

ON, OFF = "with a shadow", "without"
RATE = 100.0
FORMS: Mapping[str, Mapping[str, str]] = {"compiled": {}, "hosted": {"SERVING_ENGINE__COMPILE": "off"}}
MODELS = {"compiled": "forest", "hosted": "small"}
SHADOW = {"SERVING_ROLLOUT__STRATEGY": "shadow", "SERVING_ROLLOUT__STEP_SECONDS": "86400"}
METHOD = """Two servers with one worker each and the same active version; one has a newer version as its shadow, of \
the same size. All of their processes are on one core, the load generator on another. A core with time to spare is \
asked {rate:g} times a second, 3 s each in turns; a busy one over 16 connections by {generator}, 1 s each in turns, \
forwards and backwards. One row of JSON; a random forest of 100 trees that is compiled, and a logistic pipeline that \
is hosted. Ratios are taken within a round. Copies are compared or dropped; the part that was compared is shown."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one form of models has given: median latencies at rest, stretches of load, and the parts compared."""

    idle_ms: Mapping[str, Sequence[float]]
    busy: Mapping[str, Sequence[Stretch]]
    idle_part: float
    busy_part: float


def run(run: Run) -> Result:
    """Measure both forms, one after the other."""
    generator = Generator(run.scratch, BODY, [CLIENT_CORE])
    found = {form: _measure(run, generator, form) for form in FORMS}
    return Result(
        name="shadows",
        title="A shadow beside the active version",
        method=METHOD.format(rate=RATE, generator=generator.name),
        figures=tuple(one for form, each in found.items() for one in _figures(form, each)),
        tables=tuple(
            Table(f"busy, {form}: medians of all rounds", COLUMNS, rows(one.busy)) for form, one in found.items()
        ),
    )


def _measure(run: Run, generator: Generator, form: str) -> Found:
    with ExitStack() as stack:
        servers = {name: _start(run, stack, form, name) for name in (ON, OFF)}
        path = f"/models/{MODELS[form]}/predict"
        idle: dict[str, list[float]] = {ON: [], OFF: []}
        for number in range(run.count(10, 2)):
            for name in (ON, OFF)[:: 1 if number % 2 == 0 else -1]:
                with OpenLoop(servers[name].url, path, BODY, RATE, run.scratch / "open.json", [CLIENT_CORE]) as loop:
                    time.sleep(run.count(3.0, 1.0))
                idle[name].append(Latency.of([reply.seconds for reply in loop.replies]).p50)
        idle_count = _count(servers[ON], form)
        services = {name: (server,) for name, server in servers.items()}
        busy = load_in_rounds(services, generator, connections=16, rounds=run.count(20, 2), seconds=1, path=path)
        busy_count = _count(servers[ON], form)
    busy_pairs, busy_all = (after - before for after, before in zip(busy_count, idle_count, strict=True))
    return Found(idle, busy, idle_count[0] / idle_count[1], busy_pairs / busy_all)


def _start(run: Run, stack: ExitStack, form: str, name: str) -> Server:
    """Start a server with two models; with ON both have a shadow, too."""
    directory = run.scratch / f"{form}-{name.replace(' ', '-')}"
    publish_forest(directory / "store", 1)
    publish_logistic(directory / "store", "small", 1)
    settings = SHADOW if name == ON else {}
    server = stack.enter_context(running(directory, on=[SERVER_CORE], **FORMS[form], **settings))
    wait_settled(server, 2)
    if name == ON:
        publish_forest(directory / "store", 2)
        publish_logistic(directory / "store", "small", 2)
        for model in MODELS.values():
            server.wait_state(model, 2, "SHADOW", 120.0)
    return server


def _count(server: Server, form: str) -> tuple[int, int]:
    """Return how many copies were compared so far, and how many there were, when all are one or the other."""
    time.sleep(MOST_WAIT_SECONDS + 1.0)
    shadow = server.model(MODELS[form])["rollout"]["running"]["shadow"]
    return shadow["pairs"], shadow["pairs"] + shadow["dropped"]


def _figures(form: str, found: Found) -> Iterator[Figure]:
    at_rest = [one / other for one, other in zip(found.idle_ms[ON], found.idle_ms[OFF], strict=True)]
    yield figure(f"{form}, {RATE:g} requests/s: p50 with a shadow / without", "x", at_rest)
    yield figure(f"{form}, {RATE:g} requests/s: p50 without", "ms", median(found.idle_ms[OFF]))
    yield figure(f"{form}, {RATE:g} requests/s: copies compared", "%", 100 * found.idle_part)
    yield figure(f"{form}, busy: requests/s with a shadow / without", "x", ratios(found.busy, "per_second", ON, OFF))
    yield figure(f"{form}, busy: p50 with a shadow / without", "x", ratios(found.busy, "p50_ms", ON, OFF))
    yield figure(f"{form}, busy: processor time with a shadow / without", "x", ratios(found.busy, "cpu_us", ON, OFF))
    yield figure(f"{form}, busy: copies compared", "%", 100 * found.busy_part)
