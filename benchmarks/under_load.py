"""Requests to one model while another, large one becomes active: before, during, and what that looked like."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import cores
from benchmarks.load import OpenLoop, Reply
from benchmarks.models import BODY
from benchmarks.percentiles import Latency, median
from benchmarks.result import Point
from benchmarks.run import Run
from benchmarks.steps import Timeline, step_at

RATE = 200.0
AFTER_SECONDS = 2.0
PAUSE_SECONDS = 3.0
BIN_SECONDS = 0.1
SHOWN_BEFORE_SECONDS = 2.0
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
STEP_COLUMNS = ("after", "it took s (median)", "requests", "p50 ms", "p99 ms", "worst ms")


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


def line(swap: Swap) -> tuple[Point, ...]:
    """Return the worst latency in ms of each tenth of a second, by seconds since the swap began, for a plot."""
    began = swap.during[0].due_at
    worst: dict[int, float] = {}
    for reply in (*swap.steady, *swap.during):
        if (since := reply.due_at - began) >= -SHOWN_BEFORE_SECONDS:
            number = int(since // BIN_SECONDS)
            worst[number] = max(worst.get(number, 0.0), reply.seconds * 1000)
    return tuple((number * BIN_SECONDS, value) for number, value in sorted(worst.items()))


def latency(replies: tuple[Reply, ...]) -> Latency:
    """Summarise requests from when they were due."""
    return Latency.of([reply.seconds for reply in replies])


def measure(
    run: Run,
    url: str,
    path: str,
    forests: list[Path],
    swap: Callable[[int], None],
    *,
    body: bytes = BODY,
    rate: float = RATE,
    generator: Iterable[int] = cores.ALL,
    steady_seconds: float = 20.0,
) -> list[Swap]:
    """Call `swap` with 1, 2, ... for each forest, under load from some cores, and return what happened. Blocks."""
    spans = []
    with OpenLoop(url, path, body, rate, run.scratch / "replies.json", generator) as load:
        time.sleep(PAUSE_SECONDS)  # connections, caches
        for number, forest in enumerate(forests, 1):
            _read_once(forest / "model.joblib")
            time.sleep(PAUSE_SECONDS)
            steady_at = time.monotonic()
            time.sleep(run.count(steady_seconds, 4.0))
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


def by_step(swaps: Iterable[Swap], timelines: Mapping[str, Timeline]) -> tuple[tuple[str | float, ...], ...]:
    """Return how requests fared after each step of the large model, all swaps together."""
    wall_clock = time.time() - time.monotonic()
    found: dict[str, list[Reply]] = {}
    for swap, timeline in zip(swaps, timelines.values(), strict=True):
        for reply in swap.during:
            found.setdefault(step_at(timeline, reply.due_at + wall_clock), []).append(reply)
    rows: list[tuple[str | float, ...]] = []
    names = list(next(iter(timelines.values())))
    for name, following in zip(names, [*names[1:], ""], strict=True):
        ends = [one.get(following, one[name] + AFTER_SECONDS) for one in timelines.values()]
        seconds = median([end - one[name] for end, one in zip(ends, timelines.values(), strict=True)])
        if replies := tuple(found.get(name, ())):
            seen = latency(replies)
            rows.append((name, seconds, seen.count, seen.p50, seen.p99, seen.worst))
        else:
            rows.append((name, seconds, 0, "", "", ""))
    return tuple(rows)


def _read_once(file: Path) -> None:
    """Have the page cache hold a file."""
    with file.open("rb", buffering=0) as stream:
        while stream.read(1 << 24):
            pass
