"""``serving wait``: tells a script whether the version that it has copied into the store became active."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated

import typer
from pydantic import BaseModel

from serving.cli.client import CallFailed, ServerClient
from serving.cli.operate import Name, ReadTokenFile, Url, Version, connect_reader
from serving.cli.output import one_line, show
from serving.domain.state import State
from serving.domain.status import ModelSummary

POLL_SECONDS = 0.2
REFUSED = (State.REJECTED, State.QUARANTINED)


class _Version(BaseModel):
    version: str
    state: State
    reason: str | None = None


class _Model(ModelSummary):
    versions: tuple[_Version, ...] = ()

    def find(self, version: str) -> _Version | None:
        return next((one for one in self.versions if one.version == version), None)


class _Models(BaseModel):
    models: tuple[_Model, ...]


def wait(
    name: Name,
    version: Version,
    *,
    timeout: Annotated[
        float, typer.Option(metavar="S", min=0.0, help="Seconds to wait at most.", show_default=True)
    ] = 60.0,
    url: Url = None,
    token_file: ReadTokenFile = None,
) -> None:
    """Wait until a version is active.

    Exits with 0 when it is. Exits with 1 and the reason when it was refused, is late, or no server answers.
    """
    server = connect_reader(url, token_file)
    model: _Model | None = None
    for model in _poll_model(server, name, timeout):
        found = None if model is None else model.find(version)
        if found is not None and found.state is State.ACTIVE:
            show(one_line(f"{name}/{version} is active"))
            return
        if found is not None and found.state in REFUSED:
            how = "in quarantine" if found.state is State.QUARANTINED else "refused"
            raise CallFailed(f"{name}/{version} is {how}: {found.reason or 'no reason was given'}")
    raise CallFailed(f"{name}/{version} is not active after {timeout:g} s: {_describe_standing(model, name, version)}")


def _poll_model(server: ServerClient, name: str, timeout_seconds: float) -> Iterator[_Model | None]:
    """Yield the server's status of a model again and again until the time is over; at least once."""
    ends_at = time.monotonic() + timeout_seconds
    while True:
        models = server.parse_answer(_Models, server.get("models")).models
        yield next((model for model in models if model.name == name), None)
        left = ends_at - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(POLL_SECONDS, left))


def _describe_standing(model: _Model | None, name: str, version: str) -> str:
    """Describe the state of a version that is neither active nor refused."""
    if model is None:
        return f"the server knows no model '{name}'"
    found = model.find(version)
    if found is None:
        text = "the server knows no such version"
    else:
        text = f"it is {found.state}" + (f" ({found.reason})" if found.reason else "")
    if model.unloaded:
        return f"{text}; an operator has unloaded the model"
    return f"{text}; active: {model.active.version if model.active else 'none'}"
