"""The state's database while the server runs: what is written soon, what at once, and what is wrong with it.

The server decides from memory; the file keeps that over restarts. When the file cannot be used, the server goes on
from memory, and tries the file again. Only operators' decisions are refused then, because they could not be kept.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import structlog

from serving.domain.errors import StateUnavailable
from serving.lifecycle.active_names import ActiveNames
from serving.lifecycle.database import Database, StateDamaged, Statement, StateTooNew
from serving.lifecycle.recovery import Found, may_hold_decisions, open_best, refresh_copy

DATABASE_NAME = "state.sqlite"
MAX_UNWRITTEN = 10_000
COPY_SECONDS = 60.0  # how far the copy may be behind, except for decisions: these are in it before they are answered

log = structlog.get_logger("serving.history")


class Phase(Enum):
    """How the file and the memory relate to each other."""

    UNREAD = "nothing in the file is in memory"
    OPEN = "the file is open, and all it holds is in memory"
    LOST = "all that the file held is in memory; it was damaged since"


class Contents(Protocol):
    """The content of the file, as it is in memory."""

    def read_from(self, database: Database) -> None:
        """Read everything from the database; raises StateUnavailable."""
        ...

    def list_inserts(self) -> list[Statement]:
        """Return the statements that write everything to an empty database."""
        ...

    def hold(self, reason: str) -> None:
        """Activate nothing new: the file may hold decisions that cannot be read."""
        ...


class StateFile:
    """One database in one state directory. `start` is called first; all of it for one thread, the reconciler's.

    `failure` is what is wrong with it at present. `replacement` says what has replaced a damaged file. `on_failure` is
    called with every failure.
    """

    def __init__(
        self, directory: Path, contents: Contents, names: ActiveNames, on_failure: Callable[[], None] = lambda: None
    ) -> None:
        self.path = directory / DATABASE_NAME
        self.failure: str | None = None
        self.replacement: str | None = None
        self._contents = contents
        self._names = names
        self._on_failure = on_failure
        self._database = Database(self.path)
        self._phase = Phase.UNREAD
        self._unwritten: list[Statement] = []
        self._undecided: list[Statement] = []
        self._copy_due_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the database is open, and its content is in memory."""
        return self._phase is Phase.OPEN

    @property
    def has_unwritten(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._unwritten or self._undecided)

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """Return all rows of `query`; raises StateUnavailable. Blocks."""
        return self._database.read(query)

    def start(self) -> None:
        """Read the file as `open` does. Raises StateTooNew; then nothing has been changed."""
        try:
            self._open()
        except StateTooNew:
            raise
        except StateUnavailable as error:
            self.report(error)

    def open(self) -> None:
        """Read the file unless it is open; one that cannot be used is reported. Blocks."""
        if self.is_open:
            return
        try:
            self._open()
        except StateUnavailable as error:  # also one of a later release, put there while the server runs
            self.report(error)

    def close(self) -> None:
        """Close the database; statements that have not been written are lost."""
        self._database.close()

    def write_later(self, statement: str, *values: object) -> None:
        """Write a statement with the next `write` or decision."""
        self._unwritten.append((statement, values))

    def decide_later(self, statement: str, *values: object) -> None:
        """Write a decision that counts already, and could not be written: with the next `write`, until that works."""
        self._undecided.append((statement, values))

    def write(self, *last: Statement) -> None:
        """Write all waiting statements, and `last` after them. On failure they are kept, up to a limit. Blocks."""
        if not self.has_unwritten or not self.is_open:
            self._unwritten = self._unwritten[-MAX_UNWRITTEN:]
            return
        statements, is_decision = [*self._unwritten, *last], bool(self._undecided)
        try:
            self._database.write([*statements, *self._undecided], is_decision=is_decision)
        except StateUnavailable as error:
            self._unwritten = self._unwritten[-MAX_UNWRITTEN:]
            self.report(error)
            return
        self._unwritten, self._undecided = [], []
        self.failure = None
        if is_decision:
            self._copy()
        elif self._copy_due_at is None:
            self._copy_due_at = time.monotonic() + COPY_SECONDS

    def write_decision(self, statements: Sequence[Statement]) -> None:
        """Write an operator's decision to disk, also to the copy. Blocks; raises StateUnavailable if it is not kept."""
        self.open()
        if not self.is_open:
            raise StateUnavailable(self.failure or f"{DATABASE_NAME} is not open")
        try:
            self._database.write([*self._unwritten, *self._undecided, *statements], is_decision=True)
        except StateUnavailable as error:
            self.report(error)
            raise
        self._unwritten, self._undecided = [], []
        self.failure = None
        self._copy()

    def copy_if_due(self, *, is_last: bool = False) -> None:
        """Renew the copy if that is due; with `is_last`, if it is behind at all. Blocks."""
        due_at = self._copy_due_at
        if self.is_open and due_at is not None and (is_last or time.monotonic() >= due_at):
            self._copy()

    def report(self, error: StateUnavailable) -> None:
        """Report a failure. After damage, the next use opens the file anew, or its copy."""
        self._on_failure()
        if self.failure is None:
            log.error("state_unavailable", reason=str(error), effect="serving goes on; history is kept in memory")
        self.failure = str(error)
        if isinstance(error, StateDamaged):
            self._database.close()
            self._phase = Phase.LOST if self._phase is Phase.OPEN else self._phase

    def _open(self) -> None:
        was_read = self._phase is not Phase.UNREAD
        # The names are written by this release: where they are, a file that is empty or older is not what it wrote.
        is_known = os.path.lexists(self.path) and self._names.exists
        try:
            opened = open_best(self._database, was_used=was_read or is_known, is_remembered=was_read)
            if opened.found is Found.LOST and was_read:
                self._database.write(self._contents.list_inserts(), is_decision=True)
            self._contents.read_from(self._database)
        except StateUnavailable as error:
            if not was_read and may_hold_decisions(self.path):
                self._contents.hold(f"{error}: pins and quarantines are not known")
            raise
        self._phase = Phase.OPEN
        self.replacement = opened.reason
        self.failure = None
        self._copy_due_at = None if opened.has_copy else 0.0

    def _copy(self) -> None:
        try:
            refresh_copy(self._database)
            self._copy_due_at = None
        except StateUnavailable as error:
            self._copy_due_at = time.monotonic() + COPY_SECONDS
            self.report(error)
