"""Workers over real socket pairs, each with as much of a plane as a test needs."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, wait
from typing import Any

import pytest

from serving.domain.plan import Drained, Fact, Hosted, Load, Loaded, Plan, Prepare, Route, Unload
from serving.domain.version import VersionId
from serving.supervisor import worker_answers
from serving.supervisor.worker_link import WorkerLink
from serving.supervisor.worker_planes import WorkerPlanes
from serving.wire.shared_words import make_words, map_words
from serving.wire.worker_channel import Received, WorkerChannel
from serving.wire.worker_messages import TYPES, Accept, LoadOrder, PlanPrepared, PrepareOrder, Sync, Synced
from tests.e2e.harness import until
from tests.fakes import NUMBERS

Answer = Callable[[Received], Any]
"""What a worker answers to a message; None: nothing, now."""


def key_of(version: int) -> VersionId:
    return VersionId("m", str(version), f"sha256:{version:064}")


def load_of(version: int) -> Load:
    return Load(key_of(version), Hosted(NUMBERS, "sklearn", 1))


def prepare_of(generation: int, *versions: int) -> Prepare:
    keys = tuple(key_of(version) for version in versions)
    return Prepare(Plan(generation, {"m": Route(keys[0] if keys else None, keys)}))


class FakeWorker:
    """One worker's end of a channel. `seen` has all messages; `answers` says what to do with those of a type.

    `left` are the questions that it has seen and not answered then.
    """

    def __init__(self, index: int, **answers: Answer) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.seen: list[Any] = []
        self.received: list[Received] = []
        self.left: list[Future[Any]] = []
        self.answers = answers
        self._arrived = threading.Condition()
        self.channel = WorkerChannel(theirs, TYPES, self._take, name=f"fake-{index}")
        self.link = WorkerLink(index, os.getpid(), os.pidfd_open(os.getpid()))
        self.link.channel = WorkerChannel(ours, TYPES, self._hear, self.link.has_ended.set, f"link-{index}")
        self.told: Callable[[WorkerLink, Any], None] = lambda *_: None

    def start(self) -> None:
        self.channel.start()
        self.link.channel.start()

    def die(self) -> None:
        self.channel.close()

    def wait_for(self, kind: type, count: int = 1) -> Any:
        """Wait for so many messages of a type and return the last of them."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.of(kind)) >= count, 20), (kind, self.seen)
            return self.of(kind)[count - 1]

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.seen if isinstance(one, kind)]

    def _hear(self, received: Received) -> None:
        self.told(self.link, received.message)

    def _take(self, received: Received) -> None:
        message = received.message
        with self._arrived:
            self.seen.append(message)
            self.received.append(received)
            self._arrived.notify_all()
        answer = self.answers.get(type(message).__name__, _usual)(received)
        if answer is not None:
            received.answer(answer)
        elif isinstance(message, Unload) and "Unload" not in self.answers:
            self.channel.send(Drained(message.key))
        elif (question := self.link.channel._questions.get(received._number)) is not None:
            self.left.append(question)


def _usual(received: Received) -> Any:
    match message := received.message:
        case LoadOrder():
            return Loaded(message.key)
        case PrepareOrder():
            return PlanPrepared(message.generation)
        case Sync():
            return Synced()
    return None


class Service:
    """The planes of a few fake workers."""

    def __init__(self, seconds: float = 20.0, load_seconds: float = 20.0) -> None:
        self.committed = make_words("test")
        self.word = map_words(self.committed)
        self.facts: list[Fact] = []
        self.replaced: dict[int, str] = {}
        self.workers: list[FakeWorker] = []
        self.planes = WorkerPlanes(self.committed, seconds, load_seconds, self.facts.append, self._replace)
        self.dies_when_replaced = True

    def make(self, index: int, **answers: Answer) -> FakeWorker:
        """Return a worker that has not joined yet."""
        worker = FakeWorker(index, **answers)
        worker.told = self.planes.take
        self.workers.append(worker)
        worker.start()
        return worker

    def join(self, index: int, **answers: Answer) -> FakeWorker:
        """Return a worker that serves."""
        worker = self.make(index)
        assert self.planes.add(worker.link) is None
        worker.wait_for(Accept)
        worker.answers = answers
        return worker

    def _replace(self, link: WorkerLink, reason: str) -> None:
        self.replaced.setdefault(link.index, reason)
        if self.dies_when_replaced:
            next(worker for worker in self.workers if worker.link is link).die()

    def wait(self, answers: Collection[Future[Any]], seconds: float) -> Any:
        """Wait so long for answers that workers hold back, and for others until they are there.

        So a worker that answers is never taken for one that hangs, however slow this machine is.
        """

        def is_told(answer: Future[Any]) -> bool:
            return answer.done() or any(answer in worker.left for worker in self.workers)

        until(lambda: all(map(is_told, answers)), "an answer, or a worker that holds it back", every=0.001)
        return wait(answers, seconds)

    def close(self) -> None:
        for worker in self.workers:
            worker.die()
            worker.link.has_ended.wait(10)
            worker.link.close()
        os.close(self.committed)


@contextlib.contextmanager
def service(**seconds: float) -> Iterator[Service]:
    """Run planes without workers for the length of a ``with`` block."""
    found = Service(**seconds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_answers, "wait", found.wait)
        try:
            yield found
        finally:
            found.close()


class Running:
    """A call in a thread of its own: `result` waits for what it returns."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._found: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._found.append(call()), daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        return bool(self._found)

    def result(self) -> Any:
        self._thread.join(20)
        assert self._found, "it does not return"
        return self._found[0]
