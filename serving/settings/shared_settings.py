"""The settings that processes which share one control have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from serving.settings.groups import GROUPS, Settings

OF_CONTROL = ("server.workers", "server.worker_seconds")
OF_EACH_PROCESS = ("server", "log")  # groups; each process has its own tokens, too
MOST_CHARACTERS = 200


def make_shared(settings: Settings) -> Settings:
    """Return the settings for control: without tokens, which it does not need, and with absolute paths."""
    tokens = {name: None for name in type(settings.security).model_fields if "_token" in name}
    return settings.model_copy(
        update={
            "store": settings.store.model_copy(update={"path": settings.store.path.absolute()}),
            "state": settings.state.model_copy(update={"path": settings.state.path.absolute()}),
            "security": settings.security.model_copy(update=tokens),
        }
    )


def dump_shared(settings: Settings) -> dict[str, str]:
    """Return what has to be the same in all processes, as texts by their names. Of settings from `make_shared`."""
    shared = settings.model_dump(mode="json")
    found: dict[str, str] = {}
    for group in GROUPS:
        for name, value in shared[group].items():
            if group not in OF_EACH_PROCESS or f"{group}.{name}" in OF_CONTROL:
                found[f"{group}.{name}"] = _shorten(repr(value))
    return found


def describe_differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Return a sentence for each setting that is not the same in both."""
    return [
        f"{name} is {theirs.get(name, 'not known')} in this process and {ours.get(name, 'not known')} in the others"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


def _shorten(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[:MOST_CHARACTERS]}... ({hashlib.sha256(text.encode()).hexdigest()[:16]})"
