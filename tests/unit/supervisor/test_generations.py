"""Generations of plans when workers outlive their control: the next control goes on where it ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.domain.plan import Commit, Plan, Prepare, Route
from serving.supervisor.worker_link import WorkerLink
from serving.supervisor.worker_planes import WorkerPlanes
from serving.wire.shared_words import map_words, open_words
from serving.wire.worker_messages import Accept, PlanPrepared, PrepareOrder, Sync, Synced


class FakeChannel:
    """Notes what is sent; every plan is prepared at once."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def ask(self, message: Any, descriptors: Any = ()) -> Future[Any]:
        assert not descriptors
        self.sent.append(message)
        answer: Future[Any] = Future()
        answer.set_result(Synced() if isinstance(message, Sync) else PlanPrepared(message.generation))
        return answer


def worker(index: int = 0) -> WorkerLink:
    link = WorkerLink(index, os.getpid(), -1)
    link.channel = FakeChannel()  # type: ignore[assignment]
    return link


def sent_to(link: WorkerLink) -> list[Any]:
    channel: Any = link.channel
    return [one for one in channel.sent if isinstance(one, PrepareOrder | Commit | Accept)]


@pytest.fixture
def words(tmp_path: Path) -> Iterator[SimpleNamespace]:
    fd = open_words(tmp_path / "words")
    yield SimpleNamespace(fd=fd, seen=map_words(fd))
    os.close(fd)


def control(words: SimpleNamespace, *, is_held: bool = False) -> WorkerPlanes:
    return WorkerPlanes(
        words.fd, 1.0, 1.0, lambda _: None, lambda *_: pytest.fail("a worker is replaced"), is_held=is_held
    )


def test_a_plan_of_the_next_control_never_passes_for_one_that_was_prepared_before(words: SimpleNamespace) -> None:
    before = control(words)
    plan = Plan().with_route("m", Route())
    before.prepare(Prepare(plan))
    before.commit(Commit(plan.generation))
    before.prepare(Prepare(plan.with_route("m", Route())))  # and then it dies
    assert list(words.seen[:2]) == [1, 2]
    after = control(words)
    assert words.seen[0] == 1, "what was committed stands"
    after.prepare(Prepare(plan))
    after.commit(Commit(plan.generation))
    assert words.seen[0] > 2


def test_the_first_generation_of_all_is_nought(words: SimpleNamespace) -> None:
    planes, link = control(words), worker()
    assert planes.add(link) is None
    assert sent_to(link) == [PrepareOrder(0, {}), Commit(0), Accept()]


def test_nothing_is_committed_while_control_is_held(words: SimpleNamespace) -> None:
    before = control(words)
    plan = Plan().with_route("m", Route())
    before.prepare(Prepare(plan))
    before.commit(Commit(plan.generation))
    held, link = control(words, is_held=True), worker()
    assert held.add(link) is None
    held.prepare(Prepare(plan))
    held.commit(Commit(plan.generation))
    assert words.seen[0] == 1
    assert not any(isinstance(one, Commit | Accept) for one in sent_to(link))
    held.release()
    first = sent_to(link)[-3].generation
    assert first > 1
    assert sent_to(link)[-2:] == [Commit(first), Accept()]
    assert words.seen[0] == first == link.generation
    held.release()
    assert sent_to(link).count(Accept()) == 1


def test_what_is_released_between_a_plan_and_its_commit_waits_for_the_commit(words: SimpleNamespace) -> None:
    held, link = control(words, is_held=True), worker()
    held.add(link)
    plan = Plan().with_route("m", Route())
    held.prepare(Prepare(plan))
    held.release()
    assert not any(isinstance(one, Commit) for one in sent_to(link)), "workers have another plan prepared now"
    held.commit(Commit(plan.generation))
    assert words.seen[0] == plan.generation
    assert sent_to(link)[-1] == Accept()
