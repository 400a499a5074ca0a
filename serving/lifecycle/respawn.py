"""Starts another host, from the cache, for a version whose host died while it served."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor

import structlog

from serving.domain.plan import Hosted, HostGone, ReplaceHost, ReportOutage
from serving.domain.report import CandidateReport
from serving.domain.version import VersionId
from serving.lifecycle.candidate import CopyLost
from serving.lifecycle.candidate_runner import CandidateRunner
from serving.lifecycle.inbox import HostBrought, WorkMessage
from serving.lifecycle.journal import Journal
from serving.lifecycle.plane_port import PlanePort
from serving.lifecycle.records import LOADED, VersionRecord
from serving.settings import CandidateSettings
from serving.telemetry.metrics import Metrics

CALM_SECONDS = 60.0
FREE_FRUITLESS_HOSTS = 3

log = structlog.get_logger("serving.respawn")


class Respawn:
    """Reconciler thread only."""

    def __init__(
        self,
        runner: CandidateRunner,
        journal: Journal,
        metrics: Metrics,
        executor: Executor,
        post: Callable[[WorkMessage], None],
        plane: PlanePort,
        settings: CandidateSettings,
    ) -> None:
        self._runner = runner
        self._journal = journal
        self._metrics = metrics
        self._executor = executor
        self._post = post
        self._plane = plane
        self._settings = settings
        self._gone: dict[VersionId, HostGone] = {}

    def learn(self, fact: HostGone) -> None:
        """Note that a host is gone, whether its version is READY already or not.

        The note stays when the version is unloaded: the next host of the same bytes has a higher number.
        """
        present = self._gone.get(fact.key)
        if present is None or present.host <= fact.host:
            self._gone[fact.key] = fact

    def advance(self, record: VersionRecord, now: float) -> None:
        """Start a host for a version without one, unless one is being started or the last failure is too recent.

        Hosts have numbers, because the end of one may be reported before its version is READY, or before its own start
        is known to have worked. While only replicas of it are missing, the others go on answering.
        """
        placement, artifact = record.placement, record.artifact
        if artifact is None or record.is_respawning or record.respawn_at > now or not isinstance(placement, Hosted):
            return
        gone = self._gone.get(record.id)
        if gone is None or gone.host < record.host:
            return
        if not record.is_host_lost:
            self._note_loss(record, gone, now)
            if record.respawn_at > now:
                return
        record.is_respawning = True
        command = ReplaceHost(record.id, self._runner.next_host())
        passed = record.report or CandidateReport(gates=())
        future = self._executor.submit(self._runner.respawn, command, artifact, record.entry, passed)
        future.add_done_callback(lambda done: self._post(HostBrought(record, command, done)))

    def finish(self, message: HostBrought) -> None:
        """Take in whether a version has another host."""
        record, command, done = message.record, message.command, message.outcome
        record.is_respawning = False
        if record.state not in LOADED or record.host > command.host:
            self._journal.dirty.add(record.model)  # it has been unloaded meanwhile, and perhaps loaded again
            return
        error = done.exception()
        record.is_copy_lost = isinstance(error, CopyLost)
        problem = str(error) if record.is_copy_lost else repr(error) if error else done.result()
        if problem is None:
            log.info("host_respawned", model=record.model, version=record.version, digest=record.digest)
            record.host = command.host
            record.respawn_failures = 0
            record.respawn_at = 0.0
            record.is_host_lost = False
            self._note(record, None)
            return
        record.respawn_failures += 1
        wait = self._settings.wait_seconds(record.respawn_failures)
        record.respawn_at = time.monotonic() + wait
        reason = f"its host died and no other could be started: {problem}; next try in {wait:.0f} s"
        log.error("respawn_failed", model=record.model, version=record.version, reason=problem, wait_seconds=wait)
        self._note(record, reason)
        self._tell_outage(command.key, f"the process that holds the model cannot be started: {problem}", wait)

    def _note_loss(self, record: VersionRecord, gone: HostGone, now: float) -> None:
        """Log that a host is gone, and wait before the next one if the last ones were of no use.

        A host was of no use if it broke the protocol, ended itself or ended before it had answered anything. To start
        the next one at once, each time, would keep a core busy for nothing.
        """
        record.is_host_lost = True
        how = gone.violation or "died"
        log.warning("host_lost", model=record.model, version=record.version, digest=record.digest, reason=f"it {how}")
        self._metrics.count_host_restart(record.model)
        wait = 0.0
        if gone.violation is not None or not gone.has_answered:
            lately = tuple(at for at in record.fruitless_hosts if at > now - CALM_SECONDS)
            record.fruitless_hosts = (*lately, now)
            wait = self._settings.wait_seconds(max(0, len(record.fruitless_hosts) - FREE_FRUITLESS_HOSTS))
        if wait == 0.0:
            self._note(record, f"its host {how}; another one is being started")
            return
        record.respawn_at = now + wait
        problem = f"its last {len(record.fruitless_hosts)} hosts were of no use, the last one {how}"
        self._note(record, f"{problem}; another one is started in {wait:.0f} s")
        self._tell_outage(record.id, problem, wait)

    def _tell_outage(self, key: VersionId, problem: str, wait: float) -> None:
        self._plane.report_outage(ReportOutage(key, problem, max(1, round(wait))))

    def _note(self, record: VersionRecord, problem: str | None) -> None:
        record.host_problem = problem
        record.touch()
        self._journal.dirty.add(record.model)
