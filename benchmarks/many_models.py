"""A large store at rest: processor time, the resync, memory."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from benchmarks.memory import MB, cpu_seconds, memory_of_pids
from benchmarks.models import publish_logistic
from benchmarks.percentiles import median
from benchmarks.result import Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import all_pids, gauge, pid_of, running
from tests.e2e.harness import TOKEN, Server, until

SETTLE_SECONDS = 15.0
METHOD = """Each model is a logistic pipeline with manifest and golden examples; each version is a directory of its \
own. The server starts on the full store with default settings (an operator's token is set, and compiling is off, so \
that each model has its host) and an empty cache. When every model is active it is left alone for 15 s; then the \
processor time of all threads of the server, the zygote and the hosts (their `CLOCK_PROCESS_CPUTIME_ID`, nanoseconds) \
is read before and after a stretch without any request. Then resyncs are asked for one after another with `POST \
/refresh`; the duration is the difference of `serving_resync_duration_seconds_sum`, the processor time that of the \
server process for the whole call. Memory is from `smaps_rollup`: what a host shares with no other process."""


def run(run: Run) -> Result:
    """Fill a store, start on it, watch it rest."""
    models, versions = run.count(200, 6), run.count(50, 10)
    directory = run.scratch / "server"
    fill_store(directory / "store", models, versions)
    began = time.monotonic()
    more = {"SERVING_SECURITY__ADMIN_TOKEN": TOKEN, "SERVING_ENGINE__COMPILE": "off"}
    with running(directory, wait_ready=False, **more) as server:
        until(lambda: count_active(server) == models, "all models being active", 600, every=0.5)
        active_seconds = time.monotonic() - began
        time.sleep(run.count(SETTLE_SECONDS, 3.0))
        share, parts, resyncs = rest(server, run.count(90.0, 8.0))
        durations, costs = _resync(server, run.count(50, 5))
        memory = memory_of_pids(all_pids(server))
        watch = server.get("/models")["store"]["watch"]
    hosts = [one.private / MB for one in memory[2:]]
    return Result(
        name="many_models",
        title=f"{models} models × {versions} versions at rest",
        method=METHOD,
        figures=(
            figure("processor time at rest, all processes, of one core", "%", share * 100, at_most=1),
            figure("resync: listing the store", "ms", durations, at_most=100),
            figure("private memory of a host", "MB", hosts, at_most=20),
            figure("server, resident memory", "MB", memory[0].resident / MB),
            figure("server, private memory", "MB", memory[0].private / MB),
            figure("zygote, private memory", "MB", memory[1].private / MB),
            figure("all processes, proportional set size", "MB", sum(one.proportional for one in memory) / MB),
            figure("resync: processor time of the server for the whole call", "ms", costs),
            figure("resyncs while at rest", "", resyncs),
            figure("start to all models active", "s", active_seconds),
            figure("the same, per model", "ms", active_seconds * 1000 / models),
        ),
        tables=(Table(f"Processor time at rest (watching by {watch})", ("process", "% of one core"), parts),),
    )


def fill_store(store: Path, models: int, versions: int) -> None:
    """Publish one version properly, then write the same under all the other names."""
    template = publish_logistic(store.parent / "template", "model", 1)
    manifest = json.loads((template / "manifest.json").read_bytes())
    for model in (f"model{number:03}" for number in range(models)):
        for version in map(str, range(1, versions + 1)):
            target = store / model / version
            target.mkdir(parents=True)
            for name in ("model.joblib", "golden.json"):
                shutil.copyfile(template / name, target / name)
            text = json.dumps({**manifest, "model": model, "version": version}, indent=2)
            (target / "manifest.json").write_text(text, encoding="utf-8")


def count_active(server: Server) -> int:
    """Return how many models have an active version."""
    return sum(model["active"] is not None for model in server.get("/models/active")["models"])


def rest(server: Server, seconds: float) -> tuple[float, tuple[tuple[str, float], ...], float]:
    """Return the share of one core used while nothing happens, that of each process, and the number of resyncs."""
    pids = all_pids(server)
    groups = {"server": pids[:1], "zygote": pids[1:2], f"{len(pids) - 2} hosts": pids[2:]}
    looks = gauge(server, "serving_resync_duration_seconds_count")
    time.sleep(0.5)
    before = {name: cpu_seconds(group) for name, group in groups.items()}
    began = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - began
    shares = {name: (cpu_seconds(group) - before[name]) / elapsed for name, group in groups.items()}
    looks = gauge(server, "serving_resync_duration_seconds_count") - looks
    return sum(shares.values()), tuple((name, share * 100) for name, share in shares.items()), looks


def _resync(server: Server, count: int) -> tuple[list[float], list[float]]:
    """Return duration and processor time of resyncs, in milliseconds."""
    durations, costs = [], []
    for _ in range(count):
        listed, used = gauge(server, "serving_resync_duration_seconds_sum"), cpu_seconds([pid_of(server)])
        server.operate("POST", "/refresh").raise_for_status()
        costs.append((cpu_seconds([pid_of(server)]) - used) * 1000)
        durations.append((gauge(server, "serving_resync_duration_seconds_sum") - listed) * 1000)
        time.sleep(0.1)
    assert median(durations) > 0, "no resync was counted"
    return durations, costs
