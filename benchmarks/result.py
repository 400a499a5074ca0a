"""What a benchmark returns, and the file it is kept in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.percentiles import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One number: what it is, its unit, the lowest and highest of the `count` values whose median it is.

    `target` is the bound as people read it, None where nothing was promised; then `is_met` is None too.
    """

    what: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    count: int | None = None
    target: str | None = None
    is_met: bool | None = None


def figure(
    what: str,
    unit: str,
    value: float | Sequence[float],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Figure:
    """Return one value, or the median of several with their lowest and highest, held against its target if any."""
    low = high = count = None
    if isinstance(value, Sequence):
        low, high, count = min(value), max(value), len(value)
        value = median(value)
    target = is_met = None
    if at_most is not None:
        target, is_met = f"≤ {at_most:g} {unit}".strip(), value <= at_most
    elif at_least is not None:
        target, is_met = f"≥ {at_least:g} {unit}".strip(), value >= at_least
    return Figure(what, value, unit, low, high, count, target, is_met)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows beside one another that are no figures of their own."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]


Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing: either `bars` of so many `unit`s, or `lines` of points (seconds, `unit`s), each with its name."""

    title: str
    unit: str
    bars: tuple[tuple[str, float], ...] = ()
    lines: tuple[tuple[str, tuple[Point, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """Everything one run of one benchmark found. `method` says how it was measured, in sentences."""

    name: str
    title: str
    method: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    circumstances: dict[str, Any] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Keep it as ``<name>.json``."""
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_rounded(asdict(self)), indent=1, ensure_ascii=False)
        (directory / f"{self.name}.json").write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> Result:
    """Read what `Result.write` has written."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    return Result(
        name=fields["name"],
        title=fields["title"],
        method=fields["method"],
        figures=tuple(Figure(**one) for one in fields["figures"]),
        tables=tuple(
            Table(one["title"], tuple(one["columns"]), tuple(tuple(row) for row in one["rows"]))
            for one in fields["tables"]
        ),
        plots=tuple(_plot(one) for one in fields.get("plots", ())),
        circumstances=fields["circumstances"],
    )


def _plot(fields: dict[str, Any]) -> Plot:
    bars = tuple((name, value) for name, value in fields["bars"])
    lines = tuple((name, tuple((at, value) for at, value in points)) for name, points in fields["lines"])
    return Plot(fields["title"], fields["unit"], bars, lines)


def _rounded(value: Any) -> Any:
    """Keep five digits of every number: more would be noise, and the files are committed."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    return value
