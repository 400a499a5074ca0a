"""Which versions may not be candidates, and why: quarantine, problems on disk, verdicts on record."""

from __future__ import annotations

from serving.domain.state import State
from serving.lifecycle.contract import contract_of
from serving.lifecycle.history import Refusal
from serving.lifecycle.journal import Journal
from serving.lifecycle.records import ModelRecord, VersionRecord

_NOT_LOADED = frozenset({State.DISCOVERED, State.REJECTED, State.FAILED, State.RETIRED, State.STAGING})


class Exclusion:
    """Reconciler thread only."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def is_quarantined(self, record: VersionRecord) -> bool:
        """Whether an operator has put these bytes in quarantine."""
        return (record.model, record.version, record.digest) in self._journal.history.quarantine

    def why_excluded(self, model: ModelRecord, record: VersionRecord) -> str | None:
        """Say why a version cannot be a candidate as it is, or None when it can."""
        if self.is_quarantined(record):
            return "in quarantine"
        if record.entry is not None and record.entry.problem is not None:
            return f"published: {record.entry.problem}"
        refusal = self._refusal(record)
        if refusal is None:
            return None
        if refusal.against is not None:
            contract = contract_of(model, self._journal.history)
            if contract is None or refusal.against != contract.digest:
                return None
        gate = refusal.report.refusal
        return f"{gate.gate}: {gate.evidence}" if gate else "refused before"

    def is_excluded(self, model: ModelRecord, record: VersionRecord) -> bool:
        """Whether a version cannot be a candidate as it is."""
        return self.why_excluded(model, record) is not None

    def mark(self, model: ModelRecord) -> None:
        """Let the states of versions that are not loaded say what holds them back, or that nothing does."""
        for record in model.listed.values():
            if record is model.running or record.servable is not None:
                continue
            reason = self.why_excluded(model, record)
            if reason is None:
                if record.state in (State.STAGING, State.QUARANTINED):
                    self._journal.move(record, State.DISCOVERED, "waits for its turn")
                continue
            is_quarantined = self.is_quarantined(record)
            after = State.QUARANTINED if is_quarantined else State.REJECTED
            if record.state is not after and after is not State.REJECTED:
                self._journal.move(record, after, reason)
            elif record.state in _NOT_LOADED and record.state is not after:
                self._remember(model, record, reason)

    def _remember(self, model: ModelRecord, record: VersionRecord, reason: str) -> None:
        """These bytes were refused before, perhaps by an earlier run of the server: the verdict stands."""
        refusal = self._refusal(record)
        record.report = refusal.report if refusal else None
        gate, _, evidence = reason.partition(": ")
        self._journal.fail(model, record, State.REJECTED, gate, evidence)

    def _refusal(self, record: VersionRecord) -> Refusal | None:
        return None if record.digest is None else self._journal.history.refusals.get(record.id)
