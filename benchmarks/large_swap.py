"""A large model becomes active while another one is being asked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks import cores
from benchmarks.load import OpenLoop, Reply
from benchmarks.models import BODY, large_forests, publish_logistic, size_mb
from benchmarks.peers import USUAL, peer
from benchmarks.percentiles import Latency, median
from benchmarks.result import Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import LogReader, running
from benchmarks.steps import Drop, steps

RATE = 200.0
AFTER_SECONDS = 2.0
PAUSE_SECONDS = 3.0
METHOD = """A random forest of about a gigabyte (grown trees copied until the file is large enough) is published \
aside and renamed into the store of a server with default settings on two cores; versions follow one \
another, so the third also unloads the first. Meanwhile another process asks a small logistic pipeline \
200 times a second, open loop: each request is due at a fixed time and its latency counts from then. \
"Steady" is a stretch before each rename, "during" lasts from the rename until two seconds after the \
large model became active. The generator runs on the same two cores with a higher priority where that is \
allowed; how late it sent is reported. The large file is in the page cache, as it is after a copy. The \
same is then done to the usual FastAPI service, whose refresh endpoint loads the same files in a thread."""


@dataclass(frozen=True, slots=True)
class Swap:
    """One large model becoming active: the requests before and during it, and how long it took."""

    seconds: float
    steady: tuple[Reply, ...]
    during: tuple[Reply, ...]

    @property
    def failures(self) -> int:
        """How many requests were not answered with 200."""
        return sum(reply.status != 200 for reply in (*self.steady, *self.during))

    def row(self, who: str, number: int) -> tuple[str | float, ...]:
        """Return this swap as a row of the table."""
        before, during = latency(self.steady), latency(self.during)
        lag = max(reply.sent_at - reply.due_at for reply in self.during) * 1000
        figures = (before.p50, before.p99, before.worst, during.p50, during.p99, during.worst)
        return (who, number, self.seconds, *figures, self.failures, lag)


COLUMNS = (
    "server",
    "swap",
    "load s",
    "steady p50 ms",
    "p99",
    "worst",
    "during p50 ms",
    "p99",
    "worst",
    "failures",
    "generator late by at most ms",
)


def run(run: Run) -> Result:
    """Swap large models under load, ours first, then the usual service's."""
    forests = large_forests(run.cache, run.count(1020, 150), run.count(3, 2))
    size = size_mb(forests[0])
    ours, where = _ours(run, forests)
    usual = _usual(run, forests)
    ratio = [latency(swap.during).p99 / latency(swap.steady).p99 for swap in ours]
    usual_ratio = [latency(swap.during).p99 / latency(swap.steady).p99 for swap in usual]
    rows = [swap.row("serving", number) for number, swap in enumerate(ours, 1)]
    rows += [swap.row("usual service", number) for number, swap in enumerate(usual, 1)]
    return Result(
        name="large_swap",
        title="A gigabyte becomes active under 200 requests a second",
        method=METHOD,
        figures=(
            figure("p99 during the swap / p99 before", "×", ratio, at_most=2),
            figure("worst request during a swap", "ms", max(latency(swap.during).worst for swap in ours), at_most=30),
            figure("requests that failed", "", float(sum(swap.failures for swap in ours)), at_most=0),
            figure("p99 before", "ms", [latency(swap.steady).p99 for swap in ours]),
            figure("p99 during", "ms", [latency(swap.during).p99 for swap in ours]),
            figure("rename to active", "s", [swap.seconds for swap in ours]),
            figure("size of the model file", "MB", size),
            figure("usual service: p99 during / p99 before", "×", usual_ratio),
            figure("usual service: worst request", "ms", [latency(swap.during).worst for swap in usual]),
            figure("usual service: seconds to load", "s", [swap.seconds for swap in usual]),
            figure("p99 during, usual service / serving", "×", _p99(usual) / _p99(ours)),
        ),
        tables=(
            Table("Every swap", COLUMNS, tuple(rows)),
            Table("Where the time of a swap goes (medians, from the history)", ("step", "ms"), where),
        ),
    )


def latency(replies: tuple[Reply, ...]) -> Latency:
    """Summarise requests from when they were due."""
    return Latency.of([reply.seconds for reply in replies])


def _p99(swaps: list[Swap]) -> float:
    return median([latency(swap.during).p99 for swap in swaps])


def _ours(run: Run, forests: list[Path]) -> tuple[list[Swap], tuple[tuple[str, float], ...]]:
    directory = run.scratch / "ours"
    publish_logistic(directory / "store", "small", 1)
    aside = run.scratch / "aside"
    aside.mkdir()
    with running(directory, on=cores.first(2)) as server:
        (server.store / "large").mkdir()
        drops: dict[str, Drop] = {}

        def swap(number: int) -> None:
            source, log, began_at = aside / str(number), LogReader(server), time.time()
            source.rename(server.store / "large" / str(number))
            log.wait_active("large", number)
            drops[str(number)] = Drop(began_at, time.time() - began_at)

        for forest in forests:
            _link(forest, aside / forest.name)
        swaps = _measure(run, server.url, "/models/small/predict", forests, swap)
        return swaps, steps(server, "large", drops, "seen")


def _usual(run: Run, forests: list[Path]) -> list[Swap]:
    small = publish_logistic(run.scratch / "usual", "small", 1)
    with peer(USUAL, on=cores.first(2), model=small / "model.joblib") as url:

        def swap(number: int) -> None:
            path = str(forests[number - 1] / "model.joblib")
            httpx.post(url + "/refresh", json={"path": path}, timeout=300).raise_for_status()

        return _measure(run, url, "/predict", forests, swap)


def _measure(run: Run, url: str, path: str, forests: list[Path], swap: Callable[[int], None]) -> list[Swap]:
    """Swap once for each forest under load."""
    spans = []
    with OpenLoop(url, path, BODY, RATE, run.scratch / "replies.json") as load:
        time.sleep(PAUSE_SECONDS)  # connections, caches
        for number, forest in enumerate(forests, 1):
            _read_once(forest / "model.joblib")
            time.sleep(PAUSE_SECONDS)
            steady_at = time.monotonic()
            time.sleep(run.count(20.0, 4.0))
            began = time.monotonic()
            swap(number)
            active_at = time.monotonic()
            time.sleep(AFTER_SECONDS)
            spans.append((steady_at, began, active_at))
        time.sleep(0.5)
    return [
        Swap(
            active_at - began,
            tuple(load.between(steady_at, began)),
            tuple(load.between(began, active_at + AFTER_SECONDS)),
        )
        for steady_at, began, active_at in spans
    ]


def _read_once(file: Path) -> None:
    with file.open("rb", buffering=0) as stream:
        while stream.read(1 << 24):
            pass


def _link(forest: Path, aside: Path) -> None:
    """Make the same version directory again without copying a gigabyte."""
    aside.mkdir()
    for file in forest.iterdir():
        os.link(file, aside / file.name)
