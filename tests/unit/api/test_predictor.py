"""The one way in for predictions, under a protocol that only takes notes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from serving.api.access import AccessRefused
from serving.api.dialect import Call, Refusal, Written
from serving.api.incoming import AnsweredCall, RefusedCall
from serving.api.inflight import Share
from serving.domain.errors import DeadlineExceeded, InvalidInput, ModelFailed, UnknownModel
from serving.plane.prediction import PredictRequest
from serving.settings import TokenScope
from tests.fakes import FakeEngine, make_app, make_model_status, make_reference, make_servable, make_status, run

ROW = [5.1, 3.5, 1.4, 0.2]
BYTES = 100


class Note:
    """A request of no protocol: what is done with it is noted, in order."""

    def __init__(self, rows: list[Any], model: str = "iris", refused: Exception | None = None) -> None:
        self.rows = rows
        self.refused = refused
        self.names: Mapping[str, str] = {"model": model}
        self.left: float | None = None
        self.steps: list[str] = []
        self.share: Share | None = None

    def check(self, scope: TokenScope) -> None:
        assert scope is TokenScope.PREDICT
        self.steps.append("check")
        if self.refused is not None:
            raise self.refused

    async def receive(self, share: Share) -> int:
        self.steps.append("receive")
        self.share = share
        share.take(BYTES)
        return BYTES

    def target(self) -> tuple[str | None, None]:
        self.steps.append("target")
        return self.names["model"], None

    def parse(self) -> Call:
        self.steps.append("parse")
        return Call(lambda _: PredictRequest(self.rows), self.write)

    def write(self, answer: Any, _: Any) -> Written:
        self.steps.append("write")
        return Written(repr(answer.prediction.list_rows()).encode())

    def seconds_left(self) -> float | None:
        return self.left

    def sharpen(self, error: Exception) -> Exception:
        self.steps.append("sharpen")
        return error

    def refuse(self, refusal: Refusal) -> tuple[int, str]:
        self.steps.append("refuse")
        return refusal.status + 1, f"{type(refusal.error).__name__}: {refusal.detail}"


def test_a_request_is_read_answered_and_written_in_this_order_and_counted_once() -> None:
    servable = make_servable("iris", "3")
    services = make_app(make_reference(iris=servable)).state.services
    note = Note([ROW, ROW])
    assert run(services.predictor.answer(note)) == AnsweredCall(Written(b"[0, 0]"), "iris", "3")
    assert note.steps == ["receive", "target", "parse", "write"]
    traffic = services.metrics.traffic("iris", "3")
    assert (traffic.statuses, traffic.rows) == ({200: 1}, 2)
    assert (servable.leases, services.inflight.used_bytes) == (0, 0)


def test_a_client_without_the_token_is_refused_before_anything_is_read() -> None:
    services = make_app(security={"predict_token": "predicts"}).state.services
    note = Note([ROW], refused=AccessRefused(TokenScope.PREDICT, 401, "send a token"))
    refused = run(services.predictor.answer(note))
    assert isinstance(refused, RefusedCall)
    assert note.steps == ["check", "sharpen", "refuse"]
    assert refused.reply == "AccessRefused: send a token"
    assert isinstance(run(services.predictor.answer(Note([ROW]))), AnsweredCall)


def test_a_client_needs_no_token_where_predictions_are_open() -> None:
    note = Note([ROW], refused=AccessRefused(TokenScope.PREDICT, 401, "send a token"))
    assert isinstance(run(make_app().state.services.predictor.answer(note)), AnsweredCall)


@pytest.mark.parametrize(
    ("error", "status"),
    [(InvalidInput("no"), 422), (ModelFailed("no"), 500), (DeadlineExceeded("no"), 504), (ZeroDivisionError(), 500)],
)
def test_a_failure_has_the_status_of_its_protocol_and_counts_for_the_version_that_failed(
    error: Exception, status: int
) -> None:
    engine = FakeEngine()
    engine.error = error
    servable = make_servable("iris", "3", engine)
    services = make_app(make_reference(iris=servable)).state.services
    refused = run(services.predictor.answer(Note([ROW])))
    assert isinstance(refused, RefusedCall)
    assert (refused.status, refused.model, refused.version) == (status + 1, "iris", "3")
    assert services.metrics.traffic("iris", "3").statuses == {status + 1: 1}
    assert (servable.leases, services.inflight.used_bytes) == (0, 0)


def test_what_reaches_no_version_counts_for_none_and_is_explained() -> None:
    services = make_app(make_reference(), make_status(make_model_status())).state.services
    refused = run(services.predictor.answer(Note([ROW])))
    assert isinstance(refused, RefusedCall)
    assert refused.reply == "NothingActive: 'iris' has no active version yet; GET /models/iris says why"
    assert services.metrics.traffic("", "").statuses == {504: 1}
    refused = run(services.predictor.answer(Note([ROW], "other")))
    assert isinstance(refused, RefusedCall)
    assert refused.reply.startswith(UnknownModel.__name__)


def test_the_shorter_deadline_counts() -> None:
    engine = FakeEngine()
    services = make_app(make_reference(iris=make_servable("iris", "3", engine))).state.services
    for left, expected in ((None, 30.0), (2.5, 2.5), (60.0, 30.0), (-1.0, 0.0)):
        note = Note([ROW])
        note.left = left
        run(services.predictor.answer(note))
        assert engine.deadline_seconds == expected


def test_a_body_counts_among_those_in_memory_until_it_is_answered() -> None:
    engine = FakeEngine()
    services = make_app(make_reference(iris=make_servable("iris", "3", engine))).state.services

    async def scenario() -> None:
        engine.gate = asyncio.Event()
        asking = asyncio.create_task(services.predictor.answer(Note([ROW])))
        while not engine.batches:
            await asyncio.sleep(0)
        assert services.inflight.used_bytes == BYTES
        engine.gate.set()
        await asking
        assert services.inflight.used_bytes == 0

    run(scenario())


def test_a_model_that_the_caller_holds_answers_and_is_counted_too() -> None:
    engine = FakeEngine()
    servable = make_servable("iris", "3", engine)
    services = make_app().state.services
    answer = run(services.predictor.answer_held(servable, [ROW], "predict_proba"))
    assert (answer.method, answer.version) == ("predict_proba", "3")
    engine.error = ModelFailed("no")
    with pytest.raises(ModelFailed):
        run(services.predictor.answer_held(servable, [ROW], None))
    traffic = services.metrics.traffic("iris", "3")
    assert (traffic.statuses, traffic.rows) == ({200: 1, 500: 1}, 1)
