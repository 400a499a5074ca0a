"""``docs/performance.md``, written from the results of the last runs. Every number in it comes from there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.result import Result, read
from benchmarks.show import FIGURE_COLUMNS, SUMMARY_COLUMNS, figure_row, markdown, number, summary_rows, table_rows

INTRODUCTION = """# Performance

Written by `python -m benchmarks --report` from `benchmarks/results/`; do not edit it by hand. `make bench`
measures again, `make bench ARGS="drop predict"` only some; [`benchmarks/README.md`](../benchmarks/README.md) says
how.

Absolute figures are those of one machine and halve when somebody else uses it. What carries over are ratios, so
peers and limits are measured in the same run, in turns. A figure with a spread is a median; the spread is the
lowest and the highest value. Tests never assert times: a target is held here, met or missed.
"""


def load(directory: Path) -> list[Result]:
    """Read all results there are, by name."""
    return [read(path) for path in sorted(directory.glob("*.json"))]


def render(results: Sequence[Result]) -> str:
    """Return the whole page."""
    if not results:
        return f"{INTRODUCTION}\nNothing has been measured yet.\n"
    parts = [INTRODUCTION, "## What was promised", markdown(SUMMARY_COLUMNS, summary_rows(results))]
    for result in results:
        parts += _section(result)
    parts += ["## Where it ran", _places(results)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _section(result: Result) -> list[str]:
    found = result.circumstances
    busy = f"{number(found['busy_before_percent'])}% before and {number(found['busy_after_percent'])}% after"
    when = f"`{result.name}`, {found['date']}; others kept the machine busy {busy}."
    parts = [f"## {result.title}", when, result.method]
    parts.append(markdown(FIGURE_COLUMNS, [figure_row(one) for one in result.figures]))
    for table in result.tables:
        parts += [f"{table.title}:", markdown(table.columns, table_rows(table))]
    return parts


def _places(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        machine, versions = result.circumstances["machine"], result.circumstances["versions"]
        where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']:g} GB, {machine['system']}"
        rows.append((result.name, where, ", ".join(f"{name} {one}" for name, one in versions.items())))
    return markdown(("benchmark", "machine", "versions"), rows)
