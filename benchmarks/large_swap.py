"""A large model becomes active while another one is being asked."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from benchmarks import cores
from benchmarks.models import large_forests, publish_logistic, size_mb
from benchmarks.peers import USUAL, peer
from benchmarks.percentiles import median
from benchmarks.result import Figure, Plot, Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import LogReader, running, wait_settled
from benchmarks.steps import Drop, Timeline, read_timelines
from benchmarks.under_load import COLUMNS, STEP_COLUMNS, Swap, by_step, latency, line, measure

METHOD = """A random forest of about a gigabyte (grown trees copied until the file is large enough) is published \
aside and renamed into the store of a server with default settings on two cores; versions follow one another, so the \
third also unloads the first. Meanwhile another process asks a small logistic pipeline 200 times a second, open \
loop: each request is due at a fixed time and its latency counts from then. "Steady" is a stretch before each \
rename, "during" lasts from the rename until two seconds after the large model became active. The generator runs on \
the same two cores with a higher priority where that is allowed; how late it sent is reported. The large file is in \
the page cache, as it is after a copy. The same is then done to the usual FastAPI service, whose refresh endpoint \
loads the same files in a thread, and once more to this server with all of its processes on one core and the \
generator on the other. The engines are those of `GET /models/active`: a forest of this size stays hosted."""


def run(run: Run) -> Result:
    """Swap large models under load, ours first, then the usual service's."""
    forests = large_forests(run.cache, run.count(1020, 150), run.count(3, 2))
    ours, timelines, engines = serve_and_swap(run, forests, cores.first(2), cores.ALL)
    alone, _, _ = serve_and_swap(run, forests, [cores.SERVER_CORE], [cores.CLIENT_CORE])
    usual = swap_usual(run, forests, cores.first(2), cores.ALL)
    rows = [swap.row("serving", number) for number, swap in enumerate(ours, 1)]
    rows += [swap.row("serving, one core", number) for number, swap in enumerate(alone, 1)]
    rows += [swap.row("usual service", number) for number, swap in enumerate(usual, 1)]
    return Result(
        name="large_swap",
        title="A gigabyte becomes active under 200 requests a second",
        method=METHOD,
        figures=_figures(ours, alone, usual, size_mb(forests[0])),
        plots=(
            Plot(
                "Worst request of each tenth of a second",
                "ms",
                lines=(
                    ("serving", line(ours[-1])),
                    ("usual service", line(usual[-1])),
                ),
            ),
        ),
        tables=(
            Table("Every swap", COLUMNS, tuple(rows)),
            Table("Engines of this server", ("model", "engine"), tuple(engines.items())),
            Table("This server, step by step (times from the history)", STEP_COLUMNS, by_step(ours, timelines)),
        ),
    )


def _figures(ours: list[Swap], alone: list[Swap], usual: list[Swap], size: float) -> tuple[Figure, ...]:
    """Return what was promised and what else was found."""
    ratio = [latency(swap.during).p99 / latency(swap.steady).p99 for swap in ours]
    usual_ratio = [latency(swap.during).p99 / latency(swap.steady).p99 for swap in usual]
    return (
        figure("p99 during the swap / p99 before", "×", ratio, at_most=1.5),
        figure("worst request during a swap", "ms", max(latency(swap.during).worst for swap in ours), at_most=20),
        figure("on one core: p99 during the swap", "ms", [latency(swap.during).p99 for swap in alone], at_most=10),
        figure("on one core: worst request", "ms", [latency(swap.during).worst for swap in alone]),
        figure("requests that failed", "", float(sum(swap.failures for swap in (*ours, *alone))), at_most=0),
        figure("p99 before", "ms", [latency(swap.steady).p99 for swap in ours]),
        figure("p99 during", "ms", [latency(swap.during).p99 for swap in ours]),
        figure("rename to active", "s", [swap.seconds for swap in ours]),
        figure("size of the model file", "MB", size),
        figure("usual service: p99 during / p99 before", "×", usual_ratio),
        figure("usual service: worst request", "ms", [latency(swap.during).worst for swap in usual]),
        figure("usual service: seconds to load", "s", [swap.seconds for swap in usual]),
        figure("p99 during, usual service / serving", "×", _p99(usual) / _p99(ours)),
    )


def _p99(swaps: list[Swap]) -> float:
    return median([latency(swap.during).p99 for swap in swaps])


def serve_and_swap(
    run: Run, forests: list[Path], on: Sequence[int], generator: Sequence[int]
) -> tuple[list[Swap], dict[str, Timeline], dict[str, str]]:
    """Swap the forests into our server on some cores; return the swaps, the steps of each, and the engines."""
    directory = run.scratch / f"ours-{len(on)}"
    publish_logistic(directory / "store", "small", 1)
    aside = run.scratch / f"aside-{len(on)}"
    aside.mkdir()
    with running(directory, on=on) as server:
        (server.store / "large").mkdir()
        drops: dict[str, Drop] = {}

        def swap(number: int) -> None:
            source, log, began_at = aside / str(number), LogReader(server), time.time()
            source.rename(server.store / "large" / str(number))
            log.wait_active("large", number)
            drops[str(number)] = Drop(began_at, time.time() - began_at)

        for forest in forests:
            link(forest, aside / forest.name)
        swaps = measure(run, server.url, "/models/small/predict", forests, swap, generator=generator)
        return swaps, read_timelines(server, "large", drops), wait_settled(server, 2)


def swap_usual(run: Run, forests: list[Path], on: Sequence[int], generator: Sequence[int]) -> list[Swap]:
    """Have the usual service on some cores load the forests."""
    small = publish_logistic(run.scratch / "usual", "small", 1)
    with peer(USUAL, on=on, model=small / "model.joblib") as url:

        def swap(number: int) -> None:
            path = str(forests[number - 1] / "model.joblib")
            httpx.post(url + "/refresh", json={"path": path}, timeout=300).raise_for_status()

        return measure(run, url, "/predict", forests, swap, generator=generator)


def link(forest: Path, aside: Path) -> None:
    """Make the same version directory again without copying a gigabyte."""
    aside.mkdir(parents=True)
    for file in forest.iterdir():
        os.link(file, aside / file.name)
