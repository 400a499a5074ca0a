"""Publishes without the gates, and refuses early what cannot be published. Needs no package but those of the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from serving.domain.errors import PublishRefused
from serving.store import publishing
from serving.store.numbering import list_names, require_free_model, require_free_version
from serving.store.publishing import Publication, Published

_HINTS = {
    "breaking": "{} does that",
    "golden": "the rows and answers are those of {}",
}


def publish_unchecked(root: Path, publication: Publication) -> Published:
    """Publish now, without the gates; see `publishing.publish`."""
    return publishing.publish(root, publication, datetime.now(UTC))


def refuse_early(root: Path, model: str, version: str | None) -> None:
    """Raise PublishRefused before the evaluation for problems that publishing would find after it."""
    try:
        require_free_model(str(root), model)
        directory = root / model
        if version is not None:
            require_free_version(model, version, list_names(str(directory)) if directory.is_dir() else [])
        place = next((path for path in (directory, root, root.absolute().parent) if path.exists()), None)
    except OSError as error:
        raise PublishRefused(f"the store '{root}' cannot be read: {error.strerror}", "store") from None
    if place is None or not place.is_dir():
        wrong = f"there is no directory '{root.absolute().parent}'" if place is None else f"'{place}' is no directory"
        raise PublishRefused(f"the store '{root}' cannot be made: {wrong}", "store")
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PublishRefused(f"the store '{root}' cannot be written: no permission for '{place}'", "store")


def add_hint(error: PublishRefused, spelling: Mapping[str, str]) -> str:
    """Return the message with the argument that would help, spelled as a flag or a keyword by `spelling`."""
    argument = spelling.get(error.argument or "")
    if argument is None:
        return str(error)
    hint = _HINTS.get(error.argument or "") if error.report is not None else None
    return f"{error} ({argument})" if hint is None else f"{error}; {hint.format(argument)}"
