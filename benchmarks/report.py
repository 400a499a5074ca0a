"""``docs/performance.md`` and its plots, written from the results of the last runs: every number comes from there."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from benchmarks import svg
from benchmarks.result import Result, read
from benchmarks.show import FIGURE_COLUMNS, SUMMARY_COLUMNS, figure_row, markdown, number, summary_rows, table_rows

WIDTH = 120
QUIET_PERCENT = 10.0
INTRODUCTION = """# Performance

Written by `python -m benchmarks --report` from `benchmarks/results/`; do not edit it by hand. `make bench`
measures again, `make bench ARGS="drop predict"` only some, `make bench-peers` and `make bench-swap` put other servers
beside this one; [`benchmarks/README.md`](../benchmarks/README.md) says how.

Absolute figures are those of one machine; they halve when other programs use it. Ratios are comparable between
machines, so peers and limits are measured in the same run, in turns. A figure with a spread is a median; the spread
is the lowest and the highest value. Tests never assert times: this page compares them with targets, met or missed.
"""


def load(directory: Path) -> list[Result]:
    """Read all results there are, by name."""
    return [read(path) for path in sorted(directory.glob("*.json"))]


def render(results: Sequence[Result]) -> str:
    """Return the whole page."""
    if not results:
        return f"{INTRODUCTION}\nNothing has been measured yet.\n"
    parts = [INTRODUCTION, "## What was promised", *_warning(results), markdown(SUMMARY_COLUMNS, summary_rows(results))]
    for result in results:
        parts += _section(result)
    parts += ["## Where it ran", _places(results)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def plots(results: Sequence[Result]) -> dict[str, str]:
    """Return the content of every plot by its file name."""
    return {_plot_name(one, number): svg.draw(plot) for one in results for number, plot in enumerate(one.plots, 1)}


def _plot_name(result: Result, number: int) -> str:
    return f"{result.name}-{number}.svg"


def _warning(results: Sequence[Result]) -> list[str]:
    """Say which results were not measured on a machine left alone."""
    names = [f"`{one.name}`" for one in results if max(_busy(one)) > QUIET_PERCENT]
    if not names:
        return []
    text = f"**Not final:** others used the machine while {', '.join(names)} ran; times there say little."
    return [textwrap.fill(text, WIDTH)]


def _busy(result: Result) -> tuple[float, float]:
    return result.circumstances["busy_before_percent"], result.circumstances["busy_after_percent"]


def _section(result: Result) -> list[str]:
    before, after = map(number, _busy(result))
    date = result.circumstances["date"]
    when = f"`{result.name}`, {date}; others kept the machine busy {before}% before and {after}% after."
    parts = [f"## {result.title}", when, textwrap.fill(result.method, WIDTH, break_on_hyphens=False)]
    parts.append(markdown(FIGURE_COLUMNS, [figure_row(one) for one in result.figures]))
    parts += [f"![{one.title}](plots/{_plot_name(result, place)})" for place, one in enumerate(result.plots, 1)]
    for table in result.tables:
        parts += [f"{table.title}:", markdown(table.columns, table_rows(table))]
    return parts


def _places(results: Sequence[Result]) -> str:
    names: dict[tuple[str, str], list[str]] = {}
    for result in results:
        machine, versions = result.circumstances["machine"], result.circumstances["versions"]
        where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']:g} GB, {machine['system']}"
        what = ", ".join(f"{name} {one}" for name, one in versions.items())
        names.setdefault((where, what), []).append(result.name)
    rows = [(", ".join(found), where, what) for (where, what), found in names.items()]
    return markdown(("benchmarks", "machine", "versions"), rows)
