"""A servable without a host gets one, whoever noticed and in whatever order it was told."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any

from serving.domain.artifact import Artifact, StagedFile
from serving.domain.version import Format, VersionId
from serving.lifecycle.history import History
from serving.lifecycle.journal import Journal
from serving.lifecycle.records import VersionRecord
from serving.lifecycle.respawn import Respawn
from serving.servable.hosted import HostedEngine
from serving.servable.servable import Servable
from serving.settings import CandidateSettings
from serving.telemetry.metrics import Metrics
from tests.unit.servable.test_servable import report


class Executor:
    """Keeps what was submitted; the test says how it ends."""

    def __init__(self) -> None:
        self.submitted: list[Future[str | None]] = []

    def submit(self, *_: Any) -> Future[str | None]:
        self.submitted.append(Future())
        return self.submitted[-1]


class Engine(HostedEngine):
    """Has lost a host, or only a replica of it, until told otherwise."""

    is_whole = False  # type: ignore[assignment]


def test_a_missing_host_is_noticed_without_being_told_and_brought_once(tmp_path: Path) -> None:
    """The host may have died before anybody could be told that it was there."""
    identity = VersionId("m", "1", "sha256:00")
    file = StagedFile("model.joblib", "00", 1, PurePath("/nowhere"))
    engine = Engine("sklearn", lambda _: None)
    record = VersionRecord("m", "1", (), 0.0, digest=identity.digest)
    record.artifact = Artifact(identity, Format.JOBLIB, file, (file,))
    record.servable = Servable(identity, report(), engine)
    executor = Executor()
    journal = Journal(History(tmp_path, "b", 10), Metrics("test"))
    loop = SimpleNamespace(call_soon_threadsafe=lambda call, *arguments: call(*arguments))

    def post(message: Callable[[], None]) -> None:
        message()

    settings = CandidateSettings(retry_seconds=1000, retry_max_seconds=2000)
    respawn = Respawn(SimpleNamespace(respawn=None), journal, executor, post, loop, settings)  # type: ignore[arg-type]

    respawn.advance(record, 0.0)
    respawn.advance(record, 0.0)
    assert len(executor.submitted) == 1, "one is on its way: no second one"
    executor.submitted[0].set_result(None)
    respawn.advance(record, 0.0)
    assert len(executor.submitted) == 2, "it died before its respawn was told"
    executor.submitted[1].set_result("no memory")
    assert "no memory" in (record.host_problem or "")
    respawn.advance(record, record.respawn_at - 1)
    assert len(executor.submitted) == 2, "not before the wait is over"
    respawn.advance(record, record.respawn_at)
    assert len(executor.submitted) == 3
    engine.is_whole = True
    executor.submitted[2].set_result(None)
    respawn.advance(record, record.respawn_at)
    assert len(executor.submitted) == 3
    assert record.host_problem is None
