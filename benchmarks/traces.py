"""What traces cost a request: off, on and not sampled, one in a hundred, and all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.cores import CLIENT_CORE, SERVER_CORE, on_cores
from benchmarks.models import BODY, publish_logistic
from benchmarks.result import Figure, Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import running, wait_settled
from benchmarks.worker_swaps import publish_forest
from benchmarks.worker_turns import COLUMNS, Stretch, load_in_rounds, ratios, rows
from benchmarks.wrk import Generator
from tests.e2e.harness import Server

BEFORE, OFF = "earlier", "off"
SAMPLES: Mapping[str, str] = {"on, none sampled": "0", "1% sampled": "0.01", "all sampled": "1"}
FORMS: Mapping[str, Mapping[str, str]] = {"compiled": {}, "hosted": {"SERVING_ENGINE__COMPILE": "off"}}
MODELS = {"compiled": "forest", "hosted": "small"}
AT_MOST = {BEFORE: 1.02}
METHOD = """Servers that differ in `[traces]` only, each with one worker and all of its processes on one core; the \
load generator ({generator}) and a collector that takes spans and keeps none are on another: one row of 30 numbers as \
JSON, 16 connections, 1 s each in turns, forwards and backwards; a random forest of 100 trees that is compiled, and a \
logistic pipeline that is hosted. Processor time is that of all processes of a server over the requests answered. \
Ratios are taken within a round. {earlier}"""
EARLIER = "`earlier` is a checkout of the commit before traces, which `EARLIER` in the environment names."


def run(run: Run) -> Result:
    """Measure both forms, one after the other."""
    generator = Generator(run.scratch, BODY, [CLIENT_CORE])
    with _collecting() as endpoint:
        turns = {form: _load(run, generator, endpoint, form) for form in FORMS}
    tables = (Table(f"{form}: medians of all rounds", COLUMNS, rows(found)) for form, found in turns.items())
    return Result(
        name="traces",
        title="Traces",
        method=METHOD.format(generator=generator.name, earlier=EARLIER if "EARLIER" in os.environ else "").strip(),
        figures=tuple(one for form, found in turns.items() for one in _figures(form, found)),
        tables=tuple(tables),
    )


def _load(run: Run, generator: Generator, endpoint: str, form: str) -> dict[str, list[Stretch]]:
    with ExitStack() as stack:

        def start(name: str, **options: str) -> Server:
            directory = run.scratch / f"{form}-{name.replace(' ', '-')}"
            publish_forest(directory / "store", 1)
            publish_logistic(directory / "store", "small", 1)
            server = stack.enter_context(running(directory, on=[SERVER_CORE], **FORMS[form], **options))
            wait_settled(server, 2)
            return server

        services = {OFF: (start(OFF),)}
        for name, sample in SAMPLES.items():
            options = {"SERVING_TRACES__ENDPOINT": endpoint, "SERVING_TRACES__SAMPLE": sample}
            services[name] = (start(name, **options),)
        if "EARLIER" in os.environ:
            services[BEFORE] = (start(BEFORE, python=os.environ["EARLIER"]),)
        path = f"/models/{MODELS[form]}/predict"
        for rounds in (2, run.count(20, 2)):  # the first are a warm-up
            found = load_in_rounds(services, generator, connections=16, rounds=rounds, seconds=1, path=path)
    return found


def _figures(form: str, found: Mapping[str, Sequence[Stretch]]) -> Iterator[Figure]:
    if BEFORE in found:
        cost = ratios(found, "cpu_us", OFF, BEFORE)
        yield figure(f"{form}: processor time per request, off / earlier", "×", cost, at_most=AT_MOST[BEFORE])
        yield figure(f"{form}: requests/s, off / earlier", "×", ratios(found, "per_second", OFF, BEFORE))
    for name in SAMPLES:
        yield figure(f"{form}: processor time per request, {name} / off", "×", ratios(found, "cpu_us", name, OFF))
        yield figure(f"{form}: requests/s, {name} / off", "×", ratios(found, "per_second", name, OFF))
        yield figure(f"{form}: p99, {name} / off", "×", ratios(found, "p99_ms", name, OFF))
    least = {name: min(one.cpu_us for one in stretches) for name, stretches in found.items()}
    for name in (*([BEFORE] if BEFORE in found else []), OFF, *SAMPLES):
        yield figure(f"{form}: least processor time per request of all rounds, {name}", "µs", least[name])
    failures = sum(one.failures for stretches in found.values() for one in stretches)
    yield figure(f"{form}: requests that failed", "", float(failures), at_most=0)


class _Taking(BaseHTTPRequestHandler):
    """Takes everything, and keeps nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def _collecting() -> Iterator[str]:
    """Run a collector on the client's core; the value is its address."""
    with on_cores([CLIENT_CORE]):
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Taking)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
