"""What must survive a restart: operators' decisions, verdicts, names of lone files, and the story of every transition.

Memory is what decisions are made from; SQLite is where it is kept. When the database cannot be used the service goes on
from memory and says so; only an operator's decision is refused then, because it could not be kept. When decisions have
been lost, what was active goes on and nothing else is activated until an operator accepts that.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from serving.domain.errors import StateUnavailable
from serving.domain.provenance import Provenance
from serving.domain.report import CandidateReport
from serving.domain.signature import Signature
from serving.domain.status import HistoryEntry
from serving.domain.version import VersionId
from serving.lifecycle.active_names import has_active, read_active, write_active
from serving.lifecycle.database import Database, StateDamaged, Statement, StateTooNew
from serving.lifecycle.recovery import Found, may_hold_decisions, open_best, refresh_copy
from serving.lifecycle.remembered import KnownStore, Remembered, RememberedContract, RememberedRefusal
from serving.lifecycle.story import insert_entry, read_entries, trim_entries

DATABASE_NAME = "state.sqlite"
MAX_UNWRITTEN = 10_000
COPY_SECONDS = 60.0  # how far the copy may be behind, except for decisions: these are in it before they are answered

log = structlog.get_logger("serving.history")


class History(Remembered):
    """Everything durable. `start` is called first; then one thread, the reconciler's, except for `entries`.

    `is_loaded` says whether the database is open, and what it holds is in memory.
    """

    def __init__(
        self, state_path: Path, basis: str, max_rows: int, on_failure: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self._directory = state_path
        self._path = state_path / DATABASE_NAME
        self._database = Database(self._path)
        self._basis = basis
        self._max_rows = max_rows
        self._on_failure = on_failure
        self._unwritten: list[Statement] = []
        self.is_loaded = False
        self._was_loaded = False
        self._has_new_active = False
        self._copy_due_at: float | None = None
        self._failure: str | None = None
        self._restored: str | None = None

    @property
    def problem(self) -> str | None:
        """What an operator should know of the state, None when there is nothing."""
        if self.held is not None and self.is_loaded:
            return f"{self.held}; 'serving accept-state-loss' goes on without them"
        return self.held or self._failure or self._restored

    # --- start and stop ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read what is known, as `open` does. Raises StateTooNew, and then nothing has been touched."""
        try:
            self._open()
        except StateTooNew:
            raise
        except StateUnavailable as error:
            self._fail(error)

    def open(self) -> None:
        """Read what is known. A database that cannot be used is reported, and tried again with every flush."""
        try:
            self._open()
        except StateUnavailable as error:  # also one of a later release, put there while the server runs
            self._fail(error)

    def close(self) -> None:
        """Write what is left and close."""
        if self._copy_due_at is not None:
            self._copy_due_at = 0.0
        self.flush()
        self._database.close()

    def _open(self) -> None:
        # The names are written by this release: where they are, a file that is empty or older is not what it wrote.
        is_known = os.path.lexists(self._path) and has_active(self._directory)
        try:
            opened = open_best(self._database, was_used=self._was_loaded or is_known, is_remembered=self._was_loaded)
            if opened.found is Found.LOST and self._was_loaded:
                self._database.write(self.rows(), is_decision=True)
            self.read_from(self._database, self._basis)
        except StateUnavailable as error:
            if not self._was_loaded and may_hold_decisions(self._path):
                self.held = f"{error}: pins and quarantines are not known"
                self.active = read_active(self._directory) | self.active
            raise
        self._restored = opened.reason
        self.is_loaded = self._was_loaded = True
        self._failure = None
        self._copy_due_at = None if opened.has_copy else 0.0
        if self.held is not None:
            for model, (version, digest) in read_active(self._directory).items():
                self.active.setdefault(model, (version, digest))
                self._later("INSERT OR IGNORE INTO active VALUES (?, ?, ?)", model, version, digest)
            log.error("state_held", reason=self.held, effect="what was active goes on, nothing else is activated")

    # --- what happened -----------------------------------------------------------------------------------------------

    def note(self, entry: HistoryEntry, model: str) -> None:
        """Remember one transition or operator's call; written with the next flush."""
        self._unwritten.append(insert_entry(entry, model))

    def note_refusal(self, id: VersionId, report: CandidateReport, against: str | None) -> None:
        """Remember that these bytes were refused."""
        refusal = RememberedRefusal(datetime.now(UTC), self._basis, against, report)
        self.refusals[id] = refusal
        self._later(
            "INSERT OR REPLACE INTO refusals VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(id.model, id.version, id.digest, refusal.at.isoformat(), self._basis, against, report.model_dump_json()),
        )

    def note_accepted(self, id: VersionId) -> None:
        """Remember under which digest a version with a manifest was accepted: it may not change any more."""
        if self.accepted.get((id.model, id.version)) != id.digest:
            self.accepted[id.model, id.version] = id.digest
            self._later("INSERT OR REPLACE INTO accepted VALUES (?, ?, ?)", id.model, id.version, id.digest)

    def note_lone(self, id: VersionId) -> None:
        """Remember the version name that this content of a lone file was given."""
        self.lone[id.model, id.digest] = id.version
        self._later("INSERT OR REPLACE INTO lone VALUES (?, ?, ?)", id.model, id.digest, id.version)

    def note_active(self, id: VersionId, signature: Signature | None, provenance: Provenance | None) -> None:
        """Write down what is about to be active, so that the same answers after a restart; its signature, for what
        comes then; and who signed it, for replays.
        """
        self.active[id.model] = (id.version, id.digest)
        self._has_new_active = True
        self._later("INSERT OR REPLACE INTO active VALUES (?, ?, ?)", id.model, id.version, id.digest)
        if signature is not None:
            self.contracts[id.model] = RememberedContract(id.version, id.digest, signature)
            values = (id.model, id.version, id.digest, signature.model_dump_json())
            self._later("INSERT OR REPLACE INTO contracts VALUES (?, ?, ?, ?)", *values)
        if provenance is not None:
            self.provenance[id.model] = provenance
            self._later("INSERT OR REPLACE INTO signed VALUES (?, ?)", id.model, provenance.model_dump_json())
        elif self.provenance.pop(id.model, None) is not None:
            self._later("DELETE FROM signed WHERE model = ?", id.model)
        self._write()

    def forget_active(self, model: str) -> None:
        """Remember no longer what was active: the model's files are gone, and an operator has unloaded it."""
        if self.active.pop(model, None) is not None:
            self._has_new_active = True
            self._later("DELETE FROM active WHERE model = ?", model)

    def note_store(self, store: KnownStore) -> None:
        """Remember which store holds models. What was active in one at another path is no concern of this one."""
        if self.store is not None and store.path != self.store.path:
            for model in [*self.active]:
                self.forget_active(model)
        if store != self.store:
            self.store = store
            self._later("INSERT OR REPLACE INTO facts VALUES ('store', ?)", json.dumps([store.path, store.device]))

    def flush(self) -> None:
        """Write what was noted since the last flush. On failure it is kept (up to a bound) and tried again."""
        if not self.is_loaded:
            self.open()
        self._write()
        if self._has_new_active:
            self._write_active_names()
        if self.is_loaded and self._copy_due_at is not None and time.monotonic() >= self._copy_due_at:
            self._copy()

    # --- operators' decisions: durable before they count -------------------------------------------------------------

    def pin(self, model: str, version: str | None) -> None:
        """Set or (None) lift the pin of a model; raises StateUnavailable and changes nothing if it cannot be kept."""
        if version is None:
            self._decide([("DELETE FROM pins WHERE model = ?", (model,))])
            self.pins.pop(model, None)
        else:
            self._decide([("INSERT OR REPLACE INTO pins VALUES (?, ?)", (model, version))])
            self.pins[model] = version

    def unload(self, model: str) -> None:
        """Keep every version of a model unloaded until `load`; raises StateUnavailable like `pin`."""
        self._decide([("INSERT OR REPLACE INTO unloaded VALUES (?)", (model,))])
        self.unloaded.add(model)
        self._has_new_active = True

    def load(self, model: str) -> None:
        """Let the model's versions be loaded again; raises StateUnavailable like `pin`."""
        self._decide([("DELETE FROM unloaded WHERE model = ?", (model,))])
        self.unloaded.discard(model)

    def quarantine_version(self, id: VersionId) -> None:
        """Never serve these bytes again until released; raises StateUnavailable like `pin`."""
        self._decide([("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?)", (id.model, id.version, id.digest))])
        self.quarantine.add((id.model, id.version, id.digest))

    def release(self, model: str, version: str, digest: str | None) -> None:
        """Lift the quarantine of a version and forget the verdict over `digest`, or over anything that had its name
        where that is not known yet; raises StateUnavailable like `pin`.
        """
        verdicts = self.refusals_of(model, version, digest)
        forget = "DELETE FROM refusals WHERE model = ? AND version = ? AND digest = ?"
        self._decide(
            [
                ("DELETE FROM quarantine WHERE model = ? AND version = ?", (model, version)),
                *((forget, (model, version, one.digest)) for one in verdicts),
            ]
        )
        self.quarantine = {key for key in self.quarantine if key[:2] != (model, version)}
        for one in verdicts:
            del self.refusals[one]

    def accept_loss(self) -> None:
        """Go on without the decisions that were lost; raises StateUnavailable like `pin`."""
        self._decide([("DELETE FROM facts WHERE name = 'held'", ())])
        self.held = self._restored = None

    # --- reading -----------------------------------------------------------------------------------------------------

    def entries(self, model: str, limit: int, before_id: int | None) -> tuple[HistoryEntry, ...]:
        """Return the newest entries of a model first. Any thread; blocks on the disk; raises StateUnavailable."""
        return read_entries(self._path, model, limit, before_id)

    # -----------------------------------------------------------------------------------------------------------------

    def _later(self, statement: str, *values: object) -> None:
        self._unwritten.append((statement, values))

    def _write(self) -> None:
        if not self._unwritten or not self.is_loaded:
            self._unwritten = self._unwritten[-MAX_UNWRITTEN:]
            return
        statements, self._unwritten = self._unwritten, []
        try:
            self._database.write([*statements, trim_entries(self._max_rows)])
        except StateUnavailable as error:
            self._unwritten = statements[-MAX_UNWRITTEN:]
            self._fail(error)
            return
        self._failure = None
        if self._copy_due_at is None:
            self._copy_due_at = time.monotonic() + COPY_SECONDS

    def _decide(self, statements: list[Statement]) -> None:
        if not self.is_loaded:
            self.open()
        if not self.is_loaded:
            raise StateUnavailable(self._failure or f"{DATABASE_NAME} is not open")
        try:
            self._database.write([*self._unwritten, *statements], is_decision=True)
        except StateUnavailable as error:
            self._fail(error)
            raise
        self._unwritten = []
        self._failure = None
        self._copy()

    def _copy(self) -> None:
        try:
            refresh_copy(self._database)
            self._copy_due_at = None
        except StateUnavailable as error:
            self._copy_due_at = time.monotonic() + COPY_SECONDS
            self._fail(error)

    def _write_active_names(self) -> None:
        """Write down what answers now: an unloaded model must not answer again when the decision to unload is lost."""
        answering = {model: id for model, id in self.active.items() if model not in self.unloaded}
        try:
            write_active(self._directory, answering)
            self._has_new_active = False
        except OSError as error:
            self._fail(StateUnavailable(f"the names of what is active cannot be written: {error.strerror}"))

    def _fail(self, error: StateUnavailable) -> None:
        self._on_failure()
        if self._failure is None:
            log.error("state_unavailable", reason=str(error), effect="serving goes on; history is kept in memory")
        self._failure = str(error)
        if isinstance(error, StateDamaged):  # found while the server runs: the next flush opens the best there is
            self._database.close()
            self.is_loaded = False
