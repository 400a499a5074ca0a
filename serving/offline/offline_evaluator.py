"""Evaluates one version once, with the same staging, host and gates as in a server."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

from serving import sandbox
from serving.domain.artifact import Artifact
from serving.domain.errors import HostDied, HostFailed
from serving.domain.listing import Entry
from serving.domain.report import CandidateReport
from serving.environments.inventory import Inventory
from serving.hosting.environment_hosts import EnvironmentHosts
from serving.lifecycle.evaluation_request import Comparison, evaluation_request
from serving.offline.find_version import find_entry
from serving.settings import Settings, StateSettings
from serving.store.staging import Cache
from serving.wire.evaluation import NeedsFound

Started = Callable[[str], None]


class NoHost(HostFailed):
    """No host process can be started here, so the gates cannot run."""


def check(path: Path, settings: Settings, started: Started = lambda _: None) -> CandidateReport:
    """Evaluate a model file or a version directory as a server would, and return the report.

    `started` is called with the name of each gate. Blocks until the evaluation ends. Raises NotPublished or
    StagingFailed when the files cannot be copied, HostFailed when no host could evaluate them.
    """
    with open_evaluator(settings) as evaluator:
        return evaluator.evaluate(evaluator.stage(path), Comparison(), started)


def find_needs_of(path: Path, settings: Settings) -> NeedsFound:
    """Return what the model file or version directory at `path` needs to run; nothing of it is run.

    Blocks for seconds: a host finds it out. Raises NotPublished or StagingFailed when the files cannot be copied,
    NeedsUnknown when a gate refuses them before, HostFailed when no host could tell.
    """
    with open_evaluator(settings) as evaluator:
        return evaluator.find_needs(evaluator.stage(path))


class OfflineEvaluator:
    """A temporary cache and hosts that evaluate versions."""

    def __init__(self, settings: Settings, directory: Path, hosts: EnvironmentHosts) -> None:
        self.directory = directory
        self._settings = settings
        self._hosts = hosts
        self._source = Path()

    def stage(self, path: Path, model: str | None = None, version: str | None = None) -> Artifact:
        """Copy the version at `path` into the cache, under its own names or the given ones."""
        root, entry = find_entry(path, self._settings.store)
        self._source = path
        max_bytes = int(self._settings.store.max_artifact_mb * (1 << 20))
        cache = Cache(StateSettings(path=self.directory), root, max_bytes)
        named = replace(entry, model=model or entry.model, version=version or entry.version)
        return cache.stage(named, named.version, self._count_quiet_seconds(entry), threading.Event())

    def evaluate(
        self, artifact: Artifact, comparison: Comparison, started: Started, publisher_key: str | None = None
    ) -> CandidateReport:
        """Run the gates over a staged version in a new host, which ends afterwards; see `evaluation_request`.

        When a host dies without a verdict over the file, another one is tried. Raises NoHost when no host can
        be started, HostDied when it was killed meanwhile.
        """
        try:
            return self._evaluate_once(artifact, comparison, started, publisher_key)
        except HostDied:
            return self._evaluate_once(artifact, comparison, started, publisher_key)

    def find_needs(self, artifact: Artifact) -> NeedsFound:
        """Find out what a staged version needs; see `EnvironmentHosts.find_needs`."""
        request = evaluation_request(artifact, self._settings)
        return self._hosts.find_needs(request, self._settings.candidate.timeout_seconds)

    def _evaluate_once(
        self, artifact: Artifact, comparison: Comparison, started: Started, publisher_key: str | None
    ) -> CandidateReport:
        request = evaluation_request(artifact, self._settings, comparison, publisher_key=publisher_key)
        seconds = self._settings.candidate.timeout_seconds
        with _translate_host_errors():
            host, evaluation = self._hosts.evaluate(request, seconds, str(self._source), on_gate_started=started)
        host.close()
        return evaluation.report

    def _count_quiet_seconds(self, entry: Entry) -> float | None:
        """Return how long the files have not changed; None when a server would rely on the manifest instead."""
        changed_at = max(stamp.ctime_ns for stamp in entry.fingerprint) / 1e9
        quiet = max(0.0, time.time() - changed_at)
        return None if entry.has_manifest and quiet < self._settings.store.settle_seconds else quiet


@contextmanager
def open_evaluator(settings: Settings) -> Iterator[OfflineEvaluator]:
    """Yield an evaluator with its own temporary directory; its zygote imports while the caller goes on.

    The zygote and the directory are removed afterwards, even when Ctrl-C is pressed, also during the removal. Any
    thread; several at once if the memory suffices: a zygote takes 250 MB. Raises NoHost.
    """
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="serving-"))
        stack.callback(_run_to_end, partial(shutil.rmtree, directory, ignore_errors=True))
        inventory = Inventory(settings.environments, settings.state.path)
        hosts = EnvironmentHosts(sandbox.scrub_environment(os.environ), directory / "scratch", inventory)
        stack.callback(_run_to_end, hosts.stop)
        with _translate_host_errors():
            _run_to_end(hosts.start)
        yield OfflineEvaluator(settings, directory, hosts)


@contextmanager
def _translate_host_errors() -> Iterator[None]:
    try:
        yield
    except HostDied:
        raise
    except HostFailed as error:
        raise NoHost(str(error)) from None


def _run_to_end(work: Callable[[], object]) -> None:
    """Run `work` to its end; Ctrl-C, which only the main thread receives, takes effect afterwards."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        work()
        return
    held: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        work()
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            handler(*held[-1])
