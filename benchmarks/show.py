"""Figures and tables as people read them: on a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.result import Figure, Result, Table

FIGURE_COLUMNS = ("what", "measured", "lowest – highest", "target", "")
SUMMARY_COLUMNS = ("benchmark", *FIGURE_COLUMNS)


def number(value: float) -> str:
    """Return a number with as many digits as it deserves."""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.2g}"


def figure_row(figure: Figure) -> tuple[str, ...]:
    """Return a figure as a row of `FIGURE_COLUMNS`."""
    spread = ""
    if figure.low is not None and figure.high is not None:
        spread = f"{number(figure.low)} – {number(figure.high)} (median of {figure.count})"
    verdict = {True: "met", False: "MISSED", None: ""}[figure.is_met]
    return (figure.what, f"{number(figure.value)} {figure.unit}".strip(), spread, figure.target or "", verdict)


def summary_rows(results: Iterable[Result]) -> list[tuple[str, ...]]:
    """Return every figure that has a target."""
    return [(result.name, *figure_row(one)) for result in results for one in result.figures if one.target]


def table_rows(table: Table) -> list[tuple[str, ...]]:
    """Return the rows of a table as text."""
    return [tuple(one if isinstance(one, str) else number(one) for one in row) for row in table.rows]


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(one) + " |" for one in lines)


def print_result(console: Console, result: Result) -> None:
    """Print everything one benchmark found."""
    _print(console, result.title, FIGURE_COLUMNS, [figure_row(one) for one in result.figures])
    for table in result.tables:
        _print(console, table.title, table.columns, table_rows(table))


def print_summary(console: Console, results: Sequence[Result]) -> None:
    """Print what was promised and what was measured."""
    rows = summary_rows(results)
    missed = sum(row[-1] == "MISSED" for row in rows)
    _print(console, f"{len(rows) - missed} of {len(rows)} targets met", SUMMARY_COLUMNS, rows)


def _print(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = RichTable(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row, style="bold red" if row[-1] == "MISSED" else "")
    console.print(table)
