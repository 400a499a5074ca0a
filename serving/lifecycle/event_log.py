"""What happened to every model: transitions and operators' calls, as rows of the database."""

from __future__ import annotations

from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from serving.domain.errors import StateUnavailable
from serving.domain.event_page import EventPage, HistoryQuery, name_event, parse_event_id
from serving.domain.state import State
from serving.domain.status import HistoryEntry, ModelHistoryEntry
from serving.lifecycle.database import Database, Statement, read_once, read_together
from serving.lifecycle.state_file import StateFile

_COLUMNS = "id, at, version, digest, before, after, actor, event, reason, duration_seconds, model"
# the name of the log with the number after which it has this name, and the numbers of the oldest and the newest entry
_ENDS = "SELECT (SELECT value FROM facts WHERE name = 'log'), MIN(id), MAX(id) FROM transitions"
_UNKNOWN = "the history could not be read when this began"
_REPLACED = "the history was lost, or restored from its copy, since the entry with this id was written"
_UNDONE = "the newest entries of the history were lost"
_TRIMMED = "older entries were removed: state.history_rows says how many are kept"


class EventLog:
    """The newest `max_rows` entries. For one thread, except for `read_entries` and `read_after`.

    `newest` is the id of the newest entry on disk, None while that is not known.
    """

    def __init__(self, file: StateFile, max_rows: int) -> None:
        self._file = file
        self._max_rows = max_rows
        self._has_news = False  # something was noted since `newest` was read
        self.newest: str | None = None

    def note(self, entry: HistoryEntry, model: str) -> None:
        """Add one transition or operator's call; it is written to disk soon."""
        self._has_news = True
        self._file.write_later(
            "INSERT INTO transitions"
            " (at, model, version, digest, before, after, actor, event, reason, duration_seconds)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(entry.at.isoformat(), model, entry.version, entry.digest, entry.before, entry.after),
            *(entry.actor, entry.event, entry.reason, entry.duration_seconds),
        )

    def read_from(self, database: Database) -> None:
        """Find the newest entry, and give a log without a name one; raises StateUnavailable."""
        self._take_newest(database.read(_ENDS))

    def note_written(self) -> None:
        """Find the newest entry when everything that was noted is on disk. Blocks."""
        if not self._has_news or self._file.has_unwritten or not self._file.is_open:
            return
        try:
            self._take_newest(self._file.read(_ENDS))
        except StateUnavailable as error:
            self._file.report(error)

    def _take_newest(self, ends: list[tuple[Any, ...]]) -> None:
        """Note which entry is the newest on disk. A log without a name gets one, and no id before that is written."""
        ((fact, _, newest),) = ends
        if fact is None:
            self._file.write_later("INSERT OR REPLACE INTO facts VALUES ('log', ?)", f"{token_hex(4)} {newest or 0}")
        self._has_news = fact is None
        self.newest = None if fact is None else name_event(fact.partition(" ")[0], newest or 0)

    def make_trim_statement(self) -> Statement:
        """Return the statement that removes the oldest entries beyond the limit."""
        return "DELETE FROM transitions WHERE id <= (SELECT MAX(id) FROM transitions) - ?", (self._max_rows,)

    def read_entries(self, query: HistoryQuery) -> tuple[ModelHistoryEntry, ...]:
        """Return the newest of these entries first. Any thread; blocks on the disk; raises StateUnavailable."""
        wanted: dict[str, Any] = {
            "id < ?": query.before_id,
            "model = ?": query.model,
            "version = ?": query.version,
            "event = ?": query.event,
            "actor = ?": query.actor,
            "after = ?": query.state,
            "at >= ?": _text_of(query.since),
            "at < ?": _text_of(query.until),
        }
        given = {condition: value for condition, value in wanted.items() if value is not None}
        where = f" WHERE {' AND '.join(given)}" if given else ""
        statement = f"SELECT {_COLUMNS} FROM transitions{where} ORDER BY id DESC LIMIT ?"  # noqa: S608  (constants)
        return tuple(map(_entry_of, read_once(self._file.path, statement, (*given.values(), query.limit))))

    def read_after(self, event_id: str | None, limit: int) -> EventPage:
        """Return the entries after the one with this id, oldest first; None stands for what was not known yet.

        Any thread; blocks on the disk; raises StateUnavailable.
        """
        with read_together(self._file.path) as ask:
            ((fact, oldest, newest),) = ask(_ENDS, ())
            if fact is None:
                raise StateUnavailable("the history has not been written yet")
            log, begins = fact.split(" ")
            after, gap = _find_place(event_id, log, int(begins), oldest or 1, newest or 0)
            rows = ask(f"SELECT {_COLUMNS} FROM transitions WHERE id > ? ORDER BY id LIMIT ?", (after, limit))  # noqa: S608
        entries = tuple(map(_entry_of, rows))
        return EventPage(log, after, entries, is_last=len(rows) < limit, gap=gap)


def _find_place(event_id: str | None, log: str, begins: int, oldest: int, newest: int) -> tuple[int, str | None]:
    """Return the number after which a reader goes on, and why entries before it are gone that it has not seen."""
    if event_id is None:
        return newest, _UNKNOWN
    seen = parse_event_id(event_id)
    if seen is None or seen[0] != log:
        return begins, _REPLACED
    if seen[1] > newest:
        return newest, _UNDONE
    return seen[1], _TRIMMED if seen[1] + 1 < oldest else None


def _text_of(time: datetime | None) -> str | None:
    if time is None:
        return None
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def _entry_of(row: tuple[Any, ...]) -> ModelHistoryEntry:
    return ModelHistoryEntry(
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
        model=row[10],
    )
