"""Everything that runs behind the HTTP side, composed once: started and stopped by the lifespan."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

import structlog

from serving import __version__, sandbox
from serving.domain.decision import Decision, DecisionOutcome, Operator
from serving.domain.errors import StagingFailed, StateUnavailable
from serving.domain.event_page import EventPage, HistoryQuery
from serving.domain.plan import Fact
from serving.domain.status import ModelHistoryEntry, Status
from serving.domain.upload import UploadControl
from serving.environments.inventory import Inventory
from serving.hosting.environment_hosts import EnvironmentHosts
from serving.lifecycle.activation import Activation
from serving.lifecycle.candidate_runner import CandidateRunner
from serving.lifecycle.environment_watch import EnvironmentWatch
from serving.lifecycle.evaluation_cache import EvaluationCache
from serving.lifecycle.exclusion import Exclusion
from serving.lifecycle.history import History
from serving.lifecycle.inbox import Message
from serving.lifecycle.journal import Journal
from serving.lifecycle.local_uploads import LocalUploads
from serving.lifecycle.model_table import ModelTable
from serving.lifecycle.operations import Operations
from serving.lifecycle.operator import ReconcilerOperator
from serving.lifecycle.plane_port import PlanePort
from serving.lifecycle.proofs import digest_of_proving
from serving.lifecycle.reconciler import HoldsStatus, Reconciler
from serving.lifecycle.respawn import Respawn
from serving.lifecycle.rollouts import Rollouts
from serving.lifecycle.shift_watch import ShiftWatch
from serving.lifecycle.store_poller import StorePoller
from serving.lifecycle.upload_checks import UploadChecks
from serving.lifecycle.upload_desk import UploadDesk
from serving.lifecycle.upload_table import UploadTable
from serving.lifecycle.watcher import Watcher
from serving.settings import Settings
from serving.store.list_store import Store
from serving.store.staging import Cache
from serving.telemetry.metrics import Metrics
from serving.telemetry.tracer import Tracer

LOCK_NAME = "lock"
RESPAWN_THREADS = 2
JUDGED_BY = (
    *("scikit-learn", "numpy", "scipy", "pandas", "joblib", "skops", "onnx", "onnxruntime", "skl2onnx"),
    *("xgboost", "xgboost-cpu", "lightgbm"),
)

log = structlog.get_logger("serving.service")


class Service:
    """Control: the store's watcher, the reconciler, the zygote and the worker threads of one server.

    `state` gets the status. `make_plane` returns the plane that carries out what is decided, or all planes as one; it
    is given where their facts go, which any thread may call. `workers` processes answer; None: this one does.
    Candidates are traced by `tracer`, if there is one; it is started and stopped here.
    """

    def __init__(
        self,
        state: HoldsStatus,
        settings: Settings,
        metrics: Metrics,
        make_plane: Callable[[Callable[[Fact], None]], PlanePort],
        workers: int | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._tracer = tracer
        self._state = state
        metrics.show_status(lambda: state.status, workers)
        self._lock: IO[str] | None = None
        slots = 1 if workers is None else 2 * workers  # of each host: workers that end leave their channels behind
        self._candidates = ThreadPoolExecutor(
            settings.candidate.concurrency, "serving-candidate", initializer=_lower_priority
        )
        self._respawns = ThreadPoolExecutor(RESPAWN_THREADS, "serving-respawn")
        inventory = Inventory(settings.environments, settings.state.path)
        variables, scratch = sandbox.scrub_environment(os.environ), settings.state.path / "scratch"
        self._hosts = EnvironmentHosts(variables, scratch, inventory, settings.environments.idle_seconds, slots)
        cache = self._cache = Cache(
            settings.state, settings.store.path, int(settings.store.max_artifact_mb * (1 << 20))
        )
        history = History(
            settings.state.path, _basis(settings), settings.state.history_rows, metrics.count_state_failure
        )
        journal = Journal(history.events, history.verdicts, metrics)
        environments = EnvironmentWatch(inventory.fingerprint, history.verdicts, settings.store.poll_seconds)
        exclusion = Exclusion(journal, history.decisions, history.verdicts, history.served, environments)
        evaluation_cache = EvaluationCache(cache, _basis(settings))
        plane = make_plane(self._post)
        runner = CandidateRunner(self._hosts, cache, evaluation_cache, settings, plane)
        activation = Activation(plane, journal, history.decisions, history.served, metrics)
        respawn = Respawn(runner, journal, metrics, self._respawns, self._post, plane, settings.candidate)
        rollouts = Rollouts(
            *(settings.rollout_of, activation, journal, history.decisions, history.rollouts, metrics),
            *(ShiftWatch(plane, self._respawns, self._post), workers or 1),
        )
        model_table = ModelTable(
            *(settings, history, journal, metrics, exclusion, activation, respawn, runner),
            *(self._candidates, self._post, environments, rollouts, tracer),
        )
        self._history = history
        self._watcher = Watcher(settings.store.path, settings.store.watch, self._wake)
        store_poller = StorePoller(settings.store, Store(settings.store), self._watcher, history.served, metrics)
        uploads = UploadTable()
        checks = UploadChecks(runner, cache, evaluation_cache, settings, self._post)
        self.uploads = UploadDesk(settings.store, checks, uploads, self._post, self._wake, _lower_priority)
        operations = Operations(store_poller, model_table, exclusion, history, journal, rollouts)
        self._reconciler = Reconciler(
            *(state, store_poller, cache, model_table, exclusion, history, journal, operations, environments),
            *(uploads, self._on_started),
        )
        self.operator: Operator = ReconcilerOperator(self._reconciler, history)
        self.upload_control: UploadControl = LocalUploads(self.uploads)
        self.on_started: Callable[[Status], None] = lambda _: None

    def start(self) -> None:
        """Start every process and thread; returns at once.

        Raises StateUnavailable if the state is another server's, was written by a later release, or cannot be written
        and has no copy of a model.
        """
        try:
            self._take_state()
            self._history.start()
        except StateUnavailable:
            if self._lock is not None:
                self._lock.close()
            raise
        self._state.status = replace(self._state.status, newest_event=self._history.events.newest)
        if self._tracer is not None:
            self._tracer.start()
        self._hosts.start()
        self._reconciler.start()
        self.uploads.start()
        log.info("starting", version=__version__, store=str(self._settings.store.path))
        if self._settings.security.trust == "any":
            log.warning("trusting_any", effect="model files run whatever they hold, in the sandbox; see security.trust")

    def _take_state(self) -> None:
        """Take the state directory for this process, and see whether it can be written.

        Raises StateUnavailable when it is another server's, and when nothing could ever become active.
        """
        directory = self._settings.state.path
        try:
            self._lock = _lock(directory / LOCK_NAME)
            self._cache.check_writable()
        except OSError as error:
            problem = f"the state directory '{directory.absolute()}' cannot be written: {error.strerror}"
            if not self._has_copies():
                advice = f"{_advice(error)}, or set state.path to another directory"
                effect = "and holds no copy of a model, so that nothing could become active"
                raise StateUnavailable(f"{problem}, {effect}; {advice}") from None
            effect = "only copies that are in it can answer; no other version is activated, nothing survives a restart"
            log.error("state_not_writable", reason=problem, effect=effect)

    def _has_copies(self) -> bool:
        """Whether there are copies of models that may have been active before."""
        try:
            return any(self._cache.artifacts(model) for model in self._cache.models())
        except StagingFailed:
            return False

    def decide(self, decision: Decision, actor: str) -> Future[DecisionOutcome]:
        """Have the reconciler carry out an operator's call. Any thread."""
        return self._reconciler.decide(decision, actor)

    def read_history(self, query: HistoryQuery) -> tuple[ModelHistoryEntry, ...]:
        """Read the history, newest first. Any thread. Blocks; raises StateUnavailable."""
        return self._history.events.read_entries(query)

    def read_events(self, event_id: str | None, limit: int) -> EventPage:
        """Read what happened after an entry, oldest first. Any thread. Blocks; raises StateUnavailable."""
        return self._history.events.read_after(event_id, limit)

    def announce_stop(self) -> None:
        """Turn readiness false; everything else goes on. Any thread."""
        self._reconciler.announce_stop()

    def stop(self) -> None:
        """Stop threads first, then processes, each with a deadline. Blocks; not on the event loop."""
        self._candidates.shutdown(wait=False, cancel_futures=True)
        self._respawns.shutdown(wait=False, cancel_futures=True)
        self.uploads.stop()
        self._reconciler.stop()
        self._watcher.stop()
        self._hosts.stop()
        self._candidates.shutdown()
        self._respawns.shutdown()
        if self._tracer is not None:
            self._tracer.stop()
        if self._lock is not None:
            self._lock.close()
        log.info("stopped")

    def _post(self, message: Message) -> None:
        self._reconciler.post(message)

    def _wake(self) -> None:
        self._reconciler.wake()

    def _on_started(self, status: Status) -> None:
        self.on_started(status)


def _lower_priority() -> None:
    sandbox.lower_priority_of_this_thread()


def _basis(settings: Settings) -> str:
    """Name what a verdict depends on besides the bytes: with other libraries or settings it deserves another look."""
    libraries = [f"{name}=={_version(name)}" for name in JUDGED_BY]
    engine = {name: value for name, value in settings.engine if name.startswith("compile")}
    security = settings.security
    trust = [security.trust, security.pickle_trusted, security.skops_trusted, security.trusted_keys]
    candidate = [settings.candidate.timeout_seconds, settings.candidate.memory_mb, settings.candidate.max_expansion]
    own = [__version__, digest_of_proving()]
    text = repr([libraries, settings.gates, candidate, engine, trust, security.require_sandbox, own])
    return hashlib.sha256(text.encode()).hexdigest()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # an extra
        return "none"


def _advice(error: OSError) -> str:
    """Say what to do about a state directory that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "make room there"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return "move away what is there in its place"
    if error.errno == errno.EROFS:
        return "mount it writable"
    return f"let user {os.geteuid()} write there" if hasattr(os, "geteuid") else "let this user write there"


def _lock(path: Path) -> IO[str]:
    """Take the state directory for this process; raises OSError when it cannot be written, else StateUnavailable."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        advice = "give each server its own state.path, or set server.workers for all processes of one application"
        raise StateUnavailable(f"{path.parent} is in use by another server; {advice}") from None
    return file
