"""Version names for lone files: the UTC second at which a content was first seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from serving.domain.listing import Entry, Fingerprint
from serving.domain.version import VersionId
from serving.lifecycle.history import History

_FORMAT = "%Y%m%dT%H%M%SZ"


class LoneNames:
    """Gives names to contents of lone files and recognises contents that have one. Reconciler thread only.

    A new content always gets a later name than those before it, also when the clock was set back.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._names: dict[tuple[str, Fingerprint], str] = {}

    def name(self, entry: Entry) -> str:
        """Return the version name of what the lone file holds now; a provisional one until it has been staged."""
        key = (entry.model, entry.fingerprint)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = self._next_name(entry.model)
        return name

    def recognise(self, id: VersionId, fingerprint: Fingerprint) -> str:
        """The content is known now: return its name, the old one when the same bytes have been here before."""
        known = self._history.lone.get((id.model, id.digest))
        if known is None:
            self._history.note_lone(id)
            return id.version
        self._names[id.model, fingerprint] = known
        return known

    def _next_name(self, model: str) -> str:
        taken = [name for (owner, _), name in self._names.items() if owner == model]
        taken += [name for (owner, _), name in self._history.lone.items() if owner == model]
        moment = datetime.now(UTC).replace(microsecond=0)
        if taken:
            newest = datetime.strptime(max(taken), _FORMAT).replace(tzinfo=UTC)
            moment = max(moment, newest + timedelta(seconds=1))
        return moment.strftime(_FORMAT)
