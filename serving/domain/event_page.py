"""What is asked of the history, and a page of it for a reader who wants every entry once, in order.

An entry's id, as clients have it, is the name of its log and its number there. A log gets a name when it is made, and
another one when it was restored from a copy: then numbers begin again that clients may have seen with other entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from serving.domain.state import State
from serving.domain.status import ModelHistoryEntry


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which entries are wanted, newest first: at most `limit` with all that is given, and ids below `before_id`.

    `state` is the one an entry led to. `since` is the earliest time, `until` the first one that is too late; both are
    UTC if they have no zone.
    """

    model: str | None = None
    version: str | None = None
    event: str | None = None
    actor: str | None = None
    state: State | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 100
    before_id: int | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Entries after the one that a reader saw last, oldest first.

    They are those after the number `after` of the log. `is_last`: there were no more.
    `gap` says why entries that the reader has not seen are gone, None if none are.
    """

    log: str
    after: int
    entries: tuple[ModelHistoryEntry, ...]
    is_last: bool
    gap: str | None = None

    @property
    def begin(self) -> str:
        """The id after which the page begins."""
        return name_event(self.log, self.after)

    @property
    def newest(self) -> str:
        """The id of the last entry; without any, where the page begins."""
        return name_event(self.log, self.entries[-1].id) if self.entries else self.begin


def name_event(log: str, number: int) -> str:
    """Return the id of an entry."""
    return f"{log}-{number}"


def parse_event_id(text: str) -> tuple[str, int] | None:
    """Return the log and the number that an id names; None for a text that is no id."""
    log, _, number = text.partition("-")
    return (log, int(number)) if number.isascii() and number.isdecimal() and len(number) < 19 else None
