"""The names of the active versions, in a small JSON file beside the database, in case the database is lost."""

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


class ActiveNames:
    """The file in one state directory. For one thread. `is_stale` says that it has to be written again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.is_stale = False

    @property
    def exists(self) -> bool:
        """Whether anything has ever been written, readable or not."""
        return os.path.lexists(self._directory / FILE_NAME)

    def write(self, active: Active) -> None:
        """Replace the file in one step, durably; raises OSError. Blocks."""
        path = self._directory / FILE_NAME
        new = self._directory / f"{FILE_NAME}.new"
        with new.open("w") as file:
            json.dump({"active": active}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_directory(self._directory)
        self.is_stale = False

    def read(self) -> dict[str, tuple[str, str]]:
        """Return what was written last; nothing if the file is gone or was not written by us. Blocks."""
        try:
            document = json.loads((self._directory / FILE_NAME).read_bytes())
            active = document["active"].items()
            return {str(model): (str(version), str(digest)) for model, (version, digest) in active}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("active_names_unusable", reason=f"{FILE_NAME}: {error}")
            return {}
