"""Prints text for people: tables and colour on a terminal, plain aligned lines elsewhere."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import typer

from serving.domain import text as texts

_STYLES = {
    "passed": "green",
    "warned": "yellow",
    "skipped": "dim",
    "refused": "bold red",
    "ACTIVE": "green",
    "REJECTED": "red",
    "FAILED": "red",
    "QUARANTINED": "yellow",
}


def is_terminal() -> bool:
    """Say whether standard output is a terminal."""
    return sys.stdout.isatty()


def allow_any_text() -> None:
    """Let standard output and error show characters that their encoding lacks as ``?`` instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def can_show(text: str) -> bool:
    """Say whether standard output has all characters of a text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def one_line(text: object) -> str:
    """Return foreign text (of a server, of a model file) as one printable line: it must not control the terminal."""
    return texts.one_line(str(text), None)


def show(text: object = "") -> None:
    """Print one line now. `typer.echo` would write over the line of `show_progress`."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def show_error(text: object) -> None:
    """Print one line on standard error."""
    typer.echo(text, err=True)


def silence_logs() -> None:
    """Show nothing of this package's log but errors, on standard error: a command prints what it has to say."""
    import logging  # noqa: PLC0415  (not for --help)

    import structlog  # noqa: PLC0415  (the same)

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def show_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their headings; a terminal wraps the last column, which may be long."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    if is_terminal():
        _show_rich(head, cells)
        return
    widths = [max(len(row[column]) for row in [list(head), *cells]) for column in range(len(head))]
    for row in [list(head), *cells]:
        show("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@contextmanager
def show_progress(text: str) -> Iterator[Callable[[str], None]]:
    """Show the present work on a terminal; yields a function that shows the step. Elsewhere both do nothing."""
    if not is_terminal():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415  (only a terminal pays for it)
    from rich.text import Text  # noqa: PLC0415  (the same)

    with Console().status(Text(text)) as status:
        yield lambda step: status.update(Text(one_line(f"{text}: {step}")))


def _show_rich(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415  (only a terminal pays for it)
    from rich.table import Table  # noqa: PLC0415  (the same)
    from rich.text import Text  # noqa: PLC0415  (the same)

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, name in enumerate(head):
        is_last = column == len(head) - 1
        table.add_column(name, no_wrap=not is_last, overflow="fold" if is_last else "ellipsis")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console().print(table)
