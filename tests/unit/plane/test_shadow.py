"""A shadow answers copies in quiet moments only: bounded, never waited for, and gone with its split."""

from __future__ import annotations

import asyncio
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from serving.domain.answer_pair import AnswerPair, OutputPair
from serving.domain.errors import InvalidInput, ModelFailed, Overloaded
from serving.domain.plan import Split
from serving.domain.rollout import BadExample
from serving.domain.signature import Signature
from serving.plane import shadow as shadows
from serving.plane.active_reference import ActiveReference, ModelReference
from serving.plane.prediction import Answer, PredictRequest, RequestLimits
from serving.plane.request_copy import RequestCopy
from serving.plane.served_split import ServedSplit
from serving.plane.shadow import NOT_FINITE, Shadow
from serving.rows.batch import Prediction
from tests.fakes import FakeEngine, make_servable, run
from tests.unit.plane.host_stub import rows, until

ROW = [5.1, 3.5, 1.4, 0.2]
SAME = AnswerPair(False, False, (OutputPair("predict", 0, 1, 0),))
OTHER = AnswerPair(False, False, (OutputPair("predict", 0, 1, 1),))


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, no copy becomes too old, unless a test says when."""
    monkeypatch.setattr(shadows, "MOST_WAIT_SECONDS", 60.0)


class Counts:
    """Lists what is counted."""

    def __init__(self) -> None:
        self.pairs: list[tuple[bytes | None, AnswerPair]] = []
        self.dropped = 0
        self.examples: list[BadExample] = []

    def count_pair(self, model: str, number: int, key: bytes | None, pair: AnswerPair) -> None:
        assert (model, number) == ("iris", 7)
        self.pairs.append((key, pair))

    def count_dropped(self, model: str, number: int, copies: int) -> None:
        assert (model, number) == ("iris", 7)
        self.dropped += copies

    def note_bad_answer(self, model: str, number: int, example: BadExample) -> None:
        assert (model, number) == ("iris", 7)
        self.examples.append(example)


class Scene:
    """A model whose version 2 is the shadow of version 1. Both tell irises apart, unless `engine` has another rule."""

    def __init__(self, sticky: str | None = None) -> None:
        self.engine = FakeEngine()
        self.old, self.new = make_servable("iris", "1"), make_servable("iris", "2", self.engine)
        self.state: Any = SimpleNamespace()
        self.split = self.begin_split(7, sticky)
        self.counts = Counts()
        self.shadow = Shadow(self.state, RequestLimits(), self.counts, describe)

    def begin_split(self, number: int, sticky: str | None = None) -> ServedSplit:
        split = Split(number=number, new=self.new.id, old=self.old.id, share=0.0, is_shadow=True, sticky=sticky)
        served = ServedSplit(split, self.new, self.old)
        self.publish(served)
        return served

    def publish(self, split: ServedSplit | None) -> None:
        model = ModelReference(self.old, MappingProxyType({"1": self.old, "2": self.new}), split)
        self.state.active = ActiveReference(MappingProxyType({"iris": model}))

    def copy(self, label: int | None = 0, key: bytes | None = None, nbytes: int = 100, row: Any = ROW) -> RequestCopy:
        """Make a copy that the old version has answered with `label`; None: it has refused it."""
        answer = None
        if label is not None:
            answer = Answer("iris", "1", "predict", 1, Prediction((np.array([label]),)), False)

        def read(_: Signature) -> PredictRequest:
            return PredictRequest([row])

        return RequestCopy(self.split, read, False, nbytes, answer, key)

    async def wait_until_ended(self) -> None:
        """Wait until no copy waits and nothing is computed."""
        await asyncio.sleep(0)  # what was offered is taken
        await until(lambda: not self.shadow._by_model)


def describe(error: Exception, split: ServedSplit) -> BadExample:
    assert split.new.id.version == "2"
    return BadExample(status=500, detail=type(error).__name__)


def test_pairs_are_compared_in_a_quiet_moment_and_counted() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.shadow.offer(scene.copy(0))
        scene.shadow.offer(scene.copy(2, key=b"ada"))
        assert not scene.engine.batches
        await scene.wait_until_ended()
        assert scene.counts.pairs == [(None, SAME), (b"ada", OTHER)]
        assert (scene.counts.dropped, scene.new.leases) == (0, 0)
        assert scene.new.find_spread() != scene.old.find_spread()

    run(scenario())


@pytest.mark.parametrize(
    ("error", "label", "pair", "examples"),
    [
        (ModelFailed("no"), 0, AnswerPair(True, False), ["ModelFailed"]),
        (InvalidInput("no"), 0, AnswerPair(True, False), ["InvalidInput"]),
        (ZeroDivisionError(), 0, AnswerPair(True, False), ["ZeroDivisionError"]),
        (InvalidInput("no"), None, AnswerPair(True, True), []),
        (None, None, AnswerPair(False, True), []),
    ],
)
def test_failures_count_for_the_side_that_fails(
    error: Exception | None, label: int | None, pair: AnswerPair, examples: list[str]
) -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.engine.error = error
        scene.shadow.offer(scene.copy(label))
        await scene.wait_until_ended()
        assert scene.counts.pairs == [(None, pair)]
        assert [example.detail for example in scene.counts.examples] == examples

    run(scenario())


def test_rows_that_only_the_new_version_does_not_take_are_a_failure_of_it() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.shadow.offer(scene.copy(row=[1.0]))
        await scene.wait_until_ended()
        assert scene.counts.pairs == [(None, AnswerPair(True, False))]

    run(scenario())


def test_a_number_that_is_not_finite_is_a_failure_too() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.engine.rule = lambda _, batch: np.full((batch.rows, 3), np.nan)
        copy = scene.copy()
        assert copy.answer is not None
        answer = copy.answer._replace(method="predict_proba", prediction=Prediction((np.full((1, 3), 0.3),)))
        scene.shadow.offer(copy._replace(answer=answer, read=lambda _: PredictRequest([ROW], "predict_proba")))
        await scene.wait_until_ended()
        ((_, pair),) = scene.counts.pairs
        assert (pair.is_new_bad, pair.is_old_bad, scene.counts.examples) == (True, False, [NOT_FINITE])

    run(scenario())


def test_nothing_is_computed_while_a_request_waits_for_its_answer() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.shadow.under_way = 1
        scene.shadow.offer(scene.copy())
        await wait_rounds(scene)
        assert not scene.engine.batches
        scene.shadow.under_way = 0
        await scene.wait_until_ended()
        assert scene.counts.pairs == [(None, SAME)]

    run(scenario())


def test_nothing_is_computed_while_one_request_comes_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.shadow.offer(scene.copy())
        looks = 0

        async def ask(seconds: float) -> None:  # a request in each moment that might have been quiet
            nonlocal looks
            scene.shadow.asked += 1
            looks += 1
            await sleep(seconds if looks < 20 else 30)

        sleep = asyncio.sleep
        with monkeypatch.context() as patch:
            patch.setattr(shadows.asyncio, "sleep", ask)
            async with asyncio.timeout(20):
                while looks < 20:
                    await sleep(0.001)
        assert not scene.engine.batches

    run(scenario())


async def wait_rounds(scene: Scene, rounds: int = 5) -> None:
    """Let a shadow look for a quiet moment some times."""
    for _ in range(rounds):
        await asyncio.sleep(shadows.MOST_PAUSE_SECONDS + shadows.QUIET_SECONDS)
    assert scene.shadow._by_model


def test_a_request_that_comes_meanwhile_goes_first() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.engine.gate = asyncio.Event()
        for _ in range(3):
            scene.shadow.offer(scene.copy())
        await until(lambda: scene.engine.batches)
        scene.shadow.under_way = 1
        scene.engine.gate.set()
        await until(lambda: scene.counts.pairs)
        await wait_rounds(scene)
        assert len(scene.engine.batches) == 1
        scene.shadow.under_way = 0
        await scene.wait_until_ended()
        assert len(scene.counts.pairs) == 3

    run(scenario())


def test_copies_without_room_are_dropped_and_counted() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.shadow.offer(scene.copy(nbytes=shadows.MOST_BYTES + 1))
        await until(lambda: scene.counts.dropped == 1)
        scene.shadow.offer(scene.copy(nbytes=shadows.MOST_BYTES - 8))
        scene.shadow.offer(scene.copy())
        await scene.wait_until_ended()
        assert scene.counts.dropped == 2
        for _ in range(shadows.MOST_COPIES + 3):
            assert scene.shadow.has_room(scene.split)
            scene.shadow.offer(scene.copy())
        await asyncio.sleep(0)
        for _ in range(5):
            assert not scene.shadow.has_room(scene.split)
        await scene.wait_until_ended()
        assert scene.counts.dropped == 10
        assert len(scene.counts.pairs) == 1 + shadows.MOST_COPIES

    run(scenario())


def test_a_copy_that_is_being_answered_takes_no_room_any_more() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.engine.gate = asyncio.Event()
        for _ in range(2):
            scene.shadow.offer(scene.copy(nbytes=shadows.MOST_BYTES - 8))
            await until(lambda: scene.engine.batches)
        scene.engine.gate.set()
        await scene.wait_until_ended()
        assert (scene.counts.dropped, len(scene.counts.pairs)) == (0, 2)

    run(scenario())


def test_a_copy_that_waits_holds_no_rows_of_its_answer() -> None:
    copy = Scene().copy()
    assert copy.answer is not None
    held = copy._replace(answer=copy.answer._replace(batch=rows(1.0))).without_views()
    assert held.answer is not None
    assert held.answer.batch is None
    assert copy._replace(answer=None).without_views().answer is None


def test_large_answers_take_room_too() -> None:
    async def scenario() -> None:
        scene = Scene()
        copy = scene.copy()
        assert copy.answer is not None
        large = copy.answer._replace(prediction=Prediction((np.zeros((1, shadows.MOST_BYTES // 8)),)))
        scene.shadow.offer(copy._replace(answer=large))
        await until(lambda: scene.counts.dropped == 1)

    run(scenario())


def test_a_copy_that_has_waited_too_long_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "MOST_WAIT_SECONDS", 0.02)

    async def scenario() -> None:
        scene = Scene()
        scene.shadow.under_way = 1
        scene.shadow.offer(scene.copy())
        await scene.wait_until_ended()
        assert (scene.counts.dropped, scene.counts.pairs) == (1, [])

    run(scenario())


def test_a_copy_that_the_new_version_is_too_busy_for_says_nothing_about_it() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.engine.error = Overloaded("busy")
        scene.shadow.offer(scene.copy())
        await scene.wait_until_ended()
        assert (scene.counts.dropped, scene.counts.pairs) == (1, [])

    run(scenario())


def test_a_new_version_that_hangs_is_let_go_when_its_split_ends() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.engine.gate = asyncio.Event()
        scene.shadow.offer(scene.copy())
        scene.shadow.offer(scene.copy())
        await until(lambda: scene.new.leases)
        scene.publish(None)
        await scene.new.drain()
        await scene.wait_until_ended()
        assert (scene.counts.dropped, scene.counts.pairs, len(scene.engine.batches)) == (0, [], 1)

    run(scenario())


@pytest.mark.parametrize("ends", ["gone", "canary", "number"])
def test_copies_of_a_split_that_has_ended_are_not_answered(ends: str) -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.shadow.offer(scene.copy())
        if ends == "gone":
            scene.state.active = ActiveReference()
        elif ends == "number":
            scene.begin_split(8)
        else:
            scene.publish(ServedSplit(Split(7, scene.new.id, scene.old.id, 0.5), scene.new, scene.old))
        await scene.wait_until_ended()
        assert (scene.engine.batches, scene.counts.pairs) == ([], [])

    run(scenario())


def test_a_new_split_has_a_shadow_of_its_own_at_once() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.split = scene.begin_split(6)
        scene.engine.gate = asyncio.Event()
        scene.shadow.offer(scene.copy())
        await until(lambda: scene.new.leases)
        scene.split = scene.begin_split(7)
        scene.shadow.offer(scene.copy())
        scene.engine.gate.set()
        scene.counts.pairs.clear()
        await until(lambda: scene.counts.pairs)

    run(scenario())


def test_the_client_is_found_in_the_rows_where_they_say_it() -> None:
    async def scenario() -> None:
        scene = Scene("field:x1")
        for error in (None, ModelFailed("no")):
            scene.engine.error = error
            scene.shadow.offer(scene.copy())
            await scene.wait_until_ended()
        assert [key for key, _ in scene.counts.pairs] == [b"3.5", b"3.5"]

    run(scenario())


def test_an_error_of_the_shadow_itself_reaches_nobody() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.shadow.offer(None)  # type: ignore[arg-type]
        scene.counts.count_pair = None  # type: ignore[assignment, method-assign]
        scene.shadow.offer(scene.copy())
        await scene.wait_until_ended()
        del scene.counts.count_pair
        scene.shadow.offer(scene.copy())
        await until(lambda: scene.counts.pairs)
        assert scene.new.leases == 0

    run(scenario())


def test_small_answers_do_not_hold_the_batch_that_they_were_computed_in() -> None:
    async def scenario() -> None:
        scene = Scene()
        copy = scene.copy()
        assert copy.answer is not None
        batch = np.zeros(1000, np.int64)
        scene.shadow.offer(copy._replace(answer=copy.answer._replace(prediction=Prediction((batch[:1],)))))
        await asyncio.sleep(0)
        batch[0] = 2
        await scene.wait_until_ended()
        assert scene.counts.pairs == [(None, SAME)]

    run(scenario())
