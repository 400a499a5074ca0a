"""What must survive a restart: operators' decisions, verdicts, names of lone files, and the story of every transition.

Memory is what decisions are made from; SQLite is where it is kept. When the database cannot be used the service goes on
from memory and says so; only an operator's decision is refused then, because it could not be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from pydantic import ValidationError

from serving.domain.errors import StateUnavailable
from serving.domain.provenance import Provenance
from serving.domain.report import CandidateReport
from serving.domain.signature import Signature
from serving.domain.state import State
from serving.domain.status import HistoryEntry
from serving.domain.version import VersionId
from serving.lifecycle.database import Database, Statement, read_once

DATABASE_NAME = "state.sqlite"
MAX_UNWRITTEN = 10_000

log = structlog.get_logger("serving.history")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A verdict that stands until the bytes, or what they were judged by, change.

    `basis` names the library versions and settings it was reached under. `against` is the digest of the active version
    it was compared with, for refusals by the contract gate and of replays; None when it depends on nothing else.
    """

    at: datetime
    basis: str
    against: str | None
    report: CandidateReport


@dataclass(frozen=True, slots=True)
class Contract:
    """What clients of a model rely on: the signature of the version that was active last."""

    version: str
    digest: str
    signature: Signature


class History:
    """Everything durable. Reconciler thread only, except `entries`."""

    def __init__(
        self, state_path: Path, basis: str, max_rows: int, on_failure: Callable[[], None] = lambda: None
    ) -> None:
        self._path = state_path / DATABASE_NAME
        self._database = Database(self._path)
        self._basis = basis
        self._max_rows = max_rows
        self._on_failure = on_failure
        self._unwritten: list[Statement] = []
        self._is_loaded = False
        self.problem: str | None = None
        self.pins: dict[str, str] = {}
        self.unloaded: set[str] = set()
        self.quarantine: set[tuple[str, str, str]] = set()
        self.refusals: dict[VersionId, Refusal] = {}  # a copy under another name may be refused for that alone
        self.accepted: dict[tuple[str, str], str] = {}
        self.lone: dict[tuple[str, str], str] = {}
        self.active: dict[str, tuple[str, str]] = {}
        self.provenance: dict[str, Provenance] = {}
        self.contracts: dict[str, Contract] = {}

    # --- start and stop ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Read what is known. A database that cannot be used is reported, and tried again with every flush."""
        try:
            self._database.open()
            self._load()
            self._is_loaded = True
            self.problem = None
        except StateUnavailable as error:
            self._fail(error)

    def close(self) -> None:
        """Write what is left and close."""
        self.flush()
        self._database.close()

    def _load(self) -> None:
        read = self._database.read
        self.pins = dict(read("SELECT model, version FROM pins"))
        self.unloaded = {model for (model,) in read("SELECT model FROM unloaded")}
        self.quarantine = set(read("SELECT model, version, digest FROM quarantine"))
        # What has been learnt while the database could not be read counts for more than what was in it.
        self.accepted = {(m, v): d for m, v, d in read("SELECT model, version, digest FROM accepted")} | self.accepted
        self.lone = {(m, d): v for m, d, v in read("SELECT model, digest, version FROM lone")} | self.lone
        self.active = {m: (v, d) for m, v, d in read("SELECT model, version, digest FROM active")} | self.active
        for model, provenance in read("SELECT model, provenance FROM signed"):
            with suppress(ValidationError):
                self.provenance.setdefault(model, Provenance.model_validate_json(provenance))
        for model, version, digest, signature in read("SELECT model, version, digest, signature FROM contracts"):
            with suppress(ValidationError):
                contract = Contract(version, digest, Signature.model_validate_json(signature))
                self.contracts.setdefault(model, contract)
        for model, version, digest, at, basis, against, report in read("SELECT * FROM refusals"):
            if basis != self._basis:
                continue  # other libraries or settings: it deserves another look
            with suppress(ValidationError):
                parsed = CandidateReport.model_validate_json(report)
                refusal = Refusal(datetime.fromisoformat(at), basis, against, parsed)
                self.refusals.setdefault(VersionId(model, version, digest), refusal)

    # --- what happened -----------------------------------------------------------------------------------------------

    def note(self, entry: HistoryEntry, model: str) -> None:
        """Remember one transition or operator's call; written with the next flush."""
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
        self._later(
            "INSERT INTO transitions"
            " (at, model, version, digest, before, after, actor, event, reason, duration_seconds)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )

    def note_refusal(self, id: VersionId, report: CandidateReport, against: str | None) -> None:
        """Remember that these bytes were refused."""
        refusal = Refusal(datetime.now(UTC), self._basis, against, report)
        self.refusals[id] = refusal
        self._later(
            "INSERT OR REPLACE INTO refusals VALUES (?, ?, ?, ?, ?, ?, ?)",
            (id.model, id.version, id.digest, refusal.at.isoformat(), self._basis, against, report.model_dump_json()),
        )

    def note_accepted(self, id: VersionId) -> None:
        """Remember under which digest a version with a manifest was accepted: it may not change any more."""
        if self.accepted.get((id.model, id.version)) != id.digest:
            self.accepted[id.model, id.version] = id.digest
            self._later("INSERT OR REPLACE INTO accepted VALUES (?, ?, ?)", (id.model, id.version, id.digest))

    def note_lone(self, id: VersionId) -> None:
        """Remember the version name that this content of a lone file was given."""
        self.lone[id.model, id.digest] = id.version
        self._later("INSERT OR REPLACE INTO lone VALUES (?, ?, ?)", (id.model, id.digest, id.version))

    def note_active(self, id: VersionId, signature: Signature | None, provenance: Provenance | None) -> None:
        """Remember what was active, for a start at which the store cannot be read; its signature, for what comes after
        a restart; and who signed it, for replays.
        """
        self.active[id.model] = (id.version, id.digest)
        self._later("INSERT OR REPLACE INTO active VALUES (?, ?, ?)", (id.model, id.version, id.digest))
        if signature is not None:
            self.contracts[id.model] = Contract(id.version, id.digest, signature)
            values = (id.model, id.version, id.digest, signature.model_dump_json())
            self._later("INSERT OR REPLACE INTO contracts VALUES (?, ?, ?, ?)", values)
        if provenance is not None:
            self.provenance[id.model] = provenance
            self._later("INSERT OR REPLACE INTO signed VALUES (?, ?)", (id.model, provenance.model_dump_json()))
        elif self.provenance.pop(id.model, None) is not None:
            self._later("DELETE FROM signed WHERE model = ?", (id.model,))

    def flush(self) -> None:
        """Write what was noted since the last flush. On failure it is kept (up to a bound) and tried again."""
        if not self._is_loaded:
            self.open()
        if not self._unwritten or not self._is_loaded:
            self._unwritten = self._unwritten[-MAX_UNWRITTEN:]
            return
        statements, self._unwritten = self._unwritten, []
        try:
            self._database.write([*statements, self._trim()])
            self.problem = None
        except StateUnavailable as error:
            self._unwritten = statements[-MAX_UNWRITTEN:]
            self._fail(error)

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

    def load(self, model: str) -> None:
        """Let the model's versions be loaded again; raises StateUnavailable like `pin`."""
        self._decide([("DELETE FROM unloaded WHERE model = ?", (model,))])
        self.unloaded.discard(model)

    def quarantine_version(self, id: VersionId) -> None:
        """Never serve these bytes again until released; raises StateUnavailable like `pin`."""
        self._decide([("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?)", (id.model, id.version, id.digest))])
        self.quarantine.add((id.model, id.version, id.digest))

    def release(self, model: str, version: str, digest: str | None) -> None:
        """Lift the quarantine of a version and forget the verdict over `digest`; raises StateUnavailable like `pin`."""
        self._decide(
            [
                ("DELETE FROM quarantine WHERE model = ? AND version = ?", (model, version)),
                ("DELETE FROM refusals WHERE model = ? AND version = ? AND digest = ?", (model, version, digest)),
            ]
        )
        self.quarantine = {key for key in self.quarantine if key[:2] != (model, version)}
        if digest is not None:
            self.refusals.pop(VersionId(model, version, digest), None)

    # --- reading -----------------------------------------------------------------------------------------------------

    def entries(self, model: str, limit: int, before_id: int | None) -> tuple[HistoryEntry, ...]:
        """Return the newest entries of a model first. Any thread; blocks on the disk; raises StateUnavailable."""
        rows = read_once(
            self._path,
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

    # -----------------------------------------------------------------------------------------------------------------

    def _trim(self) -> Statement:
        return "DELETE FROM transitions WHERE id <= (SELECT MAX(id) FROM transitions) - ?", (self._max_rows,)

    def _later(self, statement: str, values: tuple[object, ...]) -> None:
        self._unwritten.append((statement, values))

    def _decide(self, statements: list[Statement]) -> None:
        try:
            self._database.write([*self._unwritten, *statements], is_durable=True)
        except StateUnavailable as error:
            self._fail(error)
            raise
        self._unwritten = []
        self.problem = None

    def _fail(self, error: StateUnavailable) -> None:
        self._on_failure()
        if self.problem is None:
            log.error("state_unavailable", reason=str(error), effect="serving goes on; history is kept in memory")
        self.problem = str(error)
