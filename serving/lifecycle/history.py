"""Everything that must survive a restart, in parts that share one database: opened, written and closed together.

- `decisions`: what operators have decided
- `verdicts`: what the gates refused and accepted
- `served`: what answered last, its contract and who signed it
- `lone_names`: the version names of the contents of lone files
- `rollouts`: how far new versions had come that take over step by step
- `events`: what happened to every model

When decisions have been lost, what was active goes on and nothing else is activated until an operator accepts that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from serving.domain.errors import StateUnavailable
from serving.lifecycle.active_names import ActiveNames
from serving.lifecycle.database import Database, Statement
from serving.lifecycle.event_log import EventLog
from serving.lifecycle.lone_files import LoneNames
from serving.lifecycle.remembered_rollouts import RememberedRollouts
from serving.lifecycle.remembered_verdicts import RememberedVerdicts
from serving.lifecycle.served_versions import ServedVersions
from serving.lifecycle.standing_decisions import StandingDecisions
from serving.lifecycle.state_file import StateFile

log = structlog.get_logger("serving.history")


class History:
    """Everything durable. `start` is called first; then one thread, the reconciler's, but for reading `events`.

    `basis` names what verdicts depend on besides the bytes. `max_rows` bounds the events. `on_failure` is told of every
    failure of the database.
    """

    def __init__(
        self, directory: Path, basis: str, max_rows: int, on_failure: Callable[[], None] = lambda: None
    ) -> None:
        self._names = ActiveNames(directory)
        self._file = StateFile(directory, self, self._names, on_failure)
        self.verdicts = RememberedVerdicts(self._file, basis)
        self.decisions = StandingDecisions(self._file, self.verdicts, self._names)
        self.served = ServedVersions(self._file, self._names)
        self.lone_names = LoneNames(self._file)
        self.rollouts = RememberedRollouts(self._file)
        self.events = EventLog(self._file, max_rows)

    @property
    def is_loaded(self) -> bool:
        """Whether the database is open, and its content is in memory."""
        return self._file.is_open

    @property
    def problem(self) -> str | None:
        """A problem of the state that an operator should know, None if there is none."""
        return self.decisions.held_problem or self._file.failure or self._file.replacement

    def start(self) -> None:
        """Read the database as `open` does. Raises StateTooNew; then nothing has been changed."""
        self._file.start()

    def open(self) -> None:
        """Read the database. One that cannot be used is reported, and tried again at every flush."""
        self._file.open()

    def flush(self) -> None:
        """Write what was noted since the last flush. On failure it is kept (up to a bound) and tried again. Blocks."""
        self._flush(is_last=False)

    def close(self) -> None:
        """Write what is left and close."""
        self._flush(is_last=True)
        self._file.close()

    # --- what the file asks for --------------------------------------------------------------------------------------

    def read_from(self, database: Database) -> None:
        """Read all parts from the database; raises StateUnavailable."""
        for part in (self.decisions, self.verdicts, self.served, self.lone_names, self.rollouts, self.events):
            part.read_from(database)
        if self.decisions.held is not None:
            self.served.take_names()
            self.served.keep_active()
            effect = "what was active goes on, nothing else is activated"
            log.error("state_held", reason=self.decisions.held, effect=effect)

    def list_inserts(self) -> list[Statement]:
        """Return the statements that write all parts to an empty database, except refusals and events."""
        return [
            *self.decisions.list_inserts(),
            *self.verdicts.list_inserts(),
            *self.served.list_inserts(),
            *self.lone_names.list_inserts(),
            *self.rollouts.list_inserts(),
        ]

    def hold(self, reason: str) -> None:
        """Go on with what was active, and activate nothing else: there may be decisions that cannot be read."""
        self.decisions.held = reason
        self.served.take_names()

    # -----------------------------------------------------------------------------------------------------------------

    def _flush(self, *, is_last: bool) -> None:
        self._file.open()
        self._file.write(self.events.make_trim_statement())
        self.events.note_written()
        if self._names.is_stale:
            self._write_names()
        self._file.copy_if_due(is_last=is_last)

    def _write_names(self) -> None:
        """Write the names of what answers now: an unloaded model must not answer again if that decision is lost."""
        unloaded = self.decisions.unloaded
        try:
            self._names.write({model: id for model, id in self.served.active.items() if model not in unloaded})
        except OSError as error:
            problem = f"the names of what is active cannot be written: {error.strerror}"
            self._file.report(StateUnavailable(problem))
