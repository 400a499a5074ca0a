"""All workers' planes as one, for control: what `serving.lifecycle.plane_port` asks for.

Every live worker loads every version, and prepares every plan; then one word of shared memory lets it answer on all of
them at once. A worker that cannot, or not in time, is replaced, and its successor loads what is committed before it
takes connections. So a version is committed on all workers or on none.

One worker loads a new version before the others do: a version that kills its process costs one worker, not all.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
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
from serving.domain.recent_rows import RecentRows, merge_recent_rows
from serving.domain.spread import Spread, merge_spreads
from serving.domain.version import VersionId
from serving.failpoints import reach
from serving.hosting.host_process import HostProcess
from serving.supervisor.loaded_versions import LoadedVersions
from serving.supervisor.shared_versions import SharedVersion
from serving.supervisor.worker_answers import NoAnswer, find_failures, require_answer
from serving.supervisor.worker_link import WorkerLink
from serving.wire.recent_rows_document import decode_recent_rows
from serving.wire.shared_words import map_words
from serving.wire.worker_messages import (
    Accept,
    HostLeft,
    PlanPrepared,
    PrepareOrder,
    ReadRecentRows,
    ReadSpreads,
    RecentRowsRead,
    SpreadsRead,
    Sync,
    Synced,
)

MOST_TRIED = 2  # workers that may fail to load a version, one after the other, until it counts as bad
KILL_SECONDS = 1.0  # how long a commit waits for the end of workers that were killed because they had not prepared it

log = structlog.get_logger("serving.workers")


class WorkerPlanes:
    """The planes of all workers.

    `load`, `replace_host`, `sample` and `spreads` block, in worker threads; `prepare` blocks for as long as it has to
    wait for workers, `seconds` at most; the rest waits for nothing. The lock is never held over a wait. Of samples, at
    most `replay_rows` rows are put together.

    `load_seconds` is how long a worker may take for one version. `words` is the descriptor of two words: the committed
    generation, and the newest one that was ever prepared. `tell` gets facts, `replace` the workers that have to be
    replaced and why; both from any thread.

    The words may have been written by an earlier control that its workers have outlived. So generations go on from
    there: a plan of that control, prepared and not committed, must never pass for one of this. With `is_held` nothing
    is committed before `release`: until then workers answer what they did, and new ones do not take connections.
    """

    def __init__(
        self,
        words: int,
        seconds: float,
        load_seconds: float,
        tell: Callable[[Fact], None],
        replace: Callable[[WorkerLink, str], None],
        *,
        is_held: bool = False,
        replay_rows: int = 1000,
    ) -> None:
        self._words = map_words(words, writes=True)
        self._is_held = is_held
        self._replay_rows = replay_rows
        self._seconds = seconds
        self._load_seconds = load_seconds
        self._replace = replace
        self._lock = threading.RLock()  # guards what follows
        self._has_changed = threading.Condition(self._lock)  # a worker has come, or none will come any more
        self._links: dict[int, WorkerLink] = {}
        self._serving: dict[int, WorkerLink] = {}
        self._loaded = LoadedVersions(tell)
        self._first = self._words[1] + 1 if self._words[1] else 0
        self._words[1] = self._first
        self._plan = self._next = Plan(self._first)  # two plans from `prepare` until `commit`
        self._waiting: list[WorkerLink] = []  # may take connections from the next commit on
        self._is_closed = False

    # --- what control asks for ---------------------------------------------------------------------------------------

    def load(self, command: Load, process: HostProcess | None = None) -> Loaded | LoadFailed:
        """Let all workers load a version: one first, then the others, of which those that cannot are replaced.

        Fails when no worker lives, or when the first ones that try cannot or end. It is not kept then.
        """
        version = SharedVersion(command, process)
        with self._lock:
            self._loaded.expect(version)
        began = time.monotonic()
        first, failures = self._load_in_one(version)
        took = time.monotonic() - began
        if first is None:
            with self._lock:
                self._loaded.drop(version)
            reasons = dict.fromkeys(map(str, failures.values()))
            return LoadFailed(command.key, "; ".join(reasons) or "there is no worker to load it")
        with self._lock:
            self._loaded.keep(version)
            others = [link for link in self._links.values() if link is not first]
            answers = self._sort_answers(
                f"loaded {_name(command.key)}", {link: self._send_load(link, version) for link in others}
            )
        # as long as the first took, for each: they may share one core
        failures |= find_failures(answers, Loaded, self._seconds + took * len(answers))
        self._replace_all(failures)
        return Loaded(command.key)

    def replace_host(self, command: ReplaceHost, process: HostProcess) -> Loaded | LoadFailed:
        """Let another host answer for a loaded version on all workers."""
        with self._lock:
            hosts = self._loaded.replace_host(command, process)
            if isinstance(hosts, str):
                return LoadFailed(command.key, hosts)
            before, host = hosts
            asked = {link: _ask_with(link, command, host.take_channels(link.index)) for link in self._links.values()}
            answers = self._sort_answers(f"took another host of {_name(command.key)}", asked)
        self._replace_all(find_failures(answers, Loaded, self._load_seconds))
        with self._lock:
            self._loaded.close_unless_used(before)
        return Loaded(command.key)

    def prepare(self, command: Prepare) -> None:
        """Let every worker that serves keep a plan; those that do not within the seconds they have are replaced.

        They have ended when this returns: nobody answers with an older plan once this one is committed.
        """
        with self._lock:
            self._next = Plan(self._first + command.plan.generation, command.plan.routes)
            self._words[1] = self._next.generation
            answers = {link: link.channel.ask(PrepareOrder.of(self._next)) for link in self._serving.values()}
        failures = find_failures(answers, PlanPrepared, self._seconds)
        with self._lock:
            for link in failures:
                if self._serving.get(link.index) is link:
                    del self._serving[link.index]
        self._replace_all(failures)
        for link in failures:
            link.has_ended.wait(KILL_SECONDS)

    def commit(self, command: Commit) -> None:
        """Let the prepared plan answer on all workers: one word. The message only wakes those that are idle."""
        with self._lock:
            assert self._next.generation == self._first + command.generation
            reach("workers-prepared")
            self._plan = self._next
            self._commit_plan()

    def release(self) -> None:
        """Commit what was held back, and everything from now on. Any thread; more than once is harmless."""
        with self._lock:
            self._is_held = False
            if self._next is self._plan:  # else its commit follows
                self._commit_plan()

    def _commit_plan(self) -> None:
        if self._is_held:
            return
        self._words[0] = self._plan.generation
        reach("workers-committed")
        for link in self._serving.values():
            self._tell_commit(link)
        waiting, self._waiting = self._waiting, []
        for link in waiting:
            link.channel.send(Accept())

    def _tell_commit(self, link: WorkerLink) -> None:
        link.generation = self._plan.generation
        link.channel.send(Commit(self._plan.generation))

    def unload(self, command: Unload) -> Draining:
        """Let all workers free a version; `Drained` follows when the last of them has."""
        with self._lock:
            for link in self._links.values():
                link.channel.send(command)
            self._loaded.drain(command.key, self._links)
        return Draining(command.key, None)

    def sample(self, key: VersionId) -> RecentRows | None:
        """Return recent rows of a model, and what this version answers to them, of workers that answer in time."""
        answers = self._ask_all(ReadRecentRows(key), RecentRowsRead)
        documents = [answer.document for answer in answers if answer.document is not None]
        return merge_recent_rows([decode_recent_rows(document) for document in documents], self._replay_rows)

    def spreads(self, model: str) -> dict[str, Spread]:
        """Return how the answers of each loaded version are spread, on all workers that answer in time."""
        found = [answer.spreads for answer in self._ask_all(ReadSpreads(model), SpreadsRead)]
        versions = sorted({version for spreads in found for version in spreads})
        return {
            version: merge_spreads(spreads[version] for spreads in found if version in spreads) for version in versions
        }

    def _ask_all(self, question: Any, wanted: type) -> list[Any]:
        """Return what the workers that serve answer in time: nothing depends on those that do not."""
        with self._lock:
            asked = {link: link.channel.ask(question) for link in self._serving.values()}
        failures = find_failures(asked, wanted, self._seconds)
        return [answer.result() for link, answer in asked.items() if link not in failures]

    def report_outage(self, command: ReportOutage) -> None:
        """Tell all workers."""
        with self._lock:
            for link in self._links.values():
                link.channel.send(command)

    def close(self) -> None:
        """Wait for no worker any more: none will come. Any thread."""
        with self._lock:
            self._is_closed = True
            self._has_changed.notify_all()

    # --- workers come and go -----------------------------------------------------------------------------------------

    def add(self, link: WorkerLink) -> str | None:
        """Let a new worker load what there is, then serve. Blocks.

        Returns why it has to be replaced; None when it serves, or has ended.

        It may take `load_seconds` until it runs and for each version, and `seconds` for the plan. Commits of the others
        never wait for it.
        """
        with self._lock:
            self._links[link.index] = link
            link.note_pending("started", link.channel.ask(Sync()))
            for version in self._loaded:
                link.note_pending(f"loaded {_name(version.key)}", self._send_load(link, version))
            self._has_changed.notify_all()
        prepared: tuple[int, int] | None = None
        try:
            while True:
                for what, answer in link.take_pending():
                    link.doing = what
                    require_answer(answer, (Loaded, Synced), self._load_seconds)
                link.doing = "prepared what is committed"
                with self._lock:
                    if self._links.get(link.index) is not link:
                        return None
                    if link.has_pending:
                        continue
                    wanted = self._plan.generation, self._next.generation
                    if prepared == wanted:
                        link.doing = None
                        self._serving[link.index] = link
                        if self._is_held:
                            self._waiting.append(link)
                        else:
                            link.channel.send(Accept())
                        return None
                    answers = self._send_plans(link)
                for answer in answers:
                    require_answer(answer, PlanPrepared, self._seconds)
                prepared = wanted
        except NoAnswer as error:
            return None if error.has_ended else f"while it {link.doing}: {error}"

    def _send_plans(self, link: WorkerLink) -> list[Future[Any]]:
        """Send the plan that answers, and the one under preparation, if any."""
        answers = [link.channel.ask(PrepareOrder.of(self._plan))]
        if not self._is_held:
            self._tell_commit(link)
        if self._next is not self._plan:
            answers.append(link.channel.ask(PrepareOrder.of(self._next)))
        return answers

    def remove(self, link: WorkerLink) -> None:
        """Forget a worker that is gone: its requests have ended with it."""
        with self._lock:
            if self._links.get(link.index) is not link:
                return
            del self._links[link.index]
            self._serving.pop(link.index, None)
            self._loaded.forget_worker(link.index)

    def take(self, link: WorkerLink, fact: Drained | HostGone | HostLeft) -> None:
        """Take a fact that a worker tells. Any thread."""
        with self._lock:
            if isinstance(fact, HostGone):
                self._loaded.note_host_gone(fact)
            elif self._links.get(link.index) is not link:
                pass  # `remove` has said so for it, and its successor has the same index
            elif isinstance(fact, Drained):
                self._loaded.note_drained(link.index, fact)
            else:
                self._loaded.note_host_left(link.index, fact.host)

    # -----------------------------------------------------------------------------------------------------------------

    def _load_in_one(self, version: SharedVersion) -> tuple[WorkerLink | None, dict[WorkerLink, NoAnswer]]:
        """Let one worker load a version; returns it, None if none could, and those that could not, and why."""
        failures: dict[WorkerLink, NoAnswer] = {}
        while len(failures) < MOST_TRIED:
            with self._lock:
                link = self._await_worker(failures)
                if link is None:
                    break
                answer = self._send_load(link, version)
            try:
                require_answer(answer, Loaded, self._load_seconds)
            except NoAnswer as error:
                if error.has_ended:
                    error = NoAnswer(f"worker {link.index} has ended while it loaded it", has_ended=True)
                failures[link] = error
                log.error("load_failed", worker=link.index, version=_name(version.key), reason=str(error))
                if not answer.done():
                    self._replace(link, f"while it loaded {_name(version.key)}: {error}")
            else:
                return link, failures
        return None, failures

    def _await_worker(self, tried: Collection[WorkerLink]) -> WorkerLink | None:
        """Return a worker that was not tried, one that serves if there is one; None when none comes in time."""

        def find() -> WorkerLink | None:
            links = [found[index] for found in (self._serving, self._links) for index in sorted(found)]
            return next((link for link in links if link not in tried and not link.has_ended.is_set()), None)

        # when one has failed, the version is the likely reason: no worker is waited for only to lose it, too
        self._has_changed.wait_for(lambda: find() or self._is_closed, 0.0 if tried else self._seconds)
        return None if self._is_closed else find()

    def _send_load(self, link: WorkerLink, version: SharedVersion) -> Future[Any]:
        return _ask_with(link, version.order, self._loaded.take_descriptors(version, link.index))

    def _sort_answers(self, what: str, answers: dict[WorkerLink, Future[Any]]) -> dict[WorkerLink, Future[Any]]:
        """Return the answers of workers that serve; the others have to give theirs before they may."""
        for link, answer in answers.items():
            if link.index not in self._serving:
                link.note_pending(what, answer)
        return {link: answer for link, answer in answers.items() if link.index in self._serving}

    def _replace_all(self, failures: dict[WorkerLink, NoAnswer]) -> None:
        for link, error in failures.items():
            if not error.has_ended:
                self._replace(link, str(error))


def _ask_with(link: WorkerLink, message: Any, descriptors: Collection[int]) -> Future[Any]:
    """Ask a worker, and close the descriptors that went with the question."""
    try:
        return link.channel.ask(message, list(descriptors))
    finally:
        for fd in descriptors:
            os.close(fd)


def _name(key: VersionId) -> str:
    return f"{key.model}/{key.version}"
