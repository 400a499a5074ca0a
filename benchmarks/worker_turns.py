"""Services with different numbers of workers under the same load, in turns: requests a second and what one costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.memory import cpu_seconds
from benchmarks.percentiles import median
from benchmarks.server import all_pids
from benchmarks.wrk import Generator, Load
from tests.e2e.harness import Server

FOREST_PATH = "/models/forest/predict"
COLUMNS = ("services", "requests/s", "processor time per request, µs", "p50 ms", "p99 ms", "failures")


@dataclass(frozen=True, slots=True)
class Stretch:
    """One stretch of load: what the generator saw, and the processor time of all processes for each request."""

    per_second: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    failures: int


def load_stretch(
    servers: Sequence[Server], generator: Generator, connections: int, seconds: int, path: str = FOREST_PATH
) -> Stretch:
    """Share `connections` out among the servers and keep them busy, each by a generator of its own. Blocks."""
    pids = [pid for server in servers for pid in all_pids(server)]
    before = cpu_seconds(pids)
    with ThreadPoolExecutor(len(servers)) as pool:

        def load(server: Server) -> Load:
            return generator.load(server.url, path, connections=connections // len(servers), seconds=seconds)

        loads = list(pool.map(load, servers))
    used = cpu_seconds(pids) - before
    per_second = sum(one.per_second for one in loads)
    return Stretch(
        per_second,
        used * 1e6 / (per_second * seconds),
        max(one.p50_ms for one in loads),
        max(one.p99_ms for one in loads),
        sum(one.failures for one in loads),
    )


def load_in_rounds(
    services: Mapping[str, Sequence[Server]],
    generator: Generator,
    *,
    connections: int,
    rounds: int,
    seconds: int,
    path: str = FOREST_PATH,
) -> dict[str, list[Stretch]]:
    """Load one after another, forwards and backwards in turns so that drift favours none. Blocks."""
    found: dict[str, list[Stretch]] = {name: [] for name in services}
    names = list(services)
    for number in range(rounds):
        for name in names[:: 1 if number % 2 == 0 else -1]:
            found[name].append(load_stretch(services[name], generator, connections, seconds, path))
    return found


def ratios(found: Mapping[str, Sequence[Stretch]], what: str, one: str, other: str) -> list[float]:
    """Divide `what` of one service by that of another, round by round."""
    return [getattr(a, what) / getattr(b, what) for a, b in zip(found[one], found[other], strict=True)]


def rows(found: Mapping[str, Sequence[Stretch]]) -> tuple[tuple[str | float, ...], ...]:
    """Return the medians of each service as rows of `COLUMNS`."""
    return tuple(
        (
            name,
            *(
                median([getattr(one, what) for one in stretches])
                for what in ("per_second", "cpu_us", "p50_ms", "p99_ms")
            ),
            sum(one.failures for one in stretches),
        )
        for name, stretches in found.items()
    )
