"""What was promised of predictions, held against what was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.contenders import COMPILED, ECHO, HOSTED, USUAL, Contender, ratios
from benchmarks.models import BOOSTING, FOREST, KINDS, LOGISTIC
from benchmarks.percentiles import median
from benchmarks.result import Figure, Plot, Table, figure

LARGE = 10_000
LIMIT_PERCENT = {FOREST: 50.0, LOGISTIC: 50.0, BOOSTING: 40.0}
FOREST_TIMES = 60.0
COMPILED_MICROSECONDS, HOSTED_MICROSECONDS = 50.0, 120.0
LOOP_PERCENT = 70.0


@dataclass(slots=True)
class Alone:
    """The models without a server: milliseconds for a row, and bodies a second of the loop, round by round.

    `restless` counts the times when the core was still busy with something else after a long wait.
    """

    predict_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    per_second: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    restless: int = 0

    def table(self) -> Table:
        """Return the medians."""
        rows: list[tuple[str | float, ...]] = [
            (kind, "sklearn", "predict of one row, ms", median(took)) for kind, took in self.predict_ms.items()
        ]
        rows += [
            (kind, engine, "bodies/s, 10,000 rows", median(found)) for (kind, engine), found in self.per_second.items()
        ]
        return Table("In process, on the same core", ("model", "engine", "what", "measured"), tuple(rows))


def figures(contenders: Sequence[Contender], own: Alone) -> Iterator[Figure]:
    """Yield every figure of the benchmark."""
    by = {(one.kind, one.server): one for one in contenders}
    echo = by[ECHO, ECHO]
    yield from _throughput(by, echo)
    yield from _lone(by, echo, own)
    yield from _large(by, own)
    failures = float(sum(one.failures for one in contenders))
    yield figure("times the servers' core did not come to rest", "", float(own.restless), at_most=0)
    yield figure("requests that failed, all servers", "", failures, at_most=0)


def _throughput(by: dict[tuple[str, str], Contender], echo: Contender) -> Iterator[Figure]:
    limit = echo.per_second(1, 16)
    for kind in KINDS:
        compiled, hosted, usual = (by[kind, server].per_second(1, 16) for server in (COMPILED, HOSTED, USUAL))
        share = [one * 100 for one in ratios(compiled, limit)]
        yield figure(f"{kind}, compiled: requests/s, share of the echo", "%", share, at_least=LIMIT_PERCENT.get(kind))
        times = ratios(compiled, usual)
        at_least = FOREST_TIMES if kind == FOREST else None
        yield figure(f"{kind}, compiled: requests/s, serving / usual service", "×", times, at_least=at_least)
        yield figure(f"{kind}, hosted: requests/s, serving / usual service", "×", ratios(hosted, usual), at_least=1)
        share = [one * 100 for one in ratios(hosted, limit)]
        yield figure(f"{kind}, hosted: requests/s, share of the echo", "%", share)


def _lone(by: dict[tuple[str, str], Contender], echo: Contender, own: Alone) -> Iterator[Figure]:
    least = echo.p50_ms(1, 1)
    for kind in KINDS:
        compiled, hosted, usual = (by[kind, server].p50_ms(1, 1) for server in (COMPILED, HOSTED, USUAL))
        yield figure(
            f"{kind}, hosted: lone client's p50, serving / usual service", "×", ratios(hosted, usual), at_most=1
        )
        above = [(a - b) * 1000 for a, b in zip(compiled, least, strict=True)]
        at_most = COMPILED_MICROSECONDS if kind in LIMIT_PERCENT else None
        yield figure(f"{kind}, compiled: lone client's p50 above the echo's", "µs", above, at_most=at_most)
        rounds = zip(hosted, least, own.predict_ms[kind], strict=True)
        above = [(a - b - model) * 1000 for a, b, model in rounds]
        what = f"{kind}, hosted: lone client's p50 above echo and model alone"
        yield figure(what, "µs", above, at_most=HOSTED_MICROSECONDS)


def _large(by: dict[tuple[str, str], Contender], own: Alone) -> Iterator[Figure]:
    for (kind, engine), bodies in own.per_second.items():
        server, label = (COMPILED, "compiled") if engine == "onnx" else (HOSTED, "hosted")
        share = [one * 100 for one in ratios(by[kind, server].per_second(LARGE, 1), bodies)]
        yield figure(f"{kind}, {label}: 10,000 rows, share of the loop in process", "%", share, at_least=LOOP_PERCENT)


def bars(contenders: Sequence[Contender]) -> Iterator[Plot]:
    """Yield requests a second with one row and 16 connections, as bars."""
    found = [(f"{one.kind}, {one.server}" if one.kind != ECHO else ECHO, one) for one in contenders]
    items = sorted(((name, median(one.per_second(1, 16))) for name, one in found), key=lambda item: -item[1])
    yield Plot("One row, 16 connections, one core", "requests/s", bars=tuple(items))
