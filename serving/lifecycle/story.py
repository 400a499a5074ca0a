"""The story of every model: transitions and operators' calls, as rows of the database."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from serving.domain.state import State
from serving.domain.status import HistoryEntry
from serving.lifecycle.database import Statement, read_once

_COLUMNS = "at, model, version, digest, before, after, actor, event, reason, duration_seconds"


def insert_entry(entry: HistoryEntry, model: str) -> Statement:
    """Return what writes one entry."""
    values = (
        entry.at.isoformat(),
        model,
        entry.version,
        entry.digest,
        entry.before,
        entry.after,
        entry.actor,
        entry.event,
        entry.reason,
        entry.duration_seconds,
    )
    return f"INSERT INTO transitions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values  # noqa: S608


def trim_entries(max_rows: int) -> Statement:
    """Return what removes the oldest entries beyond `max_rows`."""
    return "DELETE FROM transitions WHERE id <= (SELECT MAX(id) FROM transitions) - ?", (max_rows,)


def read_entries(path: Path, model: str, limit: int, before_id: int | None) -> tuple[HistoryEntry, ...]:
    """Return the newest entries of a model first. Any thread; blocks on the disk; raises StateUnavailable."""
    rows = read_once(
        path,
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
