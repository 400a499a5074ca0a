"""How much one server process weighs after its start, and what it has imported."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.memory import MB, memory_of
from benchmarks.models import publish_logistic
from benchmarks.result import Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import pid_of, running

FORBIDDEN = ("sklearn", "scipy", "pandas", "joblib", "skops", "onnxruntime")
METHOD = """A server with one small model in its store is started, asked once for a prediction, left alone for two \
seconds, and its process read from `/proc/<pid>/smaps_rollup`. The modules it imports are those Python \
itself reports (`PYTHONPROFILEIMPORTTIME`) in one further start."""


def run(run: Run) -> Result:
    """Start a server several times and weigh it."""
    store = run.scratch / "store"
    publish_logistic(store, "small", 1)
    server_memory, children_memory, listening, ready = [], [], [], []
    for number in range(run.count(5, 2)):
        began = time.monotonic()
        with running(run.scratch / str(number), store=store, wait_ready=False) as server:
            listening.append(time.monotonic() - began)
            server.wait_ready()
            ready.append(time.monotonic() - began)
            server.predict("small", [[0.0] * 30]).raise_for_status()
            time.sleep(2)
            server_memory.append(memory_of(pid_of(server)))
            children_memory.append(sum(memory_of(one.pid).proportional for one in server.processes()))
    modules = _imported(run.scratch / "imports", store)
    packages = sorted({module.partition(".")[0] for module in modules})
    found = [name for name in FORBIDDEN if name in packages]
    return Result(
        name="footprint",
        title="The server process after its start",
        method=METHOD,
        figures=(
            figure("server, resident memory", "MB", [one.resident / MB for one in server_memory], at_most=90),
            figure("server, private memory", "MB", [one.private / MB for one in server_memory], at_most=90),
            figure(f"forbidden packages imported ({', '.join(FORBIDDEN)})", "", float(len(found)), at_most=0),
            figure("modules imported", "", float(len(modules))),
            figure("start to listening", "s", listening),
            figure("start to ready with one model", "s", ready),
            figure("zygote and one host together", "MB", [one / MB for one in children_memory]),
        ),
        tables=(Table("Packages with most modules in the server", ("package", "modules"), _largest(modules)),),
    )


def _imported(directory: Path, store: Path) -> set[str]:
    with running(directory, store=store, PYTHONPROFILEIMPORTTIME="1") as server:
        server.predict("small", [[0.0] * 30]).raise_for_status()
        lines = server.log_path.read_text().splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")} - {"imported package"}


def _largest(modules: set[str]) -> tuple[tuple[str, float], ...]:
    counts: dict[str, int] = {}
    for module in modules:
        package = module.partition(".")[0]
        counts[package] = counts.get(package, 0) + 1
    return tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:12])
