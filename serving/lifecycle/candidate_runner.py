"""Does the steps of a candidate from the store to something that can be activated: stage, evaluate, connect.

Everything here runs in a worker thread and may block. The reconciler gets the outcome and decides what it means.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from serving.domain.artifact import Artifact
from serving.domain.compiled_form import Compilation
from serving.domain.errors import (
    Cancelled,
    GraphHasNoRoom,
    GraphRefused,
    HostFailed,
    NotPublished,
    ServingError,
    StagingFailed,
)
from serving.domain.listing import Entry
from serving.domain.plan import Hosted, Load, Loaded, LoadFailed, NoRoom, NotReady, ReplaceHost, place
from serving.domain.report import CandidateReport, Evaluation, GateName, GateResult, Verdict
from serving.domain.sandbox import Sandbox
from serving.domain.state import State
from serving.failpoints import reach
from serving.hosting.environment_hosts import EnvironmentHosts
from serving.hosting.host_process import HostProcess
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
    CopyLost,
    Outcome,
)
from serving.lifecycle.evaluation_cache import EvaluationCache
from serving.lifecycle.evaluation_request import Comparison, evaluation_request
from serving.lifecycle.graph_checks import GraphCheck, stays_hosted
from serving.lifecycle.plane_port import PlanePort
from serving.settings import Settings
from serving.store.staging import Cache
from serving.wire.evaluation import EvaluationRequest
from serving.wire.recent_rows_document import encode_recent_rows

log = structlog.get_logger("serving.candidate")

_STATE_OF_GATE: dict[str, State] = {GateName.ENVIRONMENT: State.VALIDATING, GateName.WARM_UP: State.WARMING}


@dataclass(frozen=True, slots=True)
class Trial:
    """A staged candidate on its way through the gates.

    `source` is its place in the store, for texts. `on_state` and `on_gate` are told how far it is, in the thread that
    evaluates it.
    """

    candidate: Candidate
    artifact: Artifact
    comparison: Comparison
    source: str
    on_gate: Callable[[GateResult], None]
    on_state: Callable[[State], None] = lambda _: None


_Loading = Callable[[Trial, Evaluation, HostProcess | None], Outcome]
"""What becomes of a version that has passed, and of its host."""


class CandidateRunner:
    """Does the steps of candidates. Every method blocks; worker threads only."""

    def __init__(
        self,
        hosts: EnvironmentHosts,
        cache: Cache,
        evaluation_cache: EvaluationCache,
        settings: Settings,
        plane: PlanePort,
    ) -> None:
        self._hosts = hosts
        self._cache = cache
        self._evaluation_cache = evaluation_cache
        self._settings = settings
        self._plane = plane
        self._host_numbers = itertools.count(1)
        self._told: Sandbox | None = None

    def stage(self, candidate: Candidate, entry: Entry, quiet_seconds: float | None) -> Outcome:
        """Copy one version into the cache."""
        try:
            with candidate.time("staging"):
                artifact = self._cache.stage(entry, candidate.version, quiet_seconds, candidate.cancelled)
        except Cancelled:
            return CandidateStopped()
        except NotPublished as error:
            return CandidateUnfinished(str(error))
        except ServingError as error:
            return CandidateFailed(str(error))
        reach("staged")
        return CandidateStaged(artifact)

    def evaluate(self, trial: Trial) -> Outcome:
        """Make a version ready to answer: from its last evaluation, or else through a new host."""
        artifact, comparison = trial.artifact, trial.comparison
        kept = self._evaluation_cache.find(
            artifact, comparison.active_signature, comparison.accepted_digest, comparison.active_provenance
        )
        if kept is not None and self._hosts.has_changed(kept.report):
            kept = None

        def work() -> Outcome:
            known = kept.report.compilation if kept is not None else None
            if kept is not None and kept.report.is_compiled:
                log.info("evaluation_recalled", model=artifact.id.model, version=artifact.id.version)
                try:
                    return self._load(trial, kept)
                except GraphHasNoRoom as error:
                    known = self._keep_hosted(artifact, error)
            self._cache.verify(artifact, trial.candidate.cancelled)
            return self._evaluate_anew(trial, known, self._load)

        return _settle(trial.candidate, work)

    def check(self, trial: Trial) -> Outcome:
        """Let a version that was just staged pass every gate, and load it nowhere.

        CandidatePassed says that it may be published.
        """

        def pass_on(_trial: Trial, evaluation: Evaluation, _host: object) -> Outcome:
            return CandidatePassed(evaluation)

        return _settle(trial.candidate, lambda: self._evaluate_anew(trial, None, pass_on))

    def _evaluate_anew(self, trial: Trial, known: Compilation | None, load: _Loading) -> Outcome:
        """Evaluate, and once more, to stay hosted, when the graphs must not run in this process or have no room."""
        recent_rows = self._read_recent_rows(trial.comparison)
        request = evaluation_request(trial.artifact, self._settings, trial.comparison, known, recent_rows=recent_rows)
        try:
            return self._evaluate_in_host(trial, request, load, is_new=request.compile.known is None)
        except GraphRefused as error:
            compile_request = request.compile.model_copy(update={"known": self._keep_hosted(trial.artifact, error)})
            again = request.model_copy(update={"compile": compile_request})
            return self._evaluate_in_host(replace(trial, on_state=lambda _: None), again, load, is_new=True)

    def _read_recent_rows(self, comparison: Comparison) -> str | None:
        """Return what the active version says to recent rows, as a host reads it; None where nothing is replayed."""
        if comparison.replayed is None or not self._settings.replay.rows:
            return None
        recent = self._plane.sample(comparison.replayed)
        return None if recent is None else encode_recent_rows(recent)

    def _keep_hosted(self, artifact: Artifact, error: GraphRefused) -> Compilation:
        """Return the verdict that a version stays in its host; raises GraphHasNoRoom where it must not.

        There may be room another time, so that this says nothing against the version.
        """
        if isinstance(error, GraphHasNoRoom) and self._settings.engine.compile == "require":
            raise error
        log.warning("graph_refused", model=artifact.id.model, version=artifact.id.version, reason=str(error))
        return stays_hosted(error)

    def _evaluate_in_host(self, trial: Trial, request: EvaluationRequest, load: _Loading, *, is_new: bool) -> Outcome:
        """Evaluate in a new host; keep the evaluation in the cache if `is_new`.

        Raises HostFailed, and GraphRefused when there are graphs that must not run in this process.
        """
        candidate = trial.candidate
        candidate.check = check = GraphCheck(self._hosts.own, request, candidate.cancelled)

        def started(gate: str) -> None:
            if gate in _STATE_OF_GATE:
                trial.on_state(_STATE_OF_GATE[gate])
            if gate == GateName.COMPILE and request.may_compile:
                check.start()

        try:
            host, evaluation = self._run(candidate, request, trial.source, started, trial.on_gate)
            outcome: Outcome | None = None
            try:
                outcome = self._conclude(trial, host, evaluation, check, load, is_new=is_new)
            finally:
                if not isinstance(outcome, CandidateReady):
                    host.close()  # also after an error: nothing else knows of it
            return outcome
        finally:
            check.close()

    def _conclude(
        self,
        trial: Trial,
        host: HostProcess,
        evaluation: Evaluation,
        check: GraphCheck,
        load: _Loading,
        *,
        is_new: bool,
    ) -> Outcome:
        """Keep the evaluation, and load what has passed."""
        candidate, artifact = trial.candidate, trial.artifact
        reach("evaluated")
        self._tell(evaluation.report.sandbox)
        if candidate.cancelled.is_set():
            return CandidateStopped()
        if evaluation.report.refusal is not None:
            return CandidateRefused(evaluation.report)
        _warn_of_environment(artifact, evaluation.report)
        if evaluation.report.is_compiled:
            with candidate.time("graph check"):
                evaluation = check.check(evaluation)
        check.close()
        if is_new:
            evaluation = self._evaluation_cache.keep(artifact, evaluation)
        reach("evaluation-kept")
        return load(trial, evaluation, host)

    def _tell(self, sandbox: Sandbox) -> None:
        """Log the layers of the hosts' sandbox, once, and again when they change."""
        if sandbox.active and sandbox != self._told:
            self._told = sandbox
            write = log.info if sandbox.is_whole else log.warning
            write("sandbox", active=list(sandbox.active), missing=sandbox.missing)

    def _load(self, trial: Trial, evaluation: Evaluation, host: HostProcess | None = None) -> Outcome:
        """Let the plane load a version that has passed.

        Raises HostFailed when its host cannot be connected, and GraphHasNoRoom.
        """
        with trial.candidate.time("load"):
            return self._load_placed(trial.artifact, evaluation, host)

    def _load_placed(self, artifact: Artifact, evaluation: Evaluation, host: HostProcess | None) -> Outcome:
        try:
            placement = place(evaluation, self._settings.engine.max_batch_rows)
        except NotReady as error:
            return CandidateFailed(str(error))
        number = self.next_host()
        if isinstance(placement, Hosted):
            assert host is not None
            _require_loaded(self._plane.load(Load(artifact.id, placement, number), host), host)
        else:
            loaded = self._plane.load(Load(artifact.id, placement))
            if isinstance(loaded, NoRoom):
                raise GraphHasNoRoom(loaded.reason)
            if isinstance(loaded, LoadFailed):
                return CandidateFailed(loaded.reason)
            placement = placement.without_graphs()
        return CandidateReady(placement, evaluation.report, number)

    def next_host(self) -> int:
        """Return the number of the next host that is loaded. Any thread."""
        return next(self._host_numbers)

    def respawn(
        self, command: ReplaceHost, artifact: Artifact, entry: Entry | None, passed: CandidateReport
    ) -> str | None:
        """Start another host for a version whose host died, as `command` says; return why it did not work, or None.

        `passed` is the report of the version: the host runs in the same environment, under the same libraries.

        The cached copy is hashed first, and renewed from the store (`entry`) when it is damaged. Raises CopyLost when
        it cannot be.
        """
        reach("respawn")
        candidate = Candidate(artifact.id.model, artifact.id.version)
        self._renew_if_damaged(candidate, artifact, entry)
        request = evaluation_request(artifact, self._settings, passed=passed)
        try:
            host, (report, _) = self._run(
                candidate, request, entry.path if entry else "", lambda _: None, lambda _: None
            )
            if report.refusal is not None:
                return f"{report.refusal.gate}: {report.refusal.evidence}"
            _require_loaded(self._plane.replace_host(command, host), host)
        except HostFailed as error:
            return str(error)
        return None

    def _renew_if_damaged(self, candidate: Candidate, artifact: Artifact, entry: Entry | None) -> None:
        try:
            self._cache.verify(artifact, candidate.cancelled)
            return
        except StagingFailed as error:
            damage = str(error)
        log.warning("copy_damaged", model=candidate.model, version=candidate.version, reason=damage)
        if entry is None:
            raise CopyLost(f"{damage}, and the store does not have these bytes any more")
        outcome = self.stage(candidate, entry, artifact.quiet_seconds)
        if not isinstance(outcome, CandidateStaged) or outcome.artifact.id != artifact.id:
            reason = (
                outcome.reason
                if isinstance(outcome, CandidateUnfinished | CandidateFailed)
                else "the store has other bytes now"
            )
            raise CopyLost(f"{damage}, and it cannot be renewed from the store: {reason}")
        log.info("copy_renewed", model=candidate.model, version=candidate.version)

    def _run(
        self,
        candidate: Candidate,
        request: EvaluationRequest,
        source: str,
        started: Callable[[str], None],
        finished: Callable[[GateResult], None],
    ) -> tuple[HostProcess, Evaluation]:
        def take_host(host: HostProcess) -> None:
            candidate.host = host
            reach("host-spawned")
            if candidate.cancelled.is_set():
                host.kill()

        seconds, replicas = self._settings.candidate.timeout_seconds, self._settings.engine.replicas
        place = str(self._settings.store.path / source)
        return self._hosts.evaluate(request, seconds, place, replicas, take_host, started, finished)


def _warn_of_environment(artifact: Artifact, report: CandidateReport) -> None:
    """Log that a version is served in an environment that differs from the one it was trained in."""
    for result in report.gates:
        if result.gate == GateName.ENVIRONMENT and result.verdict is Verdict.WARNED:
            name, version = artifact.id.model, artifact.id.version
            log.warning("environment_differs", model=name, version=version, reason=result.evidence)


def _require_loaded(outcome: Loaded | LoadFailed | NoRoom, host: HostProcess) -> None:
    """Raise HostFailed, and end the host, when the plane could not load it."""
    if not isinstance(outcome, Loaded):
        host.close()
        raise HostFailed(outcome.reason)


def _settle(candidate: Candidate, work: Callable[[], Outcome]) -> Outcome:
    """Return what `work` returns, or the outcome that its failure stands for."""
    try:
        return work()
    except GraphHasNoRoom as error:
        return CandidateFailed(f"{error}; engine.compile is require, so no host answers for it")
    except Cancelled:
        return CandidateStopped()
    except StagingFailed as error:
        return CopyDamaged(str(error))
    except HostFailed as error:
        return CandidateStopped() if candidate.cancelled.is_set() else CandidateFailed(str(error), is_host_death=True)
