"""The traces of candidates: begun with their staging, exported when they are ready, refused or given up."""

from __future__ import annotations

from serving.domain.report import GateResult
from serving.lifecycle.candidate import (
    CandidateFailed,
    CandidateReady,
    CandidateRefused,
    CandidateStaged,
    CandidateStopped,
    CandidateUnfinished,
    CopyDamaged,
    Outcome,
)
from serving.lifecycle.records import ModelRecord, VersionRecord
from serving.telemetry.tracer import Tracer

_OUTCOMES: dict[type[Outcome], tuple[str, str | None]] = {
    CandidateReady: ("ready", None),
    CopyDamaged: ("failed", "copy_damaged"),
    CandidateUnfinished: ("unfinished", None),
    CandidateStopped: ("cancelled", None),
}


class CandidateTraces:
    """Keeps them in the records of versions. Reconciler thread only, except `add_gate`. Does nothing without a tracer.

    A version whose bytes are known is not evaluated again after its staging, and leaves no trace. One that is ready is
    exported at the end of the same pass of the reconciler, so that its trace has its activation.
    """

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer
        self._ready: dict[str, VersionRecord] = {}  # by model

    def begin(self, record: VersionRecord) -> None:
        """Begin the trace of a candidate."""
        if self._tracer is not None:
            record.trace = self._tracer.begin_candidate(record.model, record.version)

    def add_gate(self, record: VersionRecord, result: GateResult) -> None:
        """Add a gate that has just ended. The candidate's thread."""
        if record.trace is not None:
            record.trace.add_gate(result)

    def conclude(self, record: VersionRecord, outcome: Outcome) -> None:
        """Note how the work on a version has ended; export it unless it goes on."""
        trace = record.trace
        if trace is None or isinstance(outcome, CandidateStaged):
            return
        trace.conclude(*_describe(outcome), record.digest)
        trace.end()
        if isinstance(outcome, CandidateReady):
            self._ready[record.model] = record
        else:
            self._export(record)

    def note(self, model: ModelRecord, record: VersionRecord, event: str) -> None:
        """Note what becomes of a version that has just become ready."""
        if self._ready.get(model.name) is record and record.trace is not None:
            before = model.standbys[0].version if event == "activated" and model.standbys else None
            record.trace.note(event, **({} if before is None else {"serving.replaces": before}))
            record.trace.end()

    def export(self, model: ModelRecord) -> None:
        """Export the version of `model` that has become ready, if one has, at the end of a pass over the model."""
        record = self._ready.pop(model.name, None)
        if record is not None:
            self._export(record)

    def _export(self, record: VersionRecord) -> None:
        trace, record.trace = record.trace, None
        if trace is not None and self._tracer is not None:
            self._tracer.take(trace)


def _describe(outcome: Outcome) -> tuple[str, str | None]:
    """Return what became of a candidate, and what was wrong with it in one word, None where nothing was."""
    if isinstance(outcome, CandidateRefused):
        return "refused", outcome.report.refusal.gate if outcome.report.refusal is not None else "unknown"
    if isinstance(outcome, CandidateFailed):
        return "failed", "host_died" if outcome.is_host_death else "failed"
    return _OUTCOMES[type(outcome)]
