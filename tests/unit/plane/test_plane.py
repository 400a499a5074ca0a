"""The plane carries out what control says: it loads, prepares, commits and unloads, and tells what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from serving.domain.errors import ModelFailed, Unavailable
from serving.domain.plan import (
    Commit,
    Compiled,
    Drained,
    Draining,
    Fact,
    Hosted,
    HostGone,
    Load,
    Loaded,
    LoadFailed,
    Plan,
    Prepare,
    ReplaceHost,
    ReportOutage,
    Route,
    Unload,
)
from serving.domain.version import VersionId
from serving.plane import plane as planes
from serving.plane.active_reference import ActiveReference, Label, find, lease, read
from serving.plane.plane import Plane
from tests.fakes import NUMBERS, FakeEngine
from tests.unit.domain.test_plan import BOUNDS

ONE, TWO = VersionId("m", "1", "sha256:00"), VersionId("m", "2", "sha256:11")
HOSTED = Hosted(NUMBERS, "sklearn", 8)


class Engine(FakeEngine):
    """A hosted engine without processes."""

    def __init__(self, name: str, on_lost: Callable[[Any], None], *, max_batch_rows: int) -> None:
        super().__init__()
        self.name, self.max_batch_rows, self.on_lost = name, max_batch_rows, on_lost
        self.host, self.violation, self.has_answered = 0, None, False
        self.processes: list[Any] = []
        self.outages: list[Exception] = []
        self.is_closed = False

    async def attach(self, process: Any, host: int) -> None:
        if isinstance(process, OSError):
            raise process
        self.processes.append(process)
        self.host = host

    def report_outage(self, error: Exception) -> None:
        self.outages.append(error)

    def expect_no_host(self, error: Exception) -> None:
        self.outages.append(error)

    async def close(self) -> None:
        self.is_closed = True


class Scene:
    """A plane on the running loop, what it publishes and what it tells."""

    def __init__(self) -> None:
        self.state: Any = SimpleNamespace(active=ActiveReference())
        self.facts: list[Fact] = []
        self.plane = Plane(self.state, asyncio.get_running_loop(), None, self.facts.append)  # type: ignore[arg-type]
        self._plan = Plan()

    async def load(self, key: VersionId, process: Any = "a host", host: int = 1) -> Loaded | LoadFailed:
        return await asyncio.to_thread(self.plane.load, Load(key, HOSTED, host), process)

    async def replace_host(self, key: VersionId, process: Any, host: int) -> Loaded | LoadFailed:
        return await asyncio.to_thread(self.plane.replace_host, ReplaceHost(key, host), process)

    def commit(self, active: VersionId | None, *loaded: VersionId) -> None:
        self._plan = self._plan.with_route("m", Route(active, loaded))
        self.plane.prepare(Prepare(self._plan))
        self.plane.commit(Commit(self._plan.generation))

    def engine(self, version: str) -> Any:
        return find(self.state, "m", version).engine


def run(scenario: Callable[[Scene], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planes, "HostedEngine", Engine)

    async def play() -> None:
        await scenario(Scene())

    asyncio.run(play())


@asynccontextmanager
async def told(scene: Scene) -> AsyncIterator[None]:
    """Wait for one more fact at the end."""
    before = len(scene.facts)
    yield
    while len(scene.facts) == before:
        await asyncio.sleep(0)


def test_what_is_prepared_answers_when_it_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(scene: Scene) -> None:
        assert await scene.load(ONE) == Loaded(ONE)
        assert await scene.load(TWO) == Loaded(TWO)
        scene.commit(ONE, ONE)
        plan = scene._plan.with_route("m", Route(TWO, (TWO, ONE)))
        scene.plane.prepare(Prepare(plan))
        assert find(scene.state, "m").id == ONE, "prepared is not committed"
        scene.plane.commit(Commit(plan.generation))
        assert find(scene.state, "m").id == TWO
        assert list(scene.state.active.models["m"].loaded) == ["1", "2"], "in the order in which they were last active"
        assert (scene.engine("1").name, scene.engine("1").max_batch_rows) == ("sklearn", 8)

    run(scenario, monkeypatch)


def test_labels_answer_with_what_the_plan_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(scene: Scene) -> None:
        for key in (ONE, TWO):
            await scene.load(key)
        route = Route(TWO, (TWO, ONE), labels=(("old", ONE), ("coming", None)))
        plan = scene._plan.with_route("m", route)
        scene.plane.prepare(Prepare(plan))
        scene.plane.commit(Commit(plan.generation))
        assert find(scene.state, "m", Label("old")).id == ONE
        with pytest.raises(Unavailable):
            find(scene.state, "m", Label("coming"))

    run(scenario, monkeypatch)


def test_a_plan_that_names_what_is_not_loaded_is_never_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready before visible."""

    async def scenario(scene: Scene) -> None:
        await scene.load(ONE)
        scene.commit(ONE, ONE)
        with pytest.raises(KeyError):
            scene.plane.prepare(Prepare(scene._plan.with_route("m", Route(TWO, (TWO, ONE)))))
        assert find(scene.state, "m").id == ONE

    run(scenario, monkeypatch)


def test_a_model_whose_route_stays_keeps_its_part_of_the_next_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.load(ONE)
        scene.commit(ONE, ONE)
        before = scene.state.active
        plan = scene._plan.with_route("n", Route())
        scene.plane.prepare(Prepare(plan))
        scene.plane.commit(Commit(plan.generation))
        after = scene.state.active
        assert set(before.models) == {"m"}, "the reference is replaced and never changed"
        assert after.models["m"] is before.models["m"]
        assert after.models["n"].active is None
        with pytest.raises(TypeError):
            after.models["x"] = after.models["m"]

    run(scenario, monkeypatch)


def test_a_version_is_freed_when_its_last_request_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.load(ONE)
        await scene.load(TWO)
        scene.commit(ONE, ONE)
        held, engine = lease(scene.state, "m"), scene.engine("1")
        scene.commit(TWO, TWO)
        async with told(scene):
            assert scene.plane.unload(Unload(ONE)) == Draining(ONE, 1)
            for _ in range(10):
                await asyncio.sleep(0)
            assert not engine.is_closed
            assert not scene.facts
            held.release()
        assert engine.is_closed
        assert scene.facts == [Drained(ONE)]

    run(scenario, monkeypatch)


def test_the_same_bytes_may_be_loaded_again_while_they_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.load(ONE)
        scene.commit(ONE, ONE)
        held, old = lease(scene.state, "m"), scene.engine("1")
        scene.commit(None)
        scene.plane.unload(Unload(ONE))
        await scene.load(ONE)
        scene.commit(ONE, ONE)
        assert scene.engine("1") is not old
        async with told(scene):
            held.release()
        assert (old.is_closed, scene.engine("1").is_closed) == (True, False)

    run(scenario, monkeypatch)


def test_another_host_takes_the_place_of_the_one_there_was(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.load(ONE, "first", 1)
        scene.commit(ONE, ONE)
        engine = scene.engine("1")
        engine.violation = "broke the protocol"
        engine.on_lost(engine)
        assert scene.facts == [HostGone(ONE, 1, "broke the protocol", has_answered=False)]
        assert await scene.replace_host(ONE, "second", 2) == Loaded(ONE)
        assert scene.engine("1") is engine
        assert engine.processes == ["first", "second"]
        engine.on_lost(engine)
        assert scene.facts[-1].host == 2  # type: ignore[union-attr]

    run(scenario, monkeypatch)


def test_a_host_that_comes_when_its_version_is_unloaded_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded of the same bytes later must not be answered by the engine that was closed."""

    async def scenario(scene: Scene) -> None:
        await scene.load(ONE)
        scene.commit(ONE, ONE)
        old = scene.engine("1")
        scene.commit(None)
        async with told(scene):
            scene.plane.unload(Unload(ONE))
        assert await scene.replace_host(ONE, "late", 2) == LoadFailed(ONE, "the version is not loaded any more")
        await scene.load(ONE, "new", 3)
        scene.commit(ONE, ONE)
        assert scene.engine("1") is not old
        assert (old.processes, scene.engine("1").processes) == (["a host"], ["new"])

    run(scenario, monkeypatch)


def test_a_host_that_comes_when_its_version_is_loaded_again_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end would be told with a number that is lower than that of the host control knows: no other would come."""

    async def scenario(scene: Scene) -> None:
        await scene.load(ONE, "first", 1)
        scene.commit(ONE, ONE)
        scene.commit(None)
        scene.plane.unload(Unload(ONE))
        await scene.load(ONE, "new", 3)
        scene.commit(ONE, ONE)
        late = await scene.replace_host(ONE, "late", 2)
        assert late == LoadFailed(ONE, "the version has been loaded again since, with another host")
        assert (scene.engine("1").processes, scene.engine("1").host) == (["new"], 3)

    run(scenario, monkeypatch)


def test_a_host_that_cannot_be_connected_leaves_the_version_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.load(ONE)
        failed = await scene.replace_host(ONE, OSError("no socket"), 2)
        assert failed == LoadFailed(ONE, "the host could not be connected: no socket")
        scene.commit(ONE, ONE)
        assert find(scene.state, "m").id == ONE

    run(scenario, monkeypatch)


def test_what_cannot_be_loaded_says_why_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(scene: Scene) -> None:
        failed = await scene.load(ONE, OSError("no socket"))
        assert failed == LoadFailed(ONE, "the host could not be connected: no socket")

        class Broken:
            def __init__(self, *_: Any) -> None:
                raise ModelFailed("onnxruntime does not take the graph")

        monkeypatch.setattr(planes, "CompiledEngine", Broken)
        compiled: Any = Compiled(NUMBERS, (), None, BOUNDS)  # type: ignore[arg-type]
        failed = await asyncio.to_thread(scene.plane.load, Load(TWO, compiled))
        assert failed == LoadFailed(TWO, "onnxruntime does not take the graph")
        for key in (ONE, TWO):
            with pytest.raises(KeyError):
                scene.plane.unload(Unload(key))

    run(scenario, monkeypatch)


def test_those_who_wait_for_a_host_are_told_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.load(ONE)
        scene.commit(ONE, ONE)
        scene.plane.report_outage(ReportOutage(TWO, "not loaded: nobody waits", 1))
        scene.plane.report_outage(ReportOutage(ONE, "no memory", 7))
        await asyncio.sleep(0)
        (error,) = scene.engine("1").outages
        assert (str(error), error.retry_after_seconds) == ("no memory", 7)

    run(scenario, monkeypatch)


def test_those_who_wait_for_the_host_of_a_version_that_is_unloaded_are_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.load(ONE)
        await scene.load(TWO)
        scene.commit(ONE, ONE)
        engine = scene.engine("1")
        scene.commit(TWO, TWO)
        async with told(scene):
            scene.plane.unload(Unload(ONE))
        (error,) = engine.outages
        assert str(error) == "version '1' is not served any more, and its process has ended; try again"

    run(scenario, monkeypatch)


def test_what_goes_wrong_while_a_version_is_freed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.load(ONE)
        scene.commit(ONE, ONE)

        async def fail() -> None:
            raise OSError("busy")

        scene.engine("1").close = fail
        scene.commit(None)
        async with told(scene):
            scene.plane.unload(Unload(ONE))
        assert scene.facts == [Drained(ONE, "OSError('busy')")]

    run(scenario, monkeypatch)


def test_what_control_has_committed_and_not_told_answers_when_another_control_takes_over() -> None:
    """Control may die between the word and its message."""

    async def scenario() -> None:
        state: Any = SimpleNamespace()
        word, loop = [0], asyncio.get_running_loop()
        before = Plane(state, loop, None, lambda _: None, word)  # type: ignore[arg-type]
        before.prepare(Prepare(Plan(1, {"m": Route(None, ())})))
        word[0] = 1
        after = Plane(state, loop, None, lambda _: None, word, takes_over=True)  # type: ignore[arg-type]
        assert "m" in read(state).models
        assert before.is_answering
        after.prepare(Prepare(Plan(3, {"n": Route(None, ())})))
        assert "m" in read(state).models
        word[0] = 3
        assert "n" in read(state).models

    asyncio.run(scenario())
