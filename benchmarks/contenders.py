"""Servers that are loaded in turns: what is asked of each, for how long, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from benchmarks.cores import SERVER_CORE, wait_idle
from benchmarks.percentiles import median
from benchmarks.wrk import Generator, Load

COMPILED, HOSTED, USUAL, ECHO = "serving, compiled", "serving, hosted", "usual service", "echo"
ABANDONED_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Cell:
    """One sort of load: rows in a request, connections, and how long in how many rounds."""

    rows: int
    connections: int
    rounds: int
    seconds: int


Key = tuple[int, int]


@dataclass(slots=True)
class Contender:
    """One server with one model, and its loads, one for each round of each cell."""

    kind: str
    server: str
    engine: str
    url: str
    path: str
    loads: dict[Key, list[Load]] = field(default_factory=dict)

    def per_second(self, rows: int, connections: int) -> list[float]:
        """Return requests a second, round by round."""
        return [load.per_second for load in self.loads[rows, connections]]

    def p50_ms(self, rows: int, connections: int) -> list[float]:
        """Return median latencies, round by round."""
        return [load.p50_ms for load in self.loads[rows, connections]]

    @property
    def failures(self) -> int:
        """Return how many requests failed in all."""
        return sum(load.failures for loads in self.loads.values() for load in loads)

    def row(self, key: Key) -> tuple[str | float, ...]:
        """Return medians over the rounds of one cell as a row of a table."""
        loads = self.loads[key]
        middle = [median([getattr(load, name) for load in loads]) for name in ("per_second", "p50_ms", "p99_ms")]
        return self.kind, self.server, self.engine, *key, *middle, sum(load.failures for load in loads)


ROW_COLUMNS = ("model", "server", "engine", "rows", "connections", "requests/s", "p50 ms", "p99 ms", "failures")


def check(contender: Contender, body: bytes, label: int) -> None:
    """Ask once: every server must answer, and alike, or the comparison is of nothing."""
    headers = {"content-type": "application/json"}
    answer = httpx.post(contender.url + contender.path, content=body, headers=headers, timeout=60)
    answer.raise_for_status()
    if answer.json()["predictions"] != [label]:
        raise RuntimeError(f"{contender.server} answers {answer.text}, not {label}")


def load_in_turns(
    contenders: Sequence[Contender],
    generators: Mapping[tuple[str, int], Generator],
    cell: Cell,
    number: int,
    patience_seconds: float,
) -> int:
    """Load one after another, forwards and backwards in turns so that drift favours nobody. Blocks.

    `patience_seconds` bounds the wait for what is still being computed when the generator of a heavy load has left.
    Return how often the servers' core had not come to rest then.
    """
    restless = 0
    for contender in contenders[:: 1 if number % 2 == 0 else -1]:
        generator = generators[contender.kind, cell.rows]
        found = generator.load(contender.url, contender.path, connections=cell.connections, seconds=cell.seconds)
        contender.loads.setdefault((cell.rows, cell.connections), []).append(found)
        if cell.rows * cell.connections >= ABANDONED_ROWS:  # the generator has left; the server may not know yet
            restless += not wait_idle(SERVER_CORE, patience_seconds)
    return restless


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Divide round by round."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]
