"""``serving rollout``: shows how a new version takes over, once or again and again, and steers it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.cli.client import ServerClient
from serving.cli.operate import Json, Name, Url, connect_operator, connect_reader
from serving.cli.output import is_terminal, one_line, show
from serving.cli.rollout_output import describe_rollout, describe_summary
from serving.cli.status_output import describe_active
from serving.domain.rollout import RolloutAction, RolloutEnd, RolloutStatus, RolloutSummary
from serving.domain.status import ModelSummary

POLL_SECONDS = 0.5
DONE = {
    RolloutAction.PROMOTE: "{model} is promoted",
    RolloutAction.ROLLBACK: "{model} is rolled back",
    RolloutAction.HOLD: "{model} is held where it is",
    RolloutAction.RESUME: "{model} goes on",
}


def rollout(
    name: Name,
    action: Annotated[
        RolloutAction | None, typer.Argument(metavar="[promote|rollback|hold|resume]", help="What to do with it.")
    ] = None,
    *,
    version: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="The new version that is meant: makes the call safe to repeat."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it until it has ended.")] = False,
    url: Url = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with a token; not given: security.admin_token, or read_token to look."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how a new version takes over, or promote, roll back, hold or resume it.

    With --watch, it is shown until nothing is under way any more; exits with 1 when the new version went back.
    """
    if version is not None and action is None:
        raise typer.BadParameter("goes with promote, rollback, hold or resume", param_hint="--version")
    if action is not None:
        body = {"action": action.value} | ({"version": version} if version is not None else {})
        server = connect_operator(url, token_file)
        answer = server.post("models", name, "rollout", body=body)
        said = DONE[action].format(model=name if version is None else f"{name}/{version}")
        active = describe_active(server.parse_answer(ModelSummary, answer))
        show(json.dumps(answer, indent=2) if as_json else one_line(f"{said}; {active}"))
        if not watch:
            return
    server = connect_reader(url, token_file)
    if watch:
        _watch(server, name)
    else:
        status, raw = _ask(server, name)
        _show_lines([json.dumps(raw, indent=2)] if as_json else describe_rollout(status, datetime.now(UTC)))


def _ask(server: ServerClient, name: str) -> tuple[RolloutStatus, Any]:
    answer = server.get("models", name, "rollout")
    return server.parse_answer(RolloutStatus, answer), answer


def _watch(server: ServerClient, name: str) -> None:
    """Show a rollout until nothing is under way; raises typer.Exit when its version went back."""
    seen: str | None = None
    with _show_again() as show_again:
        while True:
            status, _ = _ask(server, name)
            show_again(status)
            if status.running is None:
                break
            seen = status.running.version
            time.sleep(POLL_SECONDS)
    last = status.last
    if seen is not None and last is not None and last.version == seen and last.end is RolloutEnd.ROLLED_BACK:
        raise typer.Exit(1)


@contextmanager
def _show_again() -> Iterator[Callable[[RolloutStatus], None]]:
    """Yield a function that shows a status: on a terminal in place of the one before, elsewhere what has changed."""
    if not is_terminal():
        yield _NewsOnly().show
        return
    from rich.live import Live  # noqa: PLC0415  (only a terminal pays for it)
    from rich.text import Text  # noqa: PLC0415  (the same)

    with Live(auto_refresh=False) as live:
        yield lambda status: live.update(Text("\n".join(describe_rollout(status, datetime.now(UTC)))), refresh=True)


class _NewsOnly:
    """Shows a line when there is something new to decide or to see, and everything at the end."""

    def __init__(self) -> None:
        self._known: Any = None

    def show(self, status: RolloutStatus) -> None:
        running, summary = status.running, RolloutSummary.of(status)
        if running is None or summary is None:
            _show_lines(describe_rollout(status, datetime.now(UTC)))
            return
        news = running.version, running.phase, running.share, running.is_held, running.verdict
        if news != self._known:
            self._known = news
            _show_lines(describe_summary(status.model, summary))


def _show_lines(lines: list[str]) -> None:
    for line in lines:
        show(line)
