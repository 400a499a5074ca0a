"""What the page costs: its first view, open pages on a server with many models, requests beside them, restarts."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.cores import CLIENT_CORE, SERVER_CORE, on_cores
from benchmarks.event_streams import Follower, history_ids, readers
from benchmarks.many_models import count_active, fill_store
from benchmarks.memory import cpu_seconds
from benchmarks.models import BODY
from benchmarks.result import Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import all_pids, running
from benchmarks.worker_turns import COLUMNS, Stretch, load_stretch, ratios, rows
from benchmarks.wrk import Generator
from tests.e2e.harness import TOKEN, Server, until

PAGES = 10
ON, OFF = f"{PAGES} streams open", "none"
CONNECTIONS = 16
SETTLE_SECONDS, STRETCH_SECONDS = 3.0, 2
MODEL = "model000"
METHOD = """{models} models with {versions} versions each, every one a logistic pipeline that is compiled. The server \
is on one core; Chromium, streams and the load generator are on the other. First view: a new browser context opens \
`/ui/`, and waits until the table has a row for each model; bytes are those on the wire (DevTools' \
`encodedDataLength`), without the stream. Processor time: all processes of the server over {rest:g} s, without a page \
and with ten in Chromium. Requests: {generator} over {connections} connections sends one row of JSON, 2 s each in \
turns with ten open streams and without, forwards and backwards; ratios are taken within a round. Ten pages in \
Chromium would need most of that core, so here a small program reads the streams. Missed events: a \
client follows the stream while a model is pinned again and again; the server is killed (`kill -9`) and started anew \
{kills} times. What the client has seen is compared with `GET /history`."""


def run(run: Run) -> Result:
    """Measure one server after its start with a full store."""
    models, versions = run.count(200, 5), run.count(50, 5)
    rest_seconds, kills = run.count(30.0, 4.0), run.count(3, 1)
    directory = run.scratch / "server"
    fill_store(directory / "store", models, versions)
    generator = Generator(run.scratch, BODY, [CLIENT_CORE])
    settings = {"SERVING_SECURITY__ADMIN_TOKEN": TOKEN}
    with running(directory, on=[SERVER_CORE], wait_ready=False, **settings) as server:
        until(lambda: count_active(server) == models, "all models being active", 900, every=0.5)
        with chromium() as browser:
            views = [_first_view(browser, server, models) for _ in range(run.count(10, 2))]
            time.sleep(run.count(15.0, 1.0))
            quiet = _rest(server, rest_seconds)
            with open_pages(browser, server, models):
                time.sleep(run.count(5.0, 1.0))
                watched = _rest(server, rest_seconds)
                browsing = _browser_share(rest_seconds)
        loads = _load(run, server, generator)
        missed, seen, doubled = _restarts(server, kills)
    cost = 100 * (watched - quiet)
    return Result(
        name="open_pages",
        title="The page: first view, open pages, events over restarts",
        method=METHOD.format(
            models=models,
            versions=versions,
            rest=rest_seconds,
            kills=kills,
            generator=generator.name,
            connections=CONNECTIONS,
        ),
        figures=(
            figure("first view: bytes on the wire", "kB", [one.kilobytes for one in views]),
            figure("first view: requests", "", [float(one.requests) for one in views]),
            figure(f"first view: time until {models} models are shown", "ms", [one.shown_ms for one in views]),
            figure(f"processor time of the server for {PAGES} open pages, of one core", "%", cost),
            figure("processor time of the server at rest without a page, of one core", "%", 100 * quiet),
            figure(f"processor time of Chromium for {PAGES} open pages, of one core", "%", 100 * browsing),
            figure(
                *(f"requests/s with {PAGES} open streams / without", "x", ratios(loads, "per_second", ON, OFF)),
                at_least=0.98,
            ),
            figure(f"p99 with {PAGES} open streams / without", "x", ratios(loads, "p99_ms", ON, OFF), at_most=1.02),
            figure(f"processor time per request with {PAGES} streams / without", "x", ratios(loads, "cpu_us", ON, OFF)),
            figure(f"events missed over {kills} restarts, of {seen}", "", float(missed), at_most=0),
            figure("events that came twice", "", float(doubled), at_most=0),
        ),
        tables=(Table("medians of all rounds", COLUMNS, rows(loads)),),
    )


@dataclass(frozen=True, slots=True)
class View:
    """What one first view has taken."""

    kilobytes: float
    requests: int
    shown_ms: float


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run Debian's Chromium on the clients' core."""
    path = shutil.which("chromium")
    assert path is not None, "install Debian's package chromium"
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with on_cores([CLIENT_CORE]), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def _first_view(browser: Browser, server: Server, models: int) -> View:
    context = browser.new_context()
    page = context.new_page()
    devtools = context.new_cdp_session(page)
    bytes_by_request: dict[str, float] = {}
    streams: set[str] = set()
    devtools.on("Network.responseReceived", lambda event: _note_stream(event, streams))
    devtools.on("Network.loadingFinished", lambda event: _note_bytes(event, bytes_by_request))
    devtools.send("Network.enable")
    began = time.perf_counter()
    _show(page, server, models)
    shown_ms = (time.perf_counter() - began) * 1000
    page.wait_for_load_state("load")
    context.close()
    return View(sum(bytes_by_request.values()) / 1000, len(bytes_by_request) + len(streams), shown_ms)


def _note_stream(event: Mapping[str, Any], streams: set[str]) -> None:
    if event["response"]["mimeType"] == "text/event-stream":
        streams.add(event["requestId"])


def _note_bytes(event: Mapping[str, Any], found: dict[str, float]) -> None:
    found[event["requestId"]] = event["encodedDataLength"]


def _show(page: Page, server: Server, models: int) -> None:
    page.goto(f"{server.url}/ui/")
    page.locator("main tbody tr").nth(models - 1).wait_for()


@contextlib.contextmanager
def open_pages(browser: Browser, server: Server, models: int) -> Iterator[None]:
    """Keep ten pages open, each in a context of its own: six connections to one server are all that a context has."""
    contexts = [browser.new_context() for _ in range(PAGES)]
    for context in contexts:
        _show(context.new_page(), server, models)
    try:
        yield
    finally:
        for context in contexts:
            context.close()


def _rest(server: Server, seconds: float) -> float:
    """Return the share of one core that all processes of the server use meanwhile."""
    pids = all_pids(server)
    before, began = cpu_seconds(pids), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(pids) - before) / (time.monotonic() - began)


def _browser_share(seconds: float) -> float:
    pids = [one.pid for one in psutil.process_iter(["name"]) if "chrom" in (one.info["name"] or "")]
    before, began = cpu_seconds(pids), time.monotonic()
    time.sleep(min(seconds, 20.0))
    return (cpu_seconds(pids) - before) / (time.monotonic() - began)


def _load(run: Run, server: Server, generator: Generator) -> dict[str, Sequence[Stretch]]:
    found: dict[str, list[Stretch]] = {ON: [], OFF: []}
    path = f"/models/{MODEL}/predict"
    for number in range(run.count(10, 2)):
        for name in (ON, OFF)[:: 1 if number % 2 == 0 else -1]:
            with readers(server.url, PAGES if name == ON else 0, [CLIENT_CORE]):
                time.sleep(SETTLE_SECONDS)
                found[name].append(load_stretch([server], generator, CONNECTIONS, STRETCH_SECONDS, path))
    return dict(found)


def _restarts(server: Server, kills: int) -> tuple[int, int, int]:
    """Return how many events a client has missed, how many there were, and how many came twice."""
    newest = history_ids(server, 0)[-1]
    with Follower(server) as follower:
        for number in range(kills):
            for version in ("1", "2", "3"):
                server.operate("POST", f"/models/{MODEL}/pin", {"version": version})
            before = follower.connections
            server.kill()
            server.start(wait_ready=True)
            until(lambda before=before: follower.connections > before, f"the stream being open again ({number})", 60)
        server.operate("DELETE", f"/models/{MODEL}/pin")
        time.sleep(2.0)
        wanted = [str(one) for one in history_ids(server, newest)]
        until(lambda: wanted[-1] in {one.rpartition("-")[2] for one in follower.seen}, "the last event", 30)
    seen = [one.rpartition("-")[2] for one in follower.seen]
    return len(set(wanted) - set(seen)), len(wanted), len(seen) - len(set(seen))
