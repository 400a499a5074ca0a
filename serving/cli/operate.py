"""Commands that call a running server: status, history, and the operator's calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from serving.cli.client import ServerClient, choose_server_url, choose_token
from serving.cli.output import one_line, show, show_table
from serving.cli.rollout_output import show_rollouts
from serving.cli.status_output import (
    NOTHING,
    ServerStatus,
    describe_active,
    describe_labels,
    format_time,
    show_models,
    show_problems,
    show_workers,
)
from serving.domain.status import HistoryEntry, ModelSummary, WorkerStatus
from serving.settings import TokenScope, load_settings

Url = Annotated[
    str | None, typer.Option(metavar="URL", help="Address of the server; not given: host and port of the settings.")
]
TokenFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="File with the admin token; not given: security.admin_token.")
]
ReadTokenFile = Annotated[
    Path | None, typer.Option("--token-file", metavar="FILE", help="File with a token; not given: security.read_token.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the server's answer as JSON.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The model.")]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="The version.")]

TIMEOUT_SECONDS = 60.0


class _Models(BaseModel):
    models: tuple[ModelSummary, ...]


class _Workers(BaseModel):
    workers: tuple[WorkerStatus, ...]


class _History(BaseModel):
    history: tuple[HistoryEntry, ...]


def status(*, url: Url = None, token_file: ReadTokenFile = None, as_json: Json = False) -> None:
    """Show which version answers, for every model.

    Also shows rollouts, gates that warned, versions in quarantine, files that serve nothing, problems of the store and
    the state, and the workers where there are several.
    """
    server = connect_reader(url, token_file)
    answer = server.get("models", "active")
    listed = server.get("workers")
    workers = server.parse_answer(_Workers, listed).workers
    if as_json:
        show(json.dumps({**answer, **listed} if workers else answer, indent=2))
        return
    models = server.parse_answer(_Models, answer).models
    whole = server.parse_answer(ServerStatus, server.get("models"))
    if models:
        active = sum(model.active is not None for model in models)
        show(f"{active} of {_count_models(models)} active at {server.url}")
        show_models(models)
        show_rollouts(whole)
    elif whole.store is None or whole.store.is_available:
        show(f"no models at {server.url}; 'serving publish' or 'serving demo' puts some into the store")
    if workers:
        show_workers(workers)
    show_problems(whole)
    if models and whole.sandbox is not None:
        show(one_line(f"sandbox of every host: {whole.sandbox}"))


def history(
    name: Name,
    *,
    url: Url = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many, newest first.")] = 20,
    token_file: ReadTokenFile = None,
    as_json: Json = False,
) -> None:
    """Show what happened to a model, newest first."""
    server = connect_reader(url, token_file)
    answer = server.get("models", name, "history", query=f"?limit={limit}")
    if as_json:
        show(json.dumps(answer, indent=2))
        return
    entries = server.parse_answer(_History, answer).history
    if not entries:
        show(f"nothing has happened to {one_line(name)} yet")
        return
    show_table(["AT", "VERSION", "STATE", "EVENT", "BY", "REASON"], [_format_entry(entry) for entry in entries])


def pin(name: Name, version: Version, *, url: Url = None, token_file: TokenFile = None) -> None:
    """Serve exactly this version until 'unpin'."""
    server = connect_operator(url, token_file)
    answer = server.post("models", name, "pin", body={"version": version})
    show(f"{name} is pinned to {version}; {describe_active(server.parse_answer(ModelSummary, answer))}")


def unpin(name: Name, *, url: Url = None, token_file: TokenFile = None) -> None:
    """Let newer versions become active again."""
    server = connect_operator(url, token_file)
    answer = server.delete("models", name, "pin")
    show(f"{name} is not pinned any more; {describe_active(server.parse_answer(ModelSummary, answer))}")


def label(
    name: Name,
    label: Annotated[str | None, typer.Argument(metavar="LABEL", help="The label.")] = None,
    version: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="The version that it names; not given: labels are shown.")
    ] = None,
    *,
    is_removed: Annotated[bool, typer.Option("--remove", help="Remove the label.")] = False,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Let a label name a version, or show labels.

    The version is loaded, and stays loaded as long as it has a label.
    """
    if is_removed and (label is None or version is not None):
        raise typer.BadParameter("--remove goes with a label and no version")
    if label is None or (version is None and not is_removed):
        server = connect_reader(url, token_file)
        answer = server.get("models", name, "active")
    else:
        server = connect_operator(url, token_file)
        place = ("models", name, "labels", label)
        answer = server.delete(*place) if version is None else server.put(*place, body={"version": version})
    model = server.parse_answer(ModelSummary, answer)
    show(f"{name}: {describe_labels(model)}")
    if model.problem:
        show(one_line(f"{name}: {model.problem}"))


def rollback(
    name: Name,
    *,
    left: Annotated[
        str | None,
        typer.Option("--from", metavar="VERSION", help="The version to leave: makes the call safe to repeat."),
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Replace the active version by the next best.

    The version that was active is in quarantine until 'release'.
    """
    server = connect_operator(url, token_file)
    answer = server.post("models", name, "rollback", body={"version": left} if left is not None else None)
    show(f"{name} is rolled back; {describe_active(server.parse_answer(ModelSummary, answer))}")


def release(name: Name, version: Version, *, url: Url = None, token_file: TokenFile = None) -> None:
    """Lift the quarantine of a version.

    The server evaluates it again.
    """
    server = connect_operator(url, token_file)
    answer = server.post("models", name, "versions", version, "release")
    show(f"{name}/{version} is released; {describe_active(server.parse_answer(ModelSummary, answer))}")


def unload(name: Name, *, url: Url = None, token_file: TokenFile = None) -> None:
    """Take a model out of service until 'load'.

    No version of it stays loaded. A model without files in the store is gone then.
    """
    connect_operator(url, token_file).post("v2", "repository", "models", name, "unload")
    show(f"{name} is unloaded; 'serving load {name}' loads it again")


def load(name: Name, *, url: Url = None, token_file: TokenFile = None) -> None:
    """Put an unloaded model into service again.

    Waits for the verdict on its newest version.
    """
    server = connect_operator(url, token_file)
    server.post("v2", "repository", "models", name, "load")
    show(
        f"{name} is loaded; {describe_active(server.parse_answer(ModelSummary, server.get('models', name, 'active')))}"
    )


def refresh(*, url: Url = None, token_file: TokenFile = None) -> None:
    """Make the server look at its store now."""
    server = connect_operator(url, token_file)
    models = server.parse_answer(_Models, server.post("refresh")).models
    show(f"{server.url} has looked at its store: {_count_models(models)}")
    if models:
        show_models(models)


def accept_state_loss(*, url: Url = None, token_file: TokenFile = None) -> None:
    """Let versions become active after lost state.

    Pins and quarantines were lost with it: set them again where they are needed.
    """
    server = connect_operator(url, token_file)
    models = server.parse_answer(_Models, server.post("accept-state-loss")).models
    show(f"{server.url} activates versions again: {_count_models(models)}")


def connect_reader(url: str | None, token_file: Path | None) -> ServerClient:
    """Return a client that may read, with its token if there is one."""
    return _connect(url, TokenScope.READ, token_file)


def connect_operator(url: str | None, token_file: Path | None) -> ServerClient:
    """Return a client that may make operators' calls."""
    return _connect(url, TokenScope.ADMIN, token_file)


def _connect(url: str | None, scope: TokenScope, token_file: Path | None) -> ServerClient:
    where = choose_server_url(url, load_settings().server, is_for_operators=True)
    return ServerClient(where, choose_token(scope, token_file), TIMEOUT_SECONDS, scope)


def _count_models(models: Sequence[ModelSummary]) -> str:
    return f"{len(models)} model" + "s" * (len(models) != 1)


def _format_entry(entry: HistoryEntry) -> list[str]:
    state = entry.after or NOTHING
    return [format_time(entry.at), entry.version or NOTHING, state, entry.event, entry.actor, entry.reason or NOTHING]
