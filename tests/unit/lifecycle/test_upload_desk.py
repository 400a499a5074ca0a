"""The desk takes uploads one by one, shows how far each is, and leaves nothing of those that come to nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.domain.errors import OperationRefused, PublishRefused, ServingError, StoreFull, Unavailable
from serving.domain.report import CandidateReport, GateResult, Verdict
from serving.domain.upload import UploadBegun, UploadDone, UploadFailed, UploadProblem, UploadRequest, UploadState
from serving.failpoints import arm
from serving.lifecycle.candidate import Candidate
from serving.lifecycle.inbox import UploadChanged
from serving.lifecycle.upload_desk import MAX_UPLOADS, UploadDesk
from serving.lifecycle.upload_table import UploadTable
from serving.settings import StoreSettings
from serving.store.publishing import Published
from tests.e2e.harness import until

WAIT_SECONDS = 20.0


def gate(name: str, verdict: Verdict = Verdict.PASSED) -> GateResult:
    return GateResult(gate=name, verdict=verdict, evidence=f"{name} has seen it")


class Checks:
    """Does what a test says when an upload is to be published."""

    def __init__(self) -> None:
        self.do: Callable[[Candidate, Callable[[GateResult], None]], object] = lambda *_: None

    def publish(self, _files: Path, request: UploadRequest, candidate: Candidate, on_gate: Any) -> Published:
        candidate.version = request.version or "7"
        self.do(candidate, on_gate)
        return Published(Path("m/7"), candidate.version, "sha256:7", CandidateReport(gates=(gate("load"),)))


class Scene:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.checks = Checks()
        self.table = UploadTable()
        self.posted: list[Any] = []
        self.woken: list[None] = []
        settings = StoreSettings(path=root, max_artifact_mb=1)
        checks: Any = self.checks
        wake = lambda: self.woken.append(None)  # noqa: E731
        self.desk = UploadDesk(settings, checks, self.table, self.posted.append, wake, lambda: None)

    def begin(self, version: str | None = "7", model: str = "m", **more: Any) -> UploadBegun | UploadFailed:
        wanted = {"file": "model.joblib", "size": None, "is_breaking": False, "metrics": {}, **more}
        return self.desk.begin(UploadRequest(model, version, **wanted), "admin@here").result(WAIT_SECONDS)

    def begun(self, *arguments: Any, **more: Any) -> UploadBegun:
        found = self.begin(*arguments, **more)
        assert isinstance(found, UploadBegun), found
        return found

    def failed(self, *arguments: Any, **more: Any) -> UploadFailed:
        found = self.begin(*arguments, **more)
        assert isinstance(found, UploadFailed)
        return found

    def left(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir())


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    root = tmp_path / "store"
    root.mkdir()
    scene = Scene(root)
    yield scene
    scene.desk.stop()
    assert [name for name in scene.left() if name.startswith(".")] == []


def test_what_is_published_is_shown_and_goes_into_the_history(scene: Scene) -> None:
    begun = scene.begun()
    assert begun.max_bytes == 1 << 20
    assert [one.state for one in scene.table.list_status()] == [UploadState.RECEIVING]
    outcome = scene.desk.finish(begun.id, 5).result(WAIT_SECONDS)
    assert isinstance(outcome, UploadDone)
    assert (outcome.status.version, outcome.status.bytes, outcome.status.digest) == ("7", 5, "sha256:7")
    assert scene.table.list_status() == (outcome.status,)
    entry = scene.posted[-1].entry
    assert (entry.event, entry.version, entry.actor) == ("upload", "7", "admin@here")
    assert entry.reason == "model.joblib, 5 bytes: published"
    assert scene.woken


def test_gates_are_shown_as_they_speak_and_anew_when_they_begin_anew(scene: Scene) -> None:
    seen = []

    def speak(_: Candidate, on_gate: Callable[[GateResult], None]) -> None:
        for name in ("load", "golden", "load", "finite"):
            on_gate(gate(name))
            (status,) = scene.table.list_status()
            seen.append([one.gate for one in status.gates])

    scene.checks.do = speak
    scene.desk.finish(scene.begun().id, 5).result(WAIT_SECONDS)
    assert seen == [["load"], ["load", "golden"], ["load"], ["load", "finite"]]


def raising(error: Exception) -> Callable[..., None]:
    def do(*_: Any) -> None:
        raise error

    return do


REFUSAL = PublishRefused("refused by golden", None, CandidateReport(gates=(gate("golden", Verdict.REFUSED),)))


@pytest.mark.parametrize(
    ("error", "problem", "state"),
    [
        (REFUSAL, UploadProblem.REFUSED, UploadState.REFUSED),
        (PublishRefused("version '7' exists"), UploadProblem.NOT_POSSIBLE, UploadState.FAILED),
        (OSError(28, "No space left"), UploadProblem.FULL, UploadState.FAILED),
        (OSError(5, "Input/output error"), UploadProblem.UNAVAILABLE, UploadState.FAILED),
        (StoreFull("full"), UploadProblem.FULL, UploadState.FAILED),
        (ZeroDivisionError(), UploadProblem.UNAVAILABLE, UploadState.FAILED),
    ],
)
def test_what_comes_to_nothing_says_why_and_leaves_nothing(
    scene: Scene, error: Exception, problem: UploadProblem, state: UploadState
) -> None:
    scene.checks.do = raising(error)
    outcome = scene.desk.finish(scene.begun().id, 5).result(WAIT_SECONDS)
    assert isinstance(outcome, UploadFailed)
    assert (outcome.problem, scene.table.list_status()[0].state) == (problem, state)
    assert scene.left() == []
    assert (scene.posted[-1].entry is not None) is (state is UploadState.REFUSED)
    assert not scene.woken


def test_a_body_that_is_given_up_leaves_nothing_and_its_version_is_free(scene: Scene) -> None:
    begun = scene.begun()
    assert isinstance(scene.failed().to_error(), OperationRefused)
    scene.desk.abandon(begun.id, "the client has gone").result(WAIT_SECONDS)
    assert scene.left() == []
    assert scene.table.list_status()[0].reason == "the client has gone"
    scene.begun()


def test_once_the_body_is_there_it_goes_on(scene: Scene) -> None:
    go_on = threading.Event()
    scene.checks.do = lambda *_: go_on.wait(WAIT_SECONDS)
    begun = scene.begun()
    outcome = scene.desk.finish(begun.id, 5)
    abandoned = scene.desk.abandon(begun.id, "the client has gone").result(WAIT_SECONDS)
    assert isinstance(abandoned, UploadFailed)
    go_on.set()
    assert isinstance(outcome.result(WAIT_SECONDS), UploadDone)


def test_only_a_few_at_once(scene: Scene) -> None:
    for number in range(MAX_UPLOADS):
        scene.begun(str(number))
    assert isinstance(scene.failed("9").to_error(), Unavailable)


def test_a_stop_ends_all_of_them(scene: Scene) -> None:
    waiting = scene.begun("1")
    is_checking = threading.Event()

    def check(candidate: Candidate, _: Any) -> None:
        is_checking.set()
        assert candidate.cancelled.wait(WAIT_SECONDS)
        raise Unavailable("the server is being stopped")

    scene.checks.do = check
    checked = scene.desk.finish(scene.begun("2").id, 5)
    assert is_checking.wait(WAIT_SECONDS)
    scene.desk.stop()
    assert isinstance(checked.result(0), UploadFailed)
    assert scene.left() == []
    for late in (scene.desk.finish(waiting.id, 5).result(0), scene.failed("3")):
        assert isinstance(late, UploadFailed)
        assert late.problem is UploadProblem.UNAVAILABLE


def test_a_caller_that_has_gone_before_there_is_room_leaves_nothing(scene: Scene) -> None:
    is_there, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        is_there.set()
        assert go_on.wait(WAIT_SECONDS)

    arm("upload-begun", wait)
    try:
        begun = scene.desk.begin(UploadRequest("m", "7", "model.joblib", None, False, {}), "a")
        assert is_there.wait(WAIT_SECONDS)
        assert begun.cancel()
    finally:
        go_on.set()
        arm("upload-begun", None)
    (status,) = until(scene.table.list_status, "an upload")
    until(lambda: scene.table.find(status.id).state.has_ended, "its end")  # type: ignore[union-attr]
    assert scene.left() == []
    scene.begun()


def test_a_request_that_cannot_end_well_is_refused_at_once(scene: Scene, tmp_path: Path) -> None:
    def why(**more: Any) -> tuple[UploadProblem, str]:
        found = scene.failed(**more)
        return found.problem, found.reason

    (scene.root / "m" / "3").mkdir(parents=True)
    (scene.root / "lone.joblib").write_bytes(b"")
    (tmp_path / "outside").mkdir()
    (scene.root / "away").symlink_to(tmp_path / "outside")
    assert why(version="3")[0] is UploadProblem.NOT_POSSIBLE
    assert why(model="M")[0] is UploadProblem.NOT_POSSIBLE
    assert "is a lone file" in why(model="lone")[1]
    assert "leads out of the store" in why(model="away")[1]
    assert why(file="model.txtx")[0] is UploadProblem.INVALID
    assert why(size=(1 << 20) + 1)[0] is UploadProblem.TOO_LARGE
    assert list((tmp_path / "outside").iterdir()) == []


def test_how_much_has_arrived_is_told_now_and_then(scene: Scene) -> None:
    begun = scene.begun()
    before = len(scene.posted)
    for size in range(1000):
        scene.desk.note(begun.id, size)
    assert scene.table.list_status()[0].bytes == 999
    assert 1 <= len(scene.posted) - before < 100
    assert isinstance(scene.posted[-1], UploadChanged)
    scene.desk.note("nobody's", 5)


def test_errors_know_their_values() -> None:
    for error in (OperationRefused("a"), StoreFull("b"), Unavailable("c")):
        found = UploadFailed.from_error(error).to_error()
        assert (type(found), str(found)) == (type(error), str(error))
    assert issubclass(StoreFull, ServingError)
