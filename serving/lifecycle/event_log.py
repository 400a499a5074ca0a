"""What happened to every model: transitions and operators' calls, as rows of the database."""

from __future__ import annotations

from datetime import datetime

from serving.domain.state import State
from serving.domain.status import HistoryEntry
from serving.lifecycle.database import Statement, read_once
from serving.lifecycle.state_file import StateFile


class EventLog:
    """The newest `max_rows` entries. For one thread, except for `read_entries`."""

    def __init__(self, file: StateFile, max_rows: int) -> None:
        self._file = file
        self._max_rows = max_rows

    def note(self, entry: HistoryEntry, model: str) -> None:
        """Add one transition or operator's call; it is written to disk soon."""
        self._file.write_later(
            "INSERT INTO transitions"
            " (at, model, version, digest, before, after, actor, event, reason, duration_seconds)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(entry.at.isoformat(), model, entry.version, entry.digest, entry.before, entry.after),
            *(entry.actor, entry.event, entry.reason, entry.duration_seconds),
        )

    def make_trim_statement(self) -> Statement:
        """Return the statement that removes the oldest entries beyond the limit."""
        return "DELETE FROM transitions WHERE id <= (SELECT MAX(id) FROM transitions) - ?", (self._max_rows,)

    def read_entries(self, model: str, limit: int, before_id: int | None) -> tuple[HistoryEntry, ...]:
        """Return the newest entries of a model first. Any thread; blocks on the disk; raises StateUnavailable."""
        rows = read_once(
            self._file.path,
            "SELECT id, at, version, digest, before, after, actor, event, reason, duration_seconds FROM transitions"
            " WHERE model = ? AND id < ? ORDER BY id DESC LIMIT ?",
            (model, before_id if before_id is not None else 1 << 62, limit),
        )
        return tuple(
            HistoryEntry(
                id=row[0],
                at=datetime.fromisoformat(row[1]),
                version=row[2],
                digest=row[3],
                before=State(row[4]) if row[4] else None,
                after=State(row[5]) if row[5] else None,
                actor=row[6],
                event=row[7],
                reason=row[8],
                duration_seconds=row[9],
            )
            for row in rows
        )
