"""Every change of a version's state goes through here: it is checked, recorded, logged and counted."""

from __future__ import annotations

import structlog

from serving.domain.report import CandidateReport
from serving.domain.state import State
from serving.domain.status import Failure, HistoryEntry
from serving.lifecycle.event_log import EventLog
from serving.lifecycle.records import ModelRecord, VersionRecord, now_utc
from serving.lifecycle.remembered_verdicts import RememberedVerdicts
from serving.telemetry.metrics import Metrics

SYSTEM = "system"
_ALARMING = frozenset({State.REJECTED, State.FAILED})

log = structlog.get_logger("serving.lifecycle")


class Journal:
    """Changes states. Reconciler thread only. `dirty` names the models whose snapshot is out of date."""

    def __init__(self, events: EventLog, verdicts: RememberedVerdicts, metrics: Metrics) -> None:
        self._events = events
        self._verdicts = verdicts
        self._metrics = metrics
        self.dirty: set[str] = set()

    def move(
        self,
        record: VersionRecord,
        after: State,
        reason: str | None = None,
        *,
        actor: str = SYSTEM,
    ) -> None:
        """Change the state of one version. The recorded duration is the time spent in the state that it leaves."""
        before = record.state
        duration_seconds = round(record.move(after, reason), 6)
        self.dirty.add(record.model)
        entry = HistoryEntry(
            at=record.since,
            version=record.version,
            digest=record.digest,
            before=before,
            after=after,
            actor=actor,
            event="transition",
            reason=reason,
            duration_seconds=duration_seconds,
        )
        self._events.note(entry, record.model)
        write = log.warning if after in _ALARMING else log.info
        write(
            "transition",
            model=record.model,
            version=record.version,
            digest=record.digest,
            before=before.value,
            after=after.value,
            duration_seconds=duration_seconds,
            reason=reason,
        )

    def fail(self, model: ModelRecord, record: VersionRecord, after: State, gate: str, reason: str) -> None:
        """Reject or fail a version and remember it as the model's last failure."""
        model.last_failure = Failure(version=record.version, gate=gate, reason=reason, at=now_utc())
        if record.state is not after:
            self.move(record, after, f"{gate}: {reason}")
        if after is State.REJECTED:
            self._metrics.count_rejection(record.model, gate)

    def refuse(self, model: ModelRecord, record: VersionRecord, report: CandidateReport, against: str | None) -> None:
        """Reject a version whose bytes a gate has refused, and remember the verdict."""
        refusal = report.refusal
        assert refusal is not None
        record.report = report
        self._verdicts.note_refusal(record.id, report, against)
        self.fail(model, record, State.REJECTED, refusal.gate, refusal.evidence)

    def operator(self, model: ModelRecord, event: str, actor: str, version: str | None, reason: str | None) -> None:
        """Record an operator's call."""
        entry = HistoryEntry(at=now_utc(), version=version, actor=actor, event=event, reason=reason)
        self._events.note(entry, model.name)
        self.dirty.add(model.name)
