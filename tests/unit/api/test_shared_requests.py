"""A request while two versions share them: one of them answers, and what becomes of it counts once, for that one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from serving.api.access import AccessRefused
from serving.api.incoming import AnsweredCall, RefusedCall
from serving.api.rollout_traffic import SLOW
from serving.api.services import Services
from serving.domain.errors import DeadlineExceeded, HostLost, InvalidInput, ModelFailed
from serving.domain.plan import Split
from serving.domain.rollout import BadExample
from serving.plane.active_reference import ActiveReference
from serving.plane.served_split import ServedSplit
from serving.settings import TokenScope
from serving.telemetry.split_counts import SplitCount, SplitRow
from tests.fakes import FakeEngine, make_app, make_model_reference, make_servable, run
from tests.unit.api.test_predictor import ROW, Note

NUMBER = 7
STICKY = "header:X-User"


class Asking(Note):
    """A request of the client with this key, perhaps for one version."""

    def __init__(
        self,
        key: bytes | None = None,
        rows: Any = (ROW,),
        asked: str | None = None,
        refused: Exception | None = None,
    ) -> None:
        super().__init__([*rows], refused=refused)
        self.key, self.asked = key, asked

    def header(self, name: bytes) -> bytes | None:
        return self.key if name == b"x-user" else None

    def target(self) -> Any:
        return "iris", self.asked


class Scene:
    """Version 1 of ``iris`` is active, and version 2 has a share. The client ``old`` gets version 1, ``new`` 2."""

    def __init__(self, share: float = 0.5, settings: dict[str, Any] | None = None, **fields: Any) -> None:
        self.engine = FakeEngine()
        self.old, self.new = make_servable("iris", "1"), make_servable("iris", "2", self.engine)
        split = Split(NUMBER, self.new.id, self.old.id, share, **fields)
        self.split = ServedSplit(split, self.new, self.old)
        model = replace(make_model_reference(self.old, self.new), split=self.split)
        self.app = make_app(ActiveReference({"iris": model}), **({} if settings is None else settings))
        self.services: Services = self.app.state.services

    def key_of(self, version: str) -> bytes:
        """Return who is given this version."""
        keys = (b"%d" % number for number in range(1000))
        return next(key for key in keys if self.split.choose(key).id.version == version)

    def ask(self, version: str | None = None, **fields: Any) -> AnsweredCall | RefusedCall[str]:
        """Ask as a client that is given this version."""
        key = None if version is None else self.key_of(version)
        return run(self.services.predictor.answer(Asking(key, **fields)))

    def find(self, number: int) -> SplitCount:
        return self.services.metrics.read_splits().get(("iris", number), SplitRow()).answers

    @property
    def counted(self) -> SplitCount:
        return self.find(NUMBER)

    @property
    def examples(self) -> tuple[BadExample, ...]:
        return self.services.metrics.read_examples("iris", NUMBER)


def test_a_client_that_is_known_gets_its_version_and_counts_for_that_one() -> None:
    scene = Scene(sticky=STICKY)
    for version in ("1", "2", "2"):
        answered = scene.ask(version)
        assert isinstance(answered, AnsweredCall)
        assert answered.version == version
    assert scene.counted == SplitCount(new=2, old=1)
    assert (scene.old.leases, scene.new.leases) == (0, 0)


def test_a_client_without_the_header_gets_a_version_by_chance() -> None:
    scene = Scene(sticky=STICKY)
    versions = [scene.ask().version for _ in range(60)]
    assert {*versions} == {"1", "2"}
    assert scene.counted == SplitCount(new=versions.count("2"), old=versions.count("1"))


def test_a_client_may_be_known_by_a_column() -> None:
    scene = Scene(sticky="field:x0")
    values = [float(number) for number in range(20)]
    versions = [scene.ask(rows=[[value, 1.0, 1.0, 1.0]]).version for value in values]
    assert versions == [scene.split.choose(b"%.1f" % value).id.version for value in values]
    assert {*versions} == {"1", "2"}


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_request_that_names_a_version_gets_it_and_counts_for_nothing(version: str) -> None:
    scene = Scene()
    for _ in range(20):
        assert scene.ask(asked=version).version == version
    assert scene.counted == SplitCount()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInput("row 0: 'Bern' is 17.5"), 422),
        *((ModelFailed("no"), 500), (DeadlineExceeded("no"), 504), (HostLost("no"), 503), (ZeroDivisionError(), 500)),
    ],
)
def test_every_failure_of_the_version_is_bad_and_kept_without_a_value(error: Exception, status: int) -> None:
    scene = Scene(sticky=STICKY)
    scene.engine.error = error
    refused = scene.ask("2")
    assert isinstance(refused, RefusedCall)
    assert (refused.version, scene.counted) == ("2", SplitCount(new=1, new_bad=1, new_clients=1))
    (example,) = scene.examples
    assert example.status == status
    assert "Bern" not in example.detail
    assert "17.5" not in example.detail
    assert (scene.old.leases, scene.new.leases) == (0, 0)


def test_a_failure_of_the_old_version_counts_for_that_one_and_is_no_example() -> None:
    scene = Scene(sticky=STICKY)
    assert isinstance(scene.ask("1", rows=[[1.0]]), RefusedCall)
    assert (scene.counted, scene.examples) == (SplitCount(old=1, old_bad=1, old_clients=1), ())


def test_an_answer_that_takes_longer_than_is_fine_is_bad_and_arrives() -> None:
    scene = Scene(sticky=STICKY, slo_seconds=1e-9)
    assert isinstance(scene.ask("2"), AnsweredCall)
    assert scene.counted == SplitCount(new=1, new_bad=1, new_clients=1)
    assert scene.examples == (SLOW,)


def test_what_the_edge_refuses_counts_for_nothing() -> None:
    scene = Scene(sticky=STICKY, settings={"security": {"predict_token": "predicts"}})
    refused = AccessRefused(TokenScope.PREDICT, 401, "send a token")
    assert isinstance(scene.ask("2", refused=refused), RefusedCall)
    crowded = Scene(sticky=STICKY, settings={"server": {"max_queue": 1}})
    with crowded.new.lease():
        overloaded = crowded.ask("2")
    assert isinstance(overloaded, RefusedCall)
    assert overloaded.reply.startswith("Overloaded")
    large = Scene(sticky=STICKY, settings={"server": {"max_rows": 1}})
    assert isinstance(large.ask("2", rows=[ROW, ROW]), RefusedCall)
    assert (scene.counted, crowded.counted, large.counted) == (SplitCount(),) * 3


def test_a_queue_has_as_much_room_as_without_a_rollout() -> None:
    scene = Scene(sticky=STICKY, settings={"server": {"max_queue": 1}})
    assert isinstance(scene.ask("2"), AnsweredCall)
    assert isinstance(scene.ask("1"), AnsweredCall)


def test_an_answer_counts_in_the_split_in_which_it_was_asked_for() -> None:
    """It ends when requests are shared otherwise already: then it says nothing about that."""
    scene = Scene(sticky=STICKY)

    async def scenario() -> None:
        scene.engine.gate = asyncio.Event()
        asking = asyncio.create_task(scene.services.predictor.answer(Asking(scene.key_of("2"))))
        while not scene.engine.batches:
            await asyncio.sleep(0)
        scene.services.metrics.count_in_split("iris", NUMBER + 1, None, is_new=False, is_bad=False)
        scene.engine.gate.set()
        await asking

    run(scenario())
    assert scene.counted == SplitCount()
    assert scene.find(NUMBER + 1) == SplitCount(old=1)


def test_in_the_shadow_the_old_version_answers_and_nothing_is_counted_of_it_here() -> None:
    scene = Scene(0.0, sticky=STICKY, is_shadow=True)
    assert {scene.ask().version for _ in range(20)} == {"1"}
    assert scene.counted == SplitCount()
