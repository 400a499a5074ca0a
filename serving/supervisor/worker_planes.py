"""All workers' planes as one, for control: what `serving.lifecycle.plane_port` asks for.

Every live worker loads every version, and prepares every plan; then one word of shared memory lets it answer on all of
them at once. A worker that cannot, or not in time, is replaced, and its successor loads what is committed before it
takes connections. So a version is committed on all workers or on none.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import structlog

from serving.domain.plan import (
    Commit,
    Drained,
    Draining,
    Fact,
    HostGone,
    Load,
    Loaded,
    LoadFailed,
    Plan,
    Prepare,
    ReplaceHost,
    ReportOutage,
    Unload,
)
from serving.domain.version import VersionId
from serving.hosting.host_process import HostProcess
from serving.supervisor.shared_versions import Host, SharedVersion
from serving.supervisor.worker_link import WorkerLink
from serving.wire.shared_words import map_words
from serving.wire.worker_channel import ChannelClosed
from serving.wire.worker_messages import Accept, HostLeft, PlanPrepared, PrepareOrder

COUNT_SECONDS = 1.0  # how long to wait for the number of requests in flight, which is only told

log = structlog.get_logger("serving.workers")


class WorkerPlanes:
    """The planes of all workers. `load` and `replace_host` block, in worker threads; the rest waits `seconds` at most.

    `word` is the descriptor of two words: the committed generation, and the newest one that was ever prepared. `tell`
    gets facts, `replace` the workers that have to be replaced and why; both from any thread.

    The words may have been written by an earlier control that its workers have outlived. So generations go on from
    there, as a plan of its own must never pass for one of this control. With `is_held` nothing is committed before
    `release`: until then workers answer what they did, and new ones do not take connections.
    """

    def __init__(
        self,
        word: int,
        seconds: float,
        tell: Callable[[Fact], None],
        replace: Callable[[WorkerLink, str], None],
        *,
        is_held: bool = False,
    ) -> None:
        self._word = map_words(word, writes=True)
        self._is_held = is_held
        self._seconds = seconds
        self._tell = tell
        self._replace = replace
        self._lock = threading.RLock()
        self._links: dict[int, WorkerLink] = {}
        self._serving: dict[int, WorkerLink] = {}
        self._loaded: dict[VersionId, SharedVersion] = {}
        self._draining: list[SharedVersion] = []
        self._hosts: dict[int, Host] = {}
        self._first = self._word[1] + 1 if self._word[1] else 0
        self._word[1] = self._first
        self._plan = self._next = Plan(self._first)
        self._is_preparing = False
        self._accepted: set[WorkerLink] = set()

    # --- what control asks for ---------------------------------------------------------------------------------------

    def load(self, command: Load, process: HostProcess | None = None) -> Loaded | LoadFailed:
        """Let all workers load a version; fails when no worker can. One that cannot while others can is replaced."""
        version = SharedVersion(command, process)
        with self._lock:
            self._loaded[command.key] = version
            if version.host is not None:
                self._hosts[version.host.number] = version.host
            answers = {link: self._send_load(link, version) for link in self._links.values()}
            waited = {link: answer for link, answer in answers.items() if link.index in self._serving}
        failures = self._await_all(waited or answers, Loaded)
        if failures and len(failures) == len(waited or answers) and not all(link.is_gone for link in failures):
            with self._lock:
                del self._loaded[command.key]
                self._hosts.pop(command.host, None)
            version.close()
            return LoadFailed(command.key, next(iter(failures.values())))
        self._replace_all(failures)
        return Loaded(command.key)

    def replace_host(self, command: ReplaceHost, process: HostProcess) -> Loaded | LoadFailed:
        """Let another host answer for a loaded version on all workers."""
        with self._lock:
            version = self._loaded.get(command.key)
            if version is None or version.host is None:
                return LoadFailed(command.key, "the version is not loaded any more")
            if version.host.number > command.host:
                return LoadFailed(command.key, "the version has been loaded again since, with another host")
            before, version.host = version.host, Host(command.host, process)
            self._hosts[command.host] = version.host
            answers = {}
            for link in self._links.values():
                answers[link] = _ask_with(link, command, version.host.take_channels(link.index))
        failures = self._await_all(answers, Loaded)
        self._replace_all(failures)
        with self._lock:
            self._close_unless_used(before)
        return Loaded(command.key)

    def prepare(self, command: Prepare) -> None:
        """Let every worker that serves keep a plan; those that do not within the seconds they have are replaced."""
        with self._lock:
            self._next, self._is_preparing = self._number(command.plan), True
            self._word[1] = self._next.generation
            answers = {link: link.channel.ask(PrepareOrder.of(self._next)) for link in self._serving.values()}
            failures = self._await_all(answers, PlanPrepared, self._seconds)
            for link in failures:
                self._serving.pop(link.index, None)
        self._replace_all(failures)

    def commit(self, command: Commit) -> None:
        """Let the prepared plan answer on all workers: one word. The message only wakes those that are idle."""
        with self._lock:
            assert self._next.generation == self._first + command.generation
            self._plan, self._is_preparing = self._next, False
            self._commit_plan()

    def release(self) -> None:
        """Commit what was held back, and everything from now on. Any thread; more than once is harmless."""
        with self._lock:
            self._is_held = False
            if not self._is_preparing:  # else its commit follows
                self._commit_plan()

    def _commit_plan(self) -> None:
        if self._is_held:
            return
        self._word[0] = self._plan.generation
        for link in self._serving.values():
            self._show_commit(link)

    def _show_commit(self, link: WorkerLink) -> None:
        """Tell a worker what is committed, and that it may take connections."""
        link.generation = self._plan.generation
        link.channel.send(Commit(self._plan.generation))
        if link not in self._accepted:
            self._accepted.add(link)
            link.channel.send(Accept())

    def _number(self, plan: Plan) -> Plan:
        """Return a plan of control with its generation in these words."""
        return Plan(self._first + plan.generation, plan.routes)

    def unload(self, command: Unload) -> Draining:
        """Let all workers free a version; `Drained` follows when the last of them has."""
        with self._lock:
            version = self._loaded.pop(command.key)
            version.users = set(self._links)
            self._draining.append(version)
            answers = [link.channel.ask(command) for link in self._links.values()]
            self._finish_if_drained(version)
        return Draining(command.key, sum(_requests_of(answers, COUNT_SECONDS)))

    def report_outage(self, command: ReportOutage) -> None:
        """Tell all workers."""
        with self._lock:
            for link in self._links.values():
                link.channel.send(command)

    # --- workers come and go -----------------------------------------------------------------------------------------

    def add(self, link: WorkerLink) -> bool:
        """Let a new worker load what there is, then serve; returns whether it does. Blocks."""
        with self._lock:
            self._links[link.index] = link
            for version in self._loaded.values():
                self._send_load(link, version)
        while True:
            for answer in link.take_pending():
                failed = _failure_of(answer, Loaded, None)
                if failed is not None:
                    self._replace(link, f"it cannot load what is committed: {failed}")
                    return False
            with self._lock:
                if self._links.get(link.index) is not link:
                    return False
                if not link.has_pending:
                    return self._let_serve(link)

    def _let_serve(self, link: WorkerLink) -> bool:
        """Give a worker that has loaded everything the plan that answers, and the one under preparation, if any."""
        plans = [self._plan, self._next] if self._is_preparing else [self._plan]
        for plan in plans:
            failures = self._await_all({link: link.channel.ask(PrepareOrder.of(plan))}, PlanPrepared, self._seconds)
            if failures:
                self._replace(link, f"it cannot prepare what is committed: {failures[link]}")
                return False
            if plan is self._plan and not self._is_held:
                self._show_commit(link)
        self._serving[link.index] = link
        return True

    def remove(self, link: WorkerLink) -> None:
        """Forget a worker that is gone: its requests have ended with it."""
        with self._lock:
            if self._links.get(link.index) is not link:
                return
            del self._links[link.index]
            self._accepted.discard(link)
            self._serving.pop(link.index, None)
            for version in list(self._draining):
                version.users.discard(link.index)
                self._finish_if_drained(version)
            for host in list(self._hosts.values()):
                self._let_go(host, link.index)

    def take(self, link: WorkerLink, fact: Drained | HostGone | HostLeft) -> None:
        """Take a fact that a worker tells. Not on the thread that reads its answers: this may wait for one."""
        with self._lock:
            if isinstance(fact, Drained):
                version = next(one for one in self._draining if one.key == fact.key and link.index in one.users)
                version.users.discard(link.index)
                version.failures += [fact.failure] if fact.failure else []
                self._finish_if_drained(version)
                return
            host = self._hosts.get(fact.host)
            if host is None:
                return
            if isinstance(fact, HostLeft):
                self._let_go(host, link.index)
                return
            if fact.violation is not None:
                host.process.kill()
            if host.is_told:
                return
            host.is_told = True
        self._tell(fact)

    # -----------------------------------------------------------------------------------------------------------------

    def _send_load(self, link: WorkerLink, version: SharedVersion) -> Future[Any]:
        descriptors = version.take_descriptors(link.index)
        if version.host is not None and not descriptors and not version.host.is_told:
            version.host.is_told = True
            self._tell(HostGone(version.key, version.host.number, None, has_answered=True))
        answer = _ask_with(link, version.order, descriptors)
        link.note_pending(answer)
        return answer

    def _let_go(self, host: Host, worker: int) -> None:
        host.users.discard(worker)
        if host.is_replaced:
            self._close_unless_used(host)

    def _close_unless_used(self, host: Host) -> None:
        """End a host that no other worker will use, now or when the last worker lets it go."""
        host.is_replaced = True
        if not host.users:
            host.process.close()
            self._hosts.pop(host.number, None)

    def _finish_if_drained(self, version: SharedVersion) -> None:
        if version.users:
            return
        self._draining.remove(version)
        version.close()
        if version.host is not None:
            self._close_unless_used(version.host)
        self._tell(Drained(version.key, "; ".join(version.failures) or None))

    def _await_all(
        self, answers: dict[WorkerLink, Future[Any]], wanted: type, seconds: float | None = None
    ) -> dict[WorkerLink, str]:
        """Wait for all answers; return the workers that gave another one or none, and why.

        Without `seconds`, the others have the seconds of a worker once the first has answered.
        """
        failures: dict[WorkerLink, str] = {}
        ends_at = None if seconds is None else time.monotonic() + seconds
        waiting = dict(answers)
        while waiting:
            for link, answer in list(waiting.items()):
                left = None if ends_at is None else max(0.0, ends_at - time.monotonic())
                try:
                    failed = _failure_of(answer, wanted, 0.05 if left is None else left)
                except FutureTimeout:
                    if ends_at is None:
                        continue
                    failed = f"it did not answer within {self._seconds:g} s"
                del waiting[link]
                if failed is None and ends_at is None:
                    ends_at = time.monotonic() + self._seconds
                if failed is not None:
                    failures[link] = failed
        return failures

    def _replace_all(self, failures: dict[WorkerLink, str]) -> None:
        for link, reason in failures.items():
            if not link.is_gone:
                self._replace(link, reason)


def _ask_with(link: WorkerLink, message: Any, descriptors: Collection[int]) -> Future[Any]:
    """Ask a worker, and close the descriptors that went with the question."""
    try:
        return link.channel.ask(message, list(descriptors))
    finally:
        for fd in descriptors:
            os.close(fd)


def _failure_of(answer: Future[Any], wanted: type, seconds: float | None) -> str | None:
    """Return why an answer is not the wanted one; raises TimeoutError when there is none in time."""
    try:
        found = answer.result(seconds)
    except ChannelClosed as error:
        return str(error)
    return None if isinstance(found, wanted) else str(getattr(found, "reason", found))


def _requests_of(answers: Iterable[Future[Any]], seconds: float) -> list[int]:
    ends_at = time.monotonic() + seconds
    found = []
    for answer in answers:
        try:
            found.append(answer.result(max(0.0, ends_at - time.monotonic())).requests)
        except (ChannelClosed, FutureTimeout):
            continue
    return found
