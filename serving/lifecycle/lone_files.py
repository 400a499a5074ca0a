"""Version names for lone files: the UTC second at which a content was first seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from serving.domain.listing import Entry, Fingerprint
from serving.domain.version import VersionId
from serving.lifecycle.database import Database, Statement
from serving.lifecycle.state_file import StateFile

_FORMAT = "%Y%m%dT%H%M%SZ"


class LoneNames:
    """Gives names to contents of lone files and recognises contents that have one. Reconciler thread only.

    A new content always gets a later name than those before it, also when the clock was set back. `known` maps (model,
    digest) to the name of that content, and is kept over restarts.
    """

    def __init__(self, file: StateFile) -> None:
        self.known: dict[tuple[str, str], str] = {}
        self._file = file
        self._names: dict[tuple[str, Fingerprint], str] = {}

    def name(self, entry: Entry) -> str:
        """Return the version name of the lone file's present content; a provisional one until it has been staged."""
        key = (entry.model, entry.fingerprint)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = self._next_name(entry.model)
        return name

    def recognise(self, id: VersionId, fingerprint: Fingerprint) -> str:
        """Return the name of a content that has been staged: its old one if the same bytes have been here before."""
        known = self.known.get((id.model, id.digest))
        if known is None:
            self._note(id)
            return id.version
        self._names[id.model, fingerprint] = known
        return known

    def has_named(self, model: str, version: str) -> bool:
        """Whether a content of this model's file, before or after a restart, has been given this name."""
        return any(owner == model and name == version for (owner, _), name in self.known.items())

    def read_from(self, database: Database) -> None:
        """Read names from the database; names that are known already stay. Raises StateUnavailable."""
        known = database.read("SELECT model, digest, version FROM lone")
        self.known = {(model, digest): version for model, digest, version in known} | self.known

    def list_inserts(self) -> list[Statement]:
        """Return the statements that write all names to an empty database."""
        return [("INSERT INTO lone VALUES (?, ?, ?)", (*content, version)) for content, version in self.known.items()]

    def _note(self, id: VersionId) -> None:
        self.known[id.model, id.digest] = id.version
        self._file.write_later("INSERT OR REPLACE INTO lone VALUES (?, ?, ?)", id.model, id.digest, id.version)

    def _next_name(self, model: str) -> str:
        taken = [name for (owner, _), name in self._names.items() if owner == model]
        taken += [name for (owner, _), name in self.known.items() if owner == model]
        moment = datetime.now(UTC).replace(microsecond=0)
        if taken:
            newest = datetime.strptime(max(taken), _FORMAT).replace(tzinfo=UTC)
            moment = max(moment, newest + timedelta(seconds=1))
        return moment.strftime(_FORMAT)
