"""How much one server process weighs after its start, and what it has imported."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.memory import MB, memory_of, memory_of_pids
from benchmarks.models import FOREST, GOLDEN_ROWS, KINDS, X, publish_logistic
from benchmarks.result import Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import all_pids, pid_of, running, wait_settled
from serving import publish

FORBIDDEN = ("sklearn", "scipy", "pandas", "joblib", "skops")
FORBIDDEN_TEXT = ", ".join(FORBIDDEN)
HOSTED = {"SERVING_ENGINE__COMPILE": "off"}
METHOD = """A server with one small model in its store, kept hosted, is started, asked once for a prediction, left \
alone for two seconds, and its process read from `/proc/<pid>/smaps_rollup`. The modules it imports are those Python \
itself reports (`PYTHONPROFILEIMPORTTIME`) in one further start. Then the same is done with a random forest of 100 \
trees and default settings, which compile it; it is asked 1,000 times before it is weighed. PSS counts pages shared \
by n processes as 1/n of them."""


def run(run: Run) -> Result:
    """Start a server several times and weigh it."""
    store = run.scratch / "store"
    publish_logistic(store, "small", 1)
    server_memory, children_memory, listening, ready = [], [], [], []
    for number in range(run.count(5, 2)):
        began = time.monotonic()
        directory = run.scratch / str(number)
        with running(directory, store=store, wait_ready=False, **HOSTED) as server:
            listening.append(time.monotonic() - began)
            server.wait_ready()
            ready.append(time.monotonic() - began)
            server.predict("small", [[0.0] * 30]).raise_for_status()
            time.sleep(2)
            server_memory.append(memory_of(pid_of(server)))
            children_memory.append(sum(memory_of(one.pid).proportional for one in server.processes()))
    compiled = [_weigh_compiled(run.scratch / f"compiled-{number}") for number in range(run.count(3, 1))]
    modules = _imported(run.scratch / "imports", store, "small", **HOSTED)
    compiled_modules = _imported(run.scratch / "more-imports", run.scratch / "compiled-0" / "store", "forest")
    hosted_count, compiled_count = _count(modules, (*FORBIDDEN, "onnxruntime")), _count(compiled_modules, FORBIDDEN)
    return Result(
        name="footprint",
        title="The server process after its start",
        method=METHOD,
        figures=(
            figure("server, resident memory", "MB", [one.resident / MB for one in server_memory], at_most=90),
            figure("server, private memory", "MB", [one.private / MB for one in server_memory], at_most=90),
            figure(f"forbidden packages imported ({FORBIDDEN_TEXT}, onnxruntime)", "", hosted_count, at_most=0),
            figure("compiled forest: server, resident memory", "MB", [one[0] for one in compiled], at_most=140),
            figure("compiled forest: all processes, PSS", "MB", [one[1] for one in compiled], at_most=350),
            figure("compiled forest: is compiled", "", float(all(one[2] == "onnx" for one in compiled)), at_least=1),
            figure(f"compiled forest: forbidden packages ({FORBIDDEN_TEXT})", "", compiled_count, at_most=0),
            figure("modules imported", "", float(len(modules))),
            figure("start to listening", "s", listening),
            figure("start to ready with one model", "s", ready),
            figure("zygote and one host together", "MB", [one / MB for one in children_memory]),
        ),
        tables=(Table("Packages with most modules in the server", ("package", "modules"), _largest(modules)),),
    )


def _weigh_compiled(directory: Path) -> tuple[float, float, str]:
    """Return MB of the server, MB of all processes together, and the engine, with one forest of 100 trees."""
    store = directory / "store"
    store.mkdir(parents=True)
    publish(KINDS[FOREST](), "forest", version="1", store=store, X=X, golden=X[:GOLDEN_ROWS], check=False)
    with running(directory) as server:
        engine = wait_settled(server, 1)["forest"]
        for _ in range(1000):
            server.predict("forest", [[0.0] * 30]).raise_for_status()
        time.sleep(2)
        memory = memory_of_pids(all_pids(server))
    return memory[0].resident / MB, sum(one.proportional for one in memory) / MB, engine


def _imported(directory: Path, store: Path, model: str, **environment: str) -> set[str]:
    with running(directory, store=store, PYTHONPROFILEIMPORTTIME="1", **environment) as server:
        server.predict(model, [[0.0] * 30]).raise_for_status()
        lines = server.log_path.read_text().splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")} - {"imported package"}


def _count(modules: set[str], packages: tuple[str, ...]) -> float:
    """Return how many of the packages have been imported."""
    return float(len({module.partition(".")[0] for module in modules} & set(packages)))


def _largest(modules: set[str]) -> tuple[tuple[str, float], ...]:
    counts: dict[str, int] = {}
    for module in modules:
        package = module.partition(".")[0]
        counts[package] = counts.get(package, 0) + 1
    return tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:12])
