"""Candidates under way: starting them, stopping them, and what their outcome means."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import timedelta

import structlog

from serving.domain.environment import OWN
from serving.domain.manifest import MANIFEST_NAME
from serving.domain.provenance import find_rival
from serving.domain.report import CandidateReport, GateName, GateResult, Verdict
from serving.domain.state import State
from serving.domain.version import order_key
from serving.lifecycle.candidate import (
    Candidate,
    CandidateFailed,
    CandidatePassed,
    CandidateReady,
    CandidateRefused,
    CandidateStaged,
    CandidateStopped,
    CandidateUnfinished,
    CopyDamaged,
    Outcome,
)
from serving.lifecycle.candidate_runner import CandidateRunner, Trial
from serving.lifecycle.candidate_traces import CandidateTraces
from serving.lifecycle.environment_watch import EnvironmentWatch
from serving.lifecycle.evaluation_request import Comparison
from serving.lifecycle.inbox import CandidateFinished, CandidateProgressed, WorkMessage
from serving.lifecycle.journal import Journal
from serving.lifecycle.records import ModelRecord, VersionRecord, now_utc
from serving.lifecycle.remembered_verdicts import RememberedVerdicts
from serving.lifecycle.served_versions import ServedVersions
from serving.lifecycle.standing_decisions import StandingDecisions
from serving.settings import Settings
from serving.telemetry.metrics import Metrics

MAX_HOST_DEATHS = 2
_FINAL = frozenset({State.REJECTED, State.QUARANTINED})

log = structlog.get_logger("serving.candidate")


class EvaluationRuns:
    """Runs at most `candidate.concurrency` candidates at once, one per model. Reconciler thread only.

    `on_staged` is called when the digest of a version has become known. A version that an operator
    has pinned answers no recent rows: they could only speak against that decision.
    """

    def __init__(
        self,
        runner: CandidateRunner,
        journal: Journal,
        verdicts: RememberedVerdicts,
        served: ServedVersions,
        metrics: Metrics,
        executor: Executor,
        post: Callable[[WorkMessage], None],
        settings: Settings,
        environments: EnvironmentWatch,
        on_staged: Callable[[ModelRecord, VersionRecord, CandidateStaged], None],
        decisions: StandingDecisions,
        traces: CandidateTraces,
    ) -> None:
        self._runner = runner
        self._journal = journal
        self._verdicts = verdicts
        self._served = served
        self._metrics = metrics
        self._executor = executor
        self._post = post
        self._settings = settings
        self._environments = environments
        self._on_staged = on_staged
        self._decisions = decisions
        self.traces = traces
        self.running_count = 0

    @property
    def has_room(self) -> bool:
        """Whether another candidate may start now."""
        return self.running_count < self._settings.candidate.concurrency

    def stage(self, model: ModelRecord, record: VersionRecord, now: float) -> None:
        """Start copying one version into the cache."""
        entry = record.entry
        assert entry is not None
        quiet = now - record.seen_at
        has_settled = quiet >= self._settings.store.settle_seconds
        quiet_seconds = quiet if has_settled or not entry.has_manifest else None
        self._enter(record, State.STAGING)
        self.traces.begin(record)
        self._start(model, record, lambda candidate: self._runner.stage(candidate, entry, quiet_seconds))

    def evaluate(self, model: ModelRecord, record: VersionRecord) -> None:
        """Start the gates over one staged version."""
        artifact = record.artifact
        assert artifact is not None
        comparison = self._comparison(model, record)
        source = record.entry.path if record.entry is not None else f"{record.model}/{record.version}"
        self._enter(record, State.LOADING)
        record.gates_so_far = ()
        if record.trace is None:  # staged earlier: before a restart, or before it failed
            self.traces.begin(record)

        def on_state(state: State) -> None:
            self._post(CandidateProgressed(model, record, state))

        def on_gate(result: GateResult) -> None:
            self._metrics.record_gate(result.gate, result.duration_seconds)
            self.traces.add_gate(record, result)
            self._post(CandidateProgressed(model, record, result))

        def evaluate(candidate: Candidate) -> Outcome:
            return self._runner.evaluate(Trial(candidate, artifact, comparison, source, on_gate, on_state))

        self._start(model, record, evaluate)

    def cancel(self, model: ModelRecord, reason: str) -> None:
        """Stop the candidate under way; its end is reported like any other."""
        if model.candidate is not None and not model.candidate.cancelled.is_set():
            log.info("candidate_cancelled", model=model.name, version=model.candidate.version, reason=reason)
            model.candidate.reason = reason
            model.candidate.cancel()

    def note_progress(self, message: CandidateProgressed) -> None:
        """Take in how far an evaluation has come, unless it has ended."""
        record, progress = message.record, message.progress
        if message.model.running is not record:
            return
        if isinstance(progress, GateResult):
            before = [result.gate for result in record.gates_so_far]  # all speak anew where graphs were refused
            known = before.index(progress.gate) if progress.gate in before else len(before)
            record.gates_so_far = (*record.gates_so_far[:known], progress)
            record.touch()
            self._journal.dirty.add(record.model)
        elif record.state is not progress:
            self._journal.move(record, progress)

    def finish(self, message: CandidateFinished) -> None:
        """Take in how the work on a version has ended."""
        model, record = message.model, message.record
        self.running_count -= 1
        candidate, model.running, model.candidate = model.candidate, None, None
        record.gates_so_far = ()
        record.touch()
        error = message.outcome.exception()
        if error is not None:
            log.error("candidate_crashed", model=model.name, version=record.version, exc_info=error)
            outcome: Outcome = CandidateFailed(f"{type(error).__name__}: {error}")
        else:
            outcome = message.outcome.result()
        self.traces.conclude(record, outcome)
        match outcome:
            case CandidateStaged():
                self._on_staged(model, record, outcome)
            case CopyDamaged(reason):
                self._damaged(model, record, reason)
            case CandidateUnfinished(reason):
                record.postponements += 1
                record.unfinished = reason
                record.not_before = time.monotonic() + max(self._settings.store.settle_seconds, 0.05)
                self._journal.move(record, State.DISCOVERED, f"not complete yet: {reason}")
            case CandidateStopped():
                self._journal.move(record, State.DISCOVERED, f"cancelled: {candidate.reason if candidate else ''}")
            case CandidateRefused(report):
                self._refused(model, record, candidate, report)
            case CandidateFailed():
                self._failed(model, record, outcome)
            case CandidateReady():
                self._ready(model, record, outcome)
            case CandidatePassed():
                raise AssertionError("nothing that is in the store is only checked")

    # -----------------------------------------------------------------------------------------------------------------

    def _refused(
        self, model: ModelRecord, record: VersionRecord, candidate: Candidate | None, report: CandidateReport
    ) -> None:
        """Remember a refusal, and what it was against where it depends on more than the bytes."""
        refusal = report.refusal
        gate = None if refusal is None else refusal.gate
        is_reissue = report.provenance is not None and gate == GateName.PROVENANCE
        is_relative = is_reissue or gate in (GateName.CONTRACT, GateName.REPLAY)
        contract = self._served.find_contract(model) if is_relative else None
        against = contract.digest if contract else None
        if gate == GateName.REPLAY:
            against = against or ""  # of no version, when that has gone meanwhile: it is about no bytes alone
        if not is_relative and candidate is not None and _depends_on_environments(report):
            against = candidate.environments
        self._journal.refuse(model, record, report, against)

    def _enter(self, record: VersionRecord, state: State) -> None:
        if record.state is State.QUARANTINED and record.digest is None:
            self._journal.move(record, State.DISCOVERED, "its bytes are compared with those in quarantine")
        elif record.state in _FINAL:
            self._journal.move(record, State.DISCOVERED, "may be tried again")
        self._journal.move(record, state)

    def compare(self, model: ModelRecord, version: str) -> Comparison:
        """Return what a version is compared with. Only newer versions are: an operator has chosen an older one."""
        accepted = self._verdicts.accepted.get((model.name, version))
        last = self._served.provenance.get(
            model.name
        )  # also after a restart, when a reissue may be the first to be tried
        signed = find_rival(last, version, self._settings.security.trusted_keys)
        contract = self._served.find_contract(model)
        active, digest = self._served.active.get(model.name, (None, None))
        answered = digest if active == version else None
        if contract is None or order_key(version) < order_key(contract.version):
            return Comparison(active_provenance=signed, accepted_digest=accepted, answered_digest=answered)
        is_pinned = self._decisions.pins.get(model.name) == version
        replayed = None if is_pinned or model.active is None else model.active.id
        return Comparison(contract.version, contract.signature, signed, accepted, answered, replayed)

    def _comparison(self, model: ModelRecord, record: VersionRecord) -> Comparison:
        """Return what a candidate is compared with. What answered for a label before a restart answers again."""
        if record in model.kept_labelled.values():
            accepted = self._verdicts.accepted.get((model.name, record.version))
            return Comparison(accepted_digest=accepted, answered_digest=record.digest)
        return self.compare(model, record.version)

    def _start(self, model: ModelRecord, record: VersionRecord, work: Callable[[Candidate], Outcome]) -> None:
        candidate = Candidate(record.model, record.version, self._environments.against())
        candidate.trace = record.trace
        model.running, model.candidate = record, candidate
        self.running_count += 1
        future = self._executor.submit(work, candidate)
        future.add_done_callback(lambda done: self._post(CandidateFinished(model, record, done)))

    def _damaged(self, model: ModelRecord, record: VersionRecord, reason: str) -> None:
        """Handle a damaged copy in the cache: it is copied again, if the store has the files."""
        record.artifact = None
        record.failures += 1
        record.not_before = time.monotonic() + self._settings.candidate.wait_seconds(record.failures)
        self._journal.move(record, State.DISCOVERED, reason)
        if record in model.all_kept:
            model.kept = None if record is model.kept else model.kept
            model.kept_labelled = {label: one for label, one in model.kept_labelled.items() if one is not record}
            log.error("not_restored", model=model.name, version=record.version, reason=reason)

    def _failed(self, model: ModelRecord, record: VersionRecord, outcome: CandidateFailed) -> None:
        gate = record.state.value.lower()
        if outcome.is_host_death:
            record.host_deaths += 1
            if record.host_deaths >= MAX_HOST_DEATHS:
                reason = f"{outcome.reason}, {record.host_deaths} times"
                result = GateResult(gate=GateName.LOAD, verdict=Verdict.REFUSED, evidence=reason)
                self._journal.refuse(model, record, CandidateReport(gates=(result,)), None)
                return
        else:
            record.failures += 1
        wait = self._settings.candidate.wait_seconds(record.failures)
        record.not_before = time.monotonic() + wait
        self._journal.fail(model, record, State.FAILED, gate, outcome.reason)
        record.retry_at = now_utc() + timedelta(seconds=wait)

    def _ready(self, model: ModelRecord, record: VersionRecord, outcome: CandidateReady) -> None:
        for state in (State.VALIDATING, State.WARMING):  # progress that has not been told yet
            if record.state in (State.LOADING, State.VALIDATING) and record.state is not state:
                self._journal.move(record, state)
        record.placement, record.host, record.report = outcome.placement, outcome.host, outcome.report
        record.failures = record.host_deaths = record.postponements = 0
        model.standbys.append(record)
        if record.artifact is not None and record.artifact.file(MANIFEST_NAME) is not None:
            self._verdicts.note_accepted(record.id)
        self._journal.move(record, State.READY, "every gate passed")


def _depends_on_environments(report: CandidateReport) -> bool:
    """Whether another environment could change a refusal: none fitted, or it was evaluated in one that may change."""
    chosen = report.environment
    return chosen is not None and chosen.name != OWN
