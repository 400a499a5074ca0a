"""What the log of predictions costs each request: without it, with a hundredth of all, and with all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from benchmarks.cores import CLIENT_CORE, SERVER_CORE
from benchmarks.models import BODY, publish_logistic
from benchmarks.result import Figure, Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import gauge, running, wait_settled
from benchmarks.worker_swaps import publish_forest
from benchmarks.worker_turns import COLUMNS, Stretch, load_in_rounds, ratios, rows
from benchmarks.wrk import Generator
from tests.e2e.harness import Server

OFF, SOME, ALL = "off", "0.01", "1.0"
SAMPLES = {OFF: "0", SOME: "0.01", ALL: "1"}
FORMS: Mapping[str, Mapping[str, str]] = {"compiled": {}, "hosted": {"SERVING_ENGINE__COMPILE": "off"}}
MODELS = {"compiled": "forest", "hosted": "small"}
AT_LEAST = {SOME: 0.98}
METHOD = """Three servers, with `record.sample` at 0, 0.01 and 1, each with one worker; all of their processes are on \
one core, which they share with the thread that writes, and the load generator ({generator}) is on another: one row of \
30 numbers as JSON, 16 connections, 1 s each in turns, forwards and backwards; a random forest of 100 trees that is \
compiled, and a logistic pipeline that is hosted. Ratios are taken within a round. Lines of JSON."""


def run(run: Run) -> Result:
    """Measure both forms, one after the other."""
    generator = Generator(run.scratch, BODY, [CLIENT_CORE])
    found = {form: _load(run, generator, form) for form in FORMS}
    return Result(
        name="record",
        title="The log of predictions",
        method=METHOD.format(generator=generator.name),
        figures=tuple(one for form, (turns, kept) in found.items() for one in _figures(form, turns, kept)),
        tables=tuple(
            Table(f"{form}: medians of all rounds", COLUMNS, rows(turns)) for form, (turns, _) in found.items()
        ),
    )


def _load(run: Run, generator: Generator, form: str) -> tuple[Mapping[str, Sequence[Stretch]], Mapping[str, float]]:
    """Return the stretches of load, and which part of the chosen requests was written."""
    with ExitStack() as stack:
        servers = {name: _start(run, stack, form, name) for name in SAMPLES}
        services = {name: (server,) for name, server in servers.items()}
        path = f"/models/{MODELS[form]}/predict"
        for rounds in (2, run.count(60, 2)):  # the first are a warm-up
            found = load_in_rounds(services, generator, connections=16, rounds=rounds, seconds=1, path=path)
        kept = {}
        for name in (SOME, ALL):
            written, dropped = (gauge(servers[name], f"serving_{what}_total") for what in ("records", "record_dropped"))
            kept[name] = written / (written + dropped)
    return found, kept


def _start(run: Run, stack: ExitStack, form: str, name: str) -> Server:
    directory = run.scratch / f"{form}-{name}"
    publish_forest(directory / "store", 1)
    publish_logistic(directory / "store", "small", 1)
    setting = {"SERVING_RECORD__SAMPLE": SAMPLES[name]}
    server = stack.enter_context(running(directory, on=[SERVER_CORE], **setting, **FORMS[form]))
    wait_settled(server, 2)
    return server


def _figures(form: str, found: Mapping[str, Sequence[Stretch]], kept: Mapping[str, float]) -> Iterator[Figure]:
    for name in (SOME, ALL):
        rate = ratios(found, "per_second", name, OFF)
        yield figure(f"{form}, sample {name}: requests/s, on / off", "×", rate, at_least=AT_LEAST.get(name))
        for title, what in (("p50", "p50_ms"), ("p99", "p99_ms"), ("processor time per request", "cpu_us")):
            yield figure(f"{form}, sample {name}: {title}, on / off", "×", ratios(found, what, name, OFF))
        yield figure(f"{form}, sample {name}: of the chosen requests were written", "%", 100 * kept[name])
