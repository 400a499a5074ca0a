"""A servable without a host gets one, whoever noticed and in whatever order it was told."""

from __future__ import annotations

import itertools
from concurrent.futures import Future
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any

import pytest

from serving.domain.artifact import Artifact, StagedFile
from serving.domain.plan import Hosted, HostGone, ReportOutage
from serving.domain.state import State
from serving.domain.version import Format, VersionId
from serving.lifecycle.history import History
from serving.lifecycle.inbox import HostBrought, WorkMessage
from serving.lifecycle.journal import Journal
from serving.lifecycle.records import VersionRecord
from serving.lifecycle.respawn import Respawn
from serving.settings import CandidateSettings
from serving.telemetry.metrics import Metrics
from tests.fakes import NUMBERS
from tests.unit.lifecycle.fake_plane import FakePlane


class Executor:
    """Keeps what was submitted; the test says how it ends."""

    def __init__(self) -> None:
        self.submitted: list[Future[str | None]] = []

    def submit(self, *_: Any) -> Future[str | None]:
        self.submitted.append(Future())
        return self.submitted[-1]


class Scene:
    """A hosted version, and what brings another host; `outages` has what those who wait are told meanwhile."""

    def __init__(self, directory: Path, **settings: float) -> None:
        identity = VersionId("m", "1", "sha256:00")
        file = StagedFile("model.joblib", "00", 1, PurePath("/nowhere"))
        self.plane = FakePlane()
        self.record = VersionRecord("m", "1", (), 0.0, digest=identity.digest)
        self.record.artifact = Artifact(identity, Format.JOBLIB, file, (file,))
        self.record.state = State.ACTIVE
        self.record.placement, self.record.host = Hosted(NUMBERS, "sklearn", 1), 1
        self.executor = Executor()
        history, metrics = History(directory, "b", 10), Metrics("test")
        journal = Journal(history.events, history.verdicts, metrics)
        numbers = itertools.count(2)
        runner: Any = SimpleNamespace(respawn=None, next_host=lambda: next(numbers))
        executor: Any = self.executor

        def post(message: WorkMessage) -> None:
            assert isinstance(message, HostBrought)
            self._respawn.finish(message)

        self._respawn = Respawn(runner, journal, metrics, executor, post, self.plane, CandidateSettings(**settings))

    @property
    def outages(self) -> list[ReportOutage]:
        return self.plane.outages

    def tell_gone(self, host: int | None = None, violation: str | None = None, *, has_answered: bool = False) -> None:
        """A host is gone: the last one that is known of, or another."""
        number = self.record.host if host is None else host
        self._respawn.learn(HostGone(self.record.id, number, violation, has_answered))

    @property
    def started(self) -> int:
        """How many hosts have been asked for."""
        return len(self.executor.submitted)

    def advance(self, now: float) -> None:
        self._respawn.advance(self.record, now)

    def finish(self, problem: str | None = None) -> None:
        """End the last attempt, in vain when there is a problem."""
        self.executor.submitted[-1].set_result(problem)


def test_a_host_that_is_gone_is_brought_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path, retry_seconds=1000, retry_max_seconds=2000)
    record = scene.record
    scene.advance(0.0)
    assert scene.started == 0
    scene.tell_gone()
    scene.advance(0.0)
    scene.advance(0.0)
    assert scene.started == 1, "one is on its way: no second one"
    scene.finish("no memory")
    assert "no memory" in (record.host_problem or "")
    scene.advance(record.respawn_at - 1)
    assert scene.started == 1, "not before the wait is over"
    scene.advance(record.respawn_at)
    assert scene.started == 2
    scene.finish()
    scene.advance(record.respawn_at)
    assert scene.started == 2
    assert record.host_problem is None


def test_an_end_that_is_told_before_its_host_is_known_counts(tmp_path: Path) -> None:
    """A host may die before its version is READY, or before its own respawn is known to have worked."""
    scene = Scene(tmp_path)
    scene.record.placement, placement = None, scene.record.placement
    scene.tell_gone(host=1)
    scene.advance(0.0)
    assert scene.started == 0, "not READY yet"
    scene.record.placement = placement
    scene.advance(0.0)
    assert scene.started == 1
    scene.tell_gone(host=2)
    scene.finish()
    assert scene.record.host == 2
    scene.advance(0.0)
    assert scene.started == 2


def test_the_end_of_a_host_that_was_replaced_counts_no_more(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.record.host = 2
    scene.tell_gone(host=1)
    scene.advance(0.0)
    assert scene.started == 0
    scene.tell_gone(host=2)
    scene.tell_gone(host=1)
    scene.advance(0.0)
    assert scene.started == 1, "told late, of the one before"


def lose(scene: Scene, now: float, violation: str | None = None, *, has_answered: bool = False) -> None:
    """The host is gone; another one is brought where that may be now."""
    scene.tell_gone(None, violation, has_answered=has_answered)
    before = scene.started
    scene.advance(now)
    if scene.started > before:
        scene.finish()


@pytest.mark.parametrize("violation", [None, "bytes without a request"])
def test_hosts_of_no_use_are_brought_less_and_less_often(tmp_path: Path, violation: str | None) -> None:
    """A model that ends its host, or has it talk nonsense, as soon as it is there must not keep a core busy."""
    scene = Scene(tmp_path, retry_seconds=1, retry_max_seconds=300)
    for count in range(1, 4):
        lose(scene, 100.0, violation)
        assert scene.started == count, "the first ones are brought at once"
    for waited in (1.0, 2.0, 4.0, 8.0):
        now = max(100.0, scene.record.respawn_at)
        before = scene.started
        lose(scene, now, violation)
        assert scene.started == before
        assert scene.record.respawn_at == now + waited
        assert "of no use" in scene.outages[-1].reason
        assert (violation or "died") in (scene.record.host_problem or "")
        scene.advance(now + waited / 2)
        assert scene.started == before
        scene.advance(now + waited)
        assert scene.started == before + 1
        scene.finish()
    lose(scene, 10_000.0, violation)
    assert scene.record.respawn_at == 0.0, "that was long ago"


def test_hosts_that_have_answered_are_brought_at_once_however_often_they_die(tmp_path: Path) -> None:
    """They were killed from outside, or by a request: others must not wait for that."""
    scene = Scene(tmp_path)
    for count in range(1, 20):
        lose(scene, 100.0, has_answered=True)
        assert scene.started == count
    assert not scene.outages
    lose(scene, 100.0, "a report", has_answered=True)
    assert scene.started == 20
