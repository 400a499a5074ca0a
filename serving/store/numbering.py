"""Checks names before a version is published, and chooses the next version number."""

from __future__ import annotations

import os
from collections.abc import Iterable

from serving.domain.errors import PublishRefused
from serving.domain.version import order_key, why_not_a_name
from serving.store.entries import Look
from serving.store.file_heads import format_by_content
from serving.store.names import Names, artefact_format, artefact_stem, is_looked_into


def list_names(directory: str) -> list[tuple[str, str]]:
    """Return (name on disk, model or version it stands for) for every directory, artefact and link; raises OSError."""
    found = []
    names = Names()
    with os.scandir(directory) as items:
        for item in items:
            if not names.exists(item.name):
                continue
            if artefact_format(item.name) or _is_model(directory, item.name):
                found.append((item.name, artefact_stem(item.name)))
            elif not item.is_file(follow_symlinks=False):
                found.append((item.name, item.name))
    return sorted(found)


def _is_model(directory: str, name: str) -> bool:
    """Say whether the content of a file is a model. To be safe, an unreadable file counts as one."""
    if not is_looked_into(name):
        return False
    real = os.path.realpath(directory)
    try:
        seen = Look(os.lstat(os.path.join(real, name)))
        return format_by_content(real, real, name, seen) is not None
    except OSError:
        return True


def require_free_model(root: str, model: str) -> None:
    """Raise PublishRefused unless `model` is a valid name and nothing else in the store at `root` has it."""
    problem = why_not_a_name(model)
    if problem is not None:
        raise PublishRefused(f"this cannot be the name of a model: {problem}", "model")
    for name, other in list_names(root) if os.path.isdir(root) else ():
        if other.lower() != model.lower():
            continue
        if name != other:
            raise PublishRefused(
                f"'{name}' is a lone file of '{model}': move it to '{other}/1{name[len(other) :]}' first", "model"
            )
        if other != model:
            raise PublishRefused(
                f"'{model}' differs from the model '{other}' in upper and lower case only; use '{other}'", "model"
            )


def require_free_version(model: str, version: str, existing: Iterable[tuple[str, str]]) -> None:
    """Raise PublishRefused unless `version` is a valid name and no existing version is equal to it."""
    problem = why_not_a_name(version)
    if problem is not None:
        raise PublishRefused(f"this cannot be the name of a version: {problem}", "version")
    key = order_key(version)
    for name, other in existing:
        if order_key(other) == key:
            raise PublishRefused(
                f"version '{version}' of '{model}' exists already ('{model}/{name}') and versions are never changed; "
                "give it a new name, or none to get the next number",
                "version",
            )


def choose_next_number(model: str, existing: Iterable[tuple[str, str]]) -> str:
    """Return the number after the newest numeric version; raises PublishRefused when that would not be the newest."""
    versions = [version for _, version in existing if why_not_a_name(version) is None]
    keys = [order_key(version) for version in versions]
    number = str(1 + max((key[0][1] for key in keys if len(key) == 1), default=0))  # a word has the number 0
    newest = max(versions, key=order_key, default=None)
    if newest is not None and order_key(newest) > order_key(number):
        raise PublishRefused(
            f"the newest version of '{model}' is '{newest}', which '{number}' would not replace; name the version",
            "version",
        )
    return number
