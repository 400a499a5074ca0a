"""Registers the commands and runs one. Commands are thin: they read options, call and print, and import late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from serving import __version__
from serving.cli import (
    bench,
    environment_commands,
    operate,
    replay_command,
    rollout_command,
    serve,
    signing,
    store,
    wait,
)
from serving.cli.options import SettingsCommand
from serving.cli.output import allow_any_text, one_line, show, show_error
from serving.domain.errors import ServingError
from serving.settings import SettingsError

FAILED, MISUSED, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    help="Put a model file into a directory: it answers over HTTP. Put a newer one there: it takes over.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
of_files: tuple[Callable[..., None], ...] = (serve.serve, store.demo, store.publish, store.check, signing.verify)
for command in of_files:
    app.command(cls=SettingsCommand)(command)
others: tuple[Callable[..., None], ...] = (
    signing.keygen,
    operate.status,
    wait.wait,
    operate.history,
    operate.pin,
    operate.unpin,
    operate.label,
    operate.rollback,
    rollout_command.rollout,
    operate.release,
    operate.unload,
    operate.load,
    operate.refresh,
    operate.accept_state_loss,
    bench.bench,
    replay_command.replay,
)
for command in others:
    app.command()(command)
app.add_typer(environment_commands.commands, name="environment")


def _show_version(is_asked: bool) -> None:
    if is_asked:
        show(f"serving {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Accept the options before the command; a callback shows the version."""


def run() -> int:
    """Run one command and return its exit status. Errors are shown as lines, never as a traceback."""
    allow_any_text()
    try:
        app()
    except SettingsError as error:
        show_error(error)
        return MISUSED
    except ServingError as error:
        show_error(f"serving: {one_line(error)}")
    except OSError as error:
        show_error(f"serving: {one_line(error)}")
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  (the last line of defence of a program for people)
        show_error(f"serving: {one_line(repr(error))} in {_find_place(error)}; this is a bug, please report it")
    return FAILED


def _find_place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace else "nowhere"
