"""The names of what is active, beside the database, for the day on which that is lost: a small file of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import structlog

from serving.store.durable import sync_directory

FILE_NAME = "active.json"

log = structlog.get_logger("serving.history")

Active = Mapping[str, tuple[str, str]]  # model: version, digest


def write_active(directory: Path, active: Active) -> None:
    """Replace the file in one step, durably; raises OSError. Blocks."""
    path = directory / FILE_NAME
    new = directory / f"{FILE_NAME}.new"
    with new.open("w") as file:
        json.dump({"active": active}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_directory(directory)


def has_active(directory: Path) -> bool:
    """Whether anything has ever been written, readable or not."""
    return os.path.lexists(directory / FILE_NAME)


def read_active(directory: Path) -> dict[str, tuple[str, str]]:
    """Return what was written last; nothing when the file is gone or is none of ours. Blocks."""
    try:
        document = json.loads((directory / FILE_NAME).read_bytes())
        found = {str(model): (str(version), str(digest)) for model, (version, digest) in document["active"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("active_names_unusable", reason=f"{FILE_NAME}: {error}")
        return {}
    return found
