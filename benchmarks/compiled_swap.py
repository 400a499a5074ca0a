"""A compiled forest of a million nodes is swapped for another one while it is being asked."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from benchmarks import cores
from benchmarks.large_swap import link
from benchmarks.load import closed_loop
from benchmarks.models import GOLDEN_ROWS, LARGE_FEATURES
from benchmarks.result import Figure, Plot, Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import LogReader, running, wait_settled
from benchmarks.under_load import COLUMNS, Swap, latency, line, measure
from serving import publish

ROWS = 20_000
SHARE = 0.5
BODY = b'{"instances": [[%s]]}' % b", ".join([b"0.25"] * LARGE_FEATURES)
METHOD = """A random forest with a million nodes in all is active on a server with default settings on two cores; \
others like it, grown with other seeds, are renamed into the store one after another. Half of the requests/s that 16 \
connections get answered before are sent to that very model meanwhile, one row each, open loop: each request is due \
at a fixed time and its latency counts from then. "Steady" is a stretch before each rename, "during" lasts from the \
rename until two seconds after the new version became active. The generator runs on the same two cores with a higher \
priority where that is allowed; how late it sent is reported. The engine is that of `GET /models/active`."""


def run(run: Run) -> Result:
    """Swap one for another."""
    forests = _forests(run.cache, run.count(1_000_000, 50_000), run.count(4, 3))
    directory, aside = run.scratch / "server", run.scratch / "aside"
    for forest in forests:
        link(forest, (directory / "store" / "forest" if forest == forests[0] else aside) / forest.name)
    with running(directory, on=cores.first(2)) as server:
        engine = wait_settled(server, 1)["forest"]
        path, file = "/models/forest/predict", run.scratch / "capacity.json"
        seconds = run.count(5.0, 1.0)
        found = closed_loop(server.url, path, BODY, file, connections=16, seconds=seconds, cores=cores.ALL)
        rate = SHARE * len(found) / seconds

        def swap(number: int) -> None:
            version, log = forests[number].name, LogReader(server)
            (aside / version).rename(server.store / "forest" / version)
            log.wait_active("forest", version)
            time.sleep(0.1)

        swaps = measure(run, server.url, path, forests[1:], swap, body=BODY, rate=rate)
        engines = (("first", engine), ("last", wait_settled(server, 1)["forest"]))
    return Result(
        name="compiled_swap",
        title="A compiled forest of a million nodes is swapped under half the load it can take",
        method=METHOD,
        figures=_figures(swaps, engines, rate),
        tables=(
            Table("Every swap", COLUMNS, tuple(swap.row("serving", number) for number, swap in enumerate(swaps, 1))),
            Table("Engine", ("version", "engine"), engines),
        ),
        plots=(Plot("Worst request of each tenth of a second", "ms", lines=(("serving", line(swaps[-1])),)),),
    )


def _figures(swaps: Sequence[Swap], engines: Sequence[tuple[str, str]], rate: float) -> tuple[Figure, ...]:
    """Return what was promised and what else was found."""
    ratio = [latency(swap.during).p99 / latency(swap.steady).p99 for swap in swaps]
    return (
        figure("p99 during the swap / p99 before", "×", ratio, at_most=1.3),
        figure("worst request during a swap", "ms", max(latency(swap.during).worst for swap in swaps), at_most=10),
        figure("requests that failed", "", float(sum(swap.failures for swap in swaps)), at_most=0),
        figure("forests that are compiled", "", float(sum(one == "onnx" for _, one in engines)), at_least=2),
        figure("p99 before", "ms", [latency(swap.steady).p99 for swap in swaps]),
        figure("p99 during", "ms", [latency(swap.during).p99 for swap in swaps]),
        figure("rename to active", "s", [swap.seconds for swap in swaps]),
        figure("requests/s sent", "", rate),
    )


def _forests(cache: Path, nodes: int, versions: int) -> list[Path]:
    """Return published forests of so many nodes; made once, kept in `cache`."""
    store = cache / f"nodes-{nodes}"
    paths = [store / "forest" / str(version) for version in range(1, versions + 1)]
    if all(path.is_dir() for path in paths):
        return paths
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir(parents=True)
    for path in paths:
        forest, rows = _grow(nodes, int(path.name))
        publish(forest, "forest", version=path.name, store=store, X=rows, golden=rows[:GOLDEN_ROWS], check=False)
    return paths


def _grow(nodes: int, seed: int) -> tuple[RandomForestClassifier, np.ndarray]:
    """Grow trees on noise until they have so many nodes together."""
    random = np.random.default_rng(seed)
    rows, answers = random.normal(size=(ROWS, LARGE_FEATURES)), random.integers(0, 2, ROWS)
    forest = RandomForestClassifier(1, warm_start=True, max_features=1, random_state=seed).fit(rows, answers)
    per_tree = forest.estimators_[0].tree_.node_count
    forest.set_params(n_estimators=max(1, round(nodes / per_tree)), n_jobs=-1).fit(rows, answers)
    return forest.set_params(n_jobs=None), rows[:1000]
