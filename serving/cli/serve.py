"""``serving serve``."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from serving.cli.options import Store, load_settings_with
from serving.settings import Settings, forget_tokens


def serve(
    *,
    store: Store = None,
    host: Annotated[str | None, typer.Option(metavar="H", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(metavar="N", help="Port to listen on; 0 takes a free one.")] = None,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Cache and database, for this server only.")] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N", help="Processes that answer; auto: one for each core. Linux.")
    ] = None,
    watch: Annotated[
        str | None, typer.Option(metavar="HOW", help="How changes are noticed: auto, events or poll.")
    ] = None,
    fail_fast: Annotated[
        bool | None,
        typer.Option("--fail-fast/--no-fail-fast", help="Exit if no model is active after the first pass."),
    ] = None,
    log_format: Annotated[str | None, typer.Option(metavar="F", help="auto, json or console.")] = None,
    log_level: Annotated[str | None, typer.Option(metavar="L", help="debug, info, warning or error.")] = None,
    settings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", is_eager=True, help="Settings file instead of settings.toml or SERVING_SETTINGS."),
    ] = None,
) -> None:
    """Serve the models in the store over HTTP.

    A newer version becomes active when it has passed all gates; no request fails because of that.

    All other settings are in settings.toml, or in the environment as SERVING_<GROUP>__<FIELD>.
    """
    chosen = load_settings_with(
        settings,
        store=store,
        host=host,
        port=port,
        state=state,
        workers=workers,
        watch=watch,
        fail_fast=fail_fast,
        log_format=log_format,
        log_level=log_level,
    )
    gc.disable()  # imports leave almost no garbage, and to look for it takes a twelfth of the start
    with _hide("rich"):  # structlog would import it, 4 MB that a server never uses
        run = _find_run(chosen)

    gc.enable()

    forget_tokens()
    raise typer.Exit(run(chosen))


def _find_run(settings: Settings) -> Callable[[Settings], int]:
    """Import what serves: FastAPI is not needed to say what is wrong with the settings."""
    if settings.server.workers == 1:
        from serving.server import run  # noqa: PLC0415

        return run
    from serving.supervisor.run import run_workers  # noqa: PLC0415

    return run_workers


@contextmanager
def _hide(package: str) -> Iterator[None]:
    """Let imports find no `package` meanwhile, as where it is not installed; one that is imported already stays."""
    sys.modules.setdefault(package, None)  # type: ignore[arg-type]  # None: not found
    try:
        yield
    finally:
        if sys.modules[package] is None:
            del sys.modules[package]
