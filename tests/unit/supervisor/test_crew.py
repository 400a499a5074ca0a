"""The crew: who is told what about a new worker, and that none is lost for good."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from serving.ports.forwarding import ConnectionForwarder
from serving.supervisor.crew import Crew
from serving.supervisor.worker_link import WorkerLink
from serving.wire.shared_words import make_words
from tests.e2e.harness import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux")


class Nursery:
    """Starts processes that do nothing, in the place of workers."""

    def __init__(self) -> None:
        self.children: list[subprocess.Popen[bytes]] = []

    def watch(self, _: Any) -> None:
        """Nothing is lost."""

    def fork(self, index: int, descriptors: Sequence[int]) -> tuple[int, int]:
        assert index == 0
        child = subprocess.Popen(["sleep", "60"], pass_fds=descriptors)
        self.children.append(child)
        return child.pid, os.pidfd_open(child.pid)

    def await_end(self, pid: int, _: float) -> None:
        next(one for one in self.children if one.pid == pid).wait()


def make_crew(nursery: Nursery, planes: Any, greet: Any = lambda _: None) -> Crew:
    counts = SimpleNamespace(
        start_worker=lambda *_: None, end_worker=lambda *_: None, count_worker_restart=lambda *_: None
    )
    return Crew(
        *(nursery, planes, [[]], make_words("beats"), 20.0),  # type: ignore[arg-type]
        *(lambda *_: None, greet, lambda _: None, lambda: None, counts, ConnectionForwarder(())),  # type: ignore[arg-type]
    )


def test_a_worker_is_told_what_is_published_before_it_is_told_what_there_is() -> None:
    """A change between the two would be missed for ever: each tells only what has changed."""
    seen: list[bool] = []
    planes: Any = SimpleNamespace(add=lambda _: None, remove=lambda _: None, close=lambda: None)
    crew = make_crew(Nursery(), planes, lambda link: seen.append(link in crew.list_links()))
    crew.start()
    until(lambda: seen, "a worker")
    crew.stop()
    assert crew.join(20)
    assert seen == [True]


def test_a_worker_that_cannot_be_given_what_is_loaded_is_replaced() -> None:
    """As when the supervisor has no descriptors left for a moment."""

    def add(_: WorkerLink) -> None:
        if len(nursery.children) == 1:
            raise OSError(errno.EMFILE, "no descriptors")

    nursery = Nursery()
    crew = make_crew(nursery, SimpleNamespace(add=add, remove=lambda _: None, close=lambda: None))
    crew.start()
    until(lambda: len(nursery.children) == 2, "another worker")
    crew.stop()
    assert crew.join(20)
