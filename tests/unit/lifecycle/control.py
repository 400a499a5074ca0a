"""Control without processes: a model table with a real history, a plane that builds nothing, and outcomes by hand.

The clock begins at the present, which outcomes are measured by, and goes on when the test says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path, PurePath
from typing import Any

from serving.domain.artifact import Artifact, StagedFile
from serving.domain.listing import Entry, FileStamp
from serving.domain.plan import Drained, Fact, Hosted, HostGone, Load, ReplaceHost
from serving.domain.report import CandidateReport, GateName, GateResult, Verdict
from serving.domain.state import State
from serving.domain.version import Format, VersionId
from serving.lifecycle.activation import Activation
from serving.lifecycle.candidate import Candidate, CandidateReady, CandidateRefused, CandidateStaged, Outcome
from serving.lifecycle.candidate_runner import Trial
from serving.lifecycle.environment_watch import EnvironmentWatch
from serving.lifecycle.exclusion import Exclusion
from serving.lifecycle.history import History
from serving.lifecycle.inbox import WorkMessage
from serving.lifecycle.journal import Journal
from serving.lifecycle.model_table import ModelTable
from serving.lifecycle.records import ModelRecord, VersionRecord
from serving.lifecycle.respawn import Respawn
from serving.lifecycle.rollouts import Rollouts
from serving.lifecycle.shift_watch import ShiftWatch
from serving.settings import RolloutSettings, Settings
from serving.telemetry.metrics import Metrics
from tests.fakes import NUMBERS
from tests.unit.lifecycle.fake_plane import FakePlane

QUIET_SECONDS = 100.0  # since which nothing has changed in the store


class Work:
    """One piece of work for a thread, which ends when the test says so."""

    def __init__(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.call, self.arguments = call, arguments
        self.future: Future[Any] = Future()


class Threads:
    """Worker threads that do nothing by themselves."""

    def __init__(self) -> None:
        self.waiting: list[Work] = []

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        work = Work(call, arguments)
        self.waiting.append(work)
        return work.future


class Runner:
    """What candidates do, as far as it is known without doing it: the outcome is given by the test."""

    def __init__(self) -> None:
        self.hosts = 0
        self.under_way: list[str] = []

    def stage(self, candidate: Candidate, *_: Any) -> str:
        return f"stage {candidate.version}"

    def evaluate(self, trial: Trial) -> str:
        return f"evaluate {trial.candidate.version}"

    def respawn(self, command: ReplaceHost, *_: Any) -> str:
        return f"respawn {command.key.version} as {command.host}"

    def next_host(self) -> int:
        self.hosts += 1
        return self.hosts


class Control:
    """One model ``m``: what is dropped, what threads find out, what the plane tells. Time is passed in."""

    def __init__(self, directory: Path, **store: Any) -> None:
        settings = Settings()
        settings = settings.model_copy(update={"store": settings.store.model_copy(update=store)})
        self.rollout = RolloutSettings()
        self.history = History(directory, "basis", 100)
        self.history.start()
        self.metrics = metrics = Metrics("0")
        decisions, served = self.history.decisions, self.history.served
        journal = Journal(self.history.events, self.history.verdicts, metrics)
        self.fingerprint = "of no environments"
        self.environments = EnvironmentWatch(lambda: self.fingerprint, self.history.verdicts, 1.0)
        exclusion = Exclusion(journal, decisions, self.history.verdicts, served, self.environments)
        self.plane, self.runner, self.threads = FakePlane(), Runner(), Threads()
        runner: Any = self.runner
        executor: Any = self.threads
        activation = Activation(self.plane, journal, decisions, served, metrics)
        respawn = Respawn(runner, journal, metrics, executor, self._post, self.plane, settings.candidate)
        comparers: Any = Threads()  # whose work never ends
        shifts = ShiftWatch(self.plane, comparers, self._post)
        rollouts = Rollouts(
            lambda _: self.rollout, activation, journal, decisions, self.history.rollouts, metrics, shifts
        )
        self.table = ModelTable(
            *(settings, self.history, journal, metrics, exclusion, activation, respawn, runner, executor, self._post),
            self.environments,
            rollouts,
        )
        self.journal = journal
        self.now = time.monotonic()
        self._posted: list[WorkMessage | Fact] = []

    # --- what happens ------------------------------------------------------------------------------------------------

    def drop(self, *versions: str) -> None:
        """Let the store hold exactly these versions, newest first, whole and at rest."""
        entries = tuple(entry(version) for version in versions)
        self.table.update({"m": entries} if entries else {}, self.now - QUIET_SECONDS)
        self.turn()

    def turn(self) -> None:
        """Let the reconciler take one turn: what was posted, then what has been counted, then what is due."""
        posted, self._posted = self._posted, []
        for message in posted:
            self.table.take(message)
        self.table.rollouts.look(self.table.models.values(), self.now)
        self.journal.dirty |= self.environments.find_models_to_retry(self.now) & self.table.models.keys()
        self.table.advance_due(self.now)

    @property
    def work(self) -> list[str]:
        """What threads have been asked for and have not ended."""
        return [work.call(*work.arguments) for work in self.threads.waiting]

    def finish(self, outcome: Outcome | str | Exception | None) -> None:
        """End the work that was asked for first, in this way; then take a turn."""
        work = self.threads.waiting.pop(0)
        if isinstance(outcome, Exception):
            work.future.set_exception(outcome)
        else:
            work.future.set_result(outcome)
        self.turn()

    def stage(self, version: str) -> None:
        """End the copying of a version well."""
        assert self.work[0] == f"stage {version}"
        self.finish(CandidateStaged(artifact(version)))

    def pass_gates(self, version: str) -> None:
        """Have a version loaded and end its evaluation well."""
        assert self.work[0] == f"evaluate {version}"
        placement = Hosted(NUMBERS, "sklearn", 8)
        host = self.runner.next_host()
        self.plane.load(Load(identity(version), placement, host))
        self.finish(CandidateReady(placement, passed(), host))

    def refuse(self, version: str, gate: str = "golden") -> None:
        """End the evaluation of a version with a refusal."""
        assert self.work[0] == f"evaluate {version}"
        self.finish(CandidateRefused(refused(gate)))

    def serve(self, version: str) -> None:
        """Bring a version that the policy wants from its files to where it answers."""
        self.stage(version)
        self.pass_gates(version)

    def tell(self, fact: Drained | HostGone) -> None:
        """Let the plane tell something; then take a turn."""
        self._posted.append(fact)
        self.turn()

    def mark(self) -> None:
        """Have the model looked at again, as after an operator's call; then take a turn."""
        self.journal.dirty.add("m")
        self.turn()

    # --- what is seen ------------------------------------------------------------------------------------------------

    @property
    def model(self) -> ModelRecord:
        return self.table.models["m"]

    @property
    def active(self) -> str | None:
        """The version that answers, as the plane has it."""
        route = self.plane.route("m")
        return route.active.version if route is not None and route.active is not None else None

    @property
    def loaded(self) -> list[str]:
        """What the plane could be asked for, most recently active first."""
        route = self.plane.route("m")
        return [key.version for key in route.loaded] if route is not None else []

    def record(self, version: str) -> VersionRecord:
        found = self.model.find(version)
        assert found is not None
        return found

    def state(self, version: str) -> State:
        return self.record(version).state

    def _post(self, message: WorkMessage) -> None:
        self._posted.append(message)


def entry(version: str) -> Entry:
    """Return a version in the store, whose files are whole."""
    stamp = FileStamp("model.joblib", int(version), 1, 0, 0)
    return Entry("m", version, f"m/{version}", "model.joblib", Format.JOBLIB, (stamp,))


def identity(version: str) -> VersionId:
    return VersionId("m", version, f"sha256:{version * 64}"[:71])


def artifact(version: str) -> Artifact:
    file = StagedFile("model.joblib", version * 64, 1, PurePath("/nowhere"))
    return Artifact(identity(version), Format.JOBLIB, file, (file,))


def passed() -> CandidateReport:
    gates = tuple(GateResult(gate=name, verdict=Verdict.PASSED, evidence="seen") for name in GateName)
    return CandidateReport(gates=gates, signature=NUMBERS, engine="sklearn")


def refused(gate: str) -> CandidateReport:
    return CandidateReport(gates=(GateResult(gate=gate, verdict=Verdict.REFUSED, evidence="seen"),))
