"""Hosts in every environment: a zygote for each, started when first needed, and candidates evaluated where they fit."""

from __future__ import annotations

import contextlib
import platform
import shlex
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Protocol

import structlog

from serving.domain.environment import (
    OWN,
    Choice,
    Environment,
    choose_environment,
    compared_libraries,
    find_misfits,
    suggest_name,
)
from serving.domain.errors import HostFailed, NeedsUnknown
from serving.domain.report import CandidateReport, Evaluation, GateResult
from serving.hosting.evaluating import RunsElsewhere, evaluate_candidate
from serving.hosting.host_process import HostProcess
from serving.hosting.zygote import Zygote
from serving.hosting.zygote_process import ZygoteUnusable
from serving.wire.evaluation import EvaluationRequest, NeedsFound

log = structlog.get_logger("serving.zygote")


class KnownEnvironments(Protocol):
    """The environments there are, besides the server's own. Any thread."""

    def list_environments(self) -> Sequence[Environment]:
        """Return them as they are now."""
        ...

    def mark_broken(self, name: str, reason: str) -> None:
        """Note that no host can run in this one, until something there changes."""
        ...

    def stop(self) -> None:
        """Let `list_environments` block no longer."""
        ...


class NoEnvironments:
    """No environment but the server's own."""

    def list_environments(self) -> Sequence[Environment]:
        """Return nothing."""
        return ()

    def mark_broken(self, name: str, reason: str) -> None:
        """Raise LookupError: there is none."""
        raise LookupError(f"{name}: {reason}")

    def stop(self) -> None:
        """Do nothing."""


class EnvironmentHosts:
    """Starts hosts in any environment, and evaluates candidates in the one that fits. Any thread; methods block.

    `idle_seconds` is how long the zygote of another environment stays without hosts. `scratch` is where hosts get their
    directories. `slots` is how many processes may ask the host of a candidate, one after another or at the same time.
    """

    def __init__(
        self,
        variables: Mapping[str, str],
        scratch: Path,
        known: KnownEnvironments | None = None,
        idle_seconds: float = 600.0,
        slots: int = 1,
    ) -> None:
        self._variables, self._scratch = variables, scratch
        self._known: KnownEnvironments = known or NoEnvironments()
        self._idle_seconds = idle_seconds
        self._slots = slots
        self.own = Zygote(variables, scratch)
        self._others: dict[tuple[str, str, str], Zygote] = {}
        self._lock = threading.Lock()
        self._is_stopped = False

    def start(self) -> None:
        """Start the imports in the server's own zygote; returns at once."""
        self.own.start()

    def stop(self) -> None:
        """End every zygote, and with it its hosts; joins with a deadline."""
        self._known.stop()
        with self._lock:
            self._is_stopped = True
            others = [*self._others.values()]
        for zygote in [self.own, *others]:
            zygote.stop()

    def spawn(self, name: str = OWN, replicas: int = 1, slots: int = 1) -> HostProcess:
        """Fork a host in the environment `name`; raises HostFailed. Blocks, for seconds where its zygote must start.

        When the zygote cannot start, the environment is marked as broken, and ZygoteUnusable is raised.
        """
        if name == OWN:
            return self.own.spawn(replicas, slots)
        environment = self._find_environment(name)
        if environment is None:
            raise HostFailed(f"the environment '{name}' is gone; create it again, or remove this version")
        if environment.problem is not None:
            raise HostFailed(f"the environment '{name}' cannot be used: {environment.problem}")
        try:
            return self._find_zygote(environment).spawn(replicas, slots)
        except ZygoteUnusable as error:
            log.warning("environment_broken", environment=name, reason=str(error))
            self._known.mark_broken(name, str(error))
            raise

    def evaluate(
        self,
        request: EvaluationRequest,
        seconds: float,
        source: str,
        replicas: int = 1,
        on_host: Callable[[HostProcess], None] = lambda _: None,
        on_gate_started: Callable[[str], None] = lambda _: None,
        on_gate_finished: Callable[[GateResult], None] = lambda _: None,
    ) -> tuple[HostProcess, Evaluation]:
        """Evaluate a candidate where it fits; return its host, which the caller closes, and the evaluation.

        `source` is where the operator finds the candidate's files, for texts. `on_host` is called with each host before
        it gets its request. See `evaluate_candidate`; `seconds` is the limit for each host.
        """

        def choose(found: NeedsFound, libraries: Mapping[str, str]) -> Choice:
            own = describe_own(found, libraries)
            if found.needs.environment in (None, OWN) and not find_misfits(found.needs, own):
                return choose_environment(found.needs, own, ())  # no matter how slow others are to describe
            others = self._known.list_environments()
            choice = choose_environment(found.needs, own, others)
            if choice.name is not None:
                return choice
            name = suggest_name(found.needs, {each.name for each in others})
            command = f"serving environment create {name} --for {shlex.quote(source)}"
            return Choice(name=None, reason=f"{choice.reason}; to serve it: {command}")

        placed = request
        unusable = {OWN} if not request.is_respawn else {request.place}
        while True:
            try:
                host = self.spawn(placed.place, replicas, self._slots)
            except ZygoteUnusable:
                if placed.place in unusable:  # it may look sound again, because it changes all the time
                    raise
                unusable.add(placed.place)
                placed = request  # the environment is marked as broken: choose again
                continue
            try:
                on_host(host)
                return host, evaluate_candidate(host, placed, seconds, on_gate_started, on_gate_finished, choose)
            except RunsElsewhere as elsewhere:
                placed = elsewhere.request
            except BaseException:
                host.close()
                raise

    def has_changed(self, report: CandidateReport) -> bool:
        """Whether the environment that a version was evaluated in has other libraries by now. One that is gone has not.

        The server's own has its libraries in the basis of every kept verdict.
        """
        name = report.environment.name if report.environment is not None else None
        now = None if name in (None, OWN) else self._find_environment(name)
        return now is not None and any(
            version != now.libraries[library]
            for library, version in report.libraries.items()
            if library in now.libraries
        )

    def find_needs(self, request: EvaluationRequest, seconds: float) -> NeedsFound:
        """Find out in a host of the server's own environment what a candidate needs; nothing of it is run.

        Raises NeedsUnknown when a gate refuses its files before that, HostFailed when no host can tell. Blocks.
        """
        found: list[NeedsFound] = []

        def note(needs: NeedsFound, _libraries: Mapping[str, str]) -> Choice:
            found.append(needs)
            raise RunsElsewhere(request)

        host = self.spawn()
        try:
            evaluation = evaluate_candidate(host, request, seconds, choose=note)
        except RunsElsewhere:
            return found[0]
        finally:
            host.close()
        refusal = evaluation.report.refusal
        reason = "its process said nothing" if refusal is None else f"{refusal.gate}: {refusal.evidence}"
        raise NeedsUnknown(f"what '{request.main.name}' needs cannot be found out: {reason}")

    def _find_environment(self, name: str | None) -> Environment | None:
        return next((each for each in self._known.list_environments() if each.name == name), None)

    def _find_zygote(self, environment: Environment) -> Zygote:
        key = (environment.name, environment.python, environment.stamp)
        with self._lock:
            if self._is_stopped:
                raise HostFailed("the service is stopping, so no host is started")
            if key in self._others:
                return self._others[key]
            log.info("zygote_started", environment=environment.name, python=environment.python)
            replaced = [each for (name, *_), each in self._others.items() if name == environment.name]
            zygote = self._others[key] = Zygote(
                self._variables, self._scratch, python=environment.python, idle_seconds=self._idle_seconds
            )
        for each in replaced:  # the environment was changed, or made anew
            each.retire()
        return zygote


def describe_own(found: NeedsFound, libraries: Mapping[str, str]) -> Environment:
    """Return the server's own environment, as far as it matters for what a host there has found."""
    installed = dict(libraries)
    for name in compared_libraries(found.needs):
        if name not in installed:  # the host tells those that it has imported
            with contextlib.suppress(metadata.PackageNotFoundError):
                installed[name] = metadata.version(name)
    modules = frozenset(found.needs.modules) - frozenset(found.absent)
    return Environment(OWN, sys.executable, platform.python_version(), installed, modules)
