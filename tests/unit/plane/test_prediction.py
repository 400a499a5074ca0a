"""The use case without HTTP: as an embedding application meets it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from serving.domain.errors import BodyTooLarge, InvalidInput, ModelFailed, NothingActive, Overloaded, UnknownModel
from serving.domain.signature import Method
from serving.plane.active_reference import ActiveReference
from serving.plane.prediction import (
    PredictRequest,
    RequestLimits,
    execute,
    execute_now,
    hold,
)
from serving.rows.batch import Batch, Prediction
from serving.rows.conversion import INLINE_ROWS, PIECE_ROWS, Piece
from serving.settings import Settings
from tests.fakes import FakeEngine, echo, make_reference, make_servable, run

ROW = [5.1, 3.5, 1.4, 0.2]
LIMITS = RequestLimits(max_rows=10_000, max_queue=2)


def state_with(**active: Any) -> Any:
    return SimpleNamespace(active=make_reference(**active))


def test_rows_are_answered_with_a_servable_somebody_holds() -> None:
    servable = make_servable("iris", "3")
    state = state_with(iris=servable)

    async def scenario() -> None:
        with hold(state, LIMITS, "iris") as held:
            assert held is servable
            first = await execute(held, PredictRequest([ROW]), LIMITS)
            state.active = make_reference(iris=make_servable("iris", "4"))
            second = await execute(held, PredictRequest([ROW], "predict_proba"), LIMITS)
            assert held.leases == 1
        assert (first.model, first.version, first.method, first.rows) == ("iris", "3", "predict", 1)
        assert (second.version, second.method) == ("3", "predict_proba")
        assert first.prediction.list_rows() == [0]

    run(scenario())
    assert servable.leases == 0


def test_several_methods_answer_the_same_batch_within_one_deadline() -> None:
    engine = FakeEngine()
    request = PredictRequest([ROW], "predict_proba", also=("predict",))
    answer = run(execute(make_servable("iris", "3", engine), request, LIMITS))
    assert [method for method, _ in answer.outputs] == ["predict_proba", "predict"]
    assert [len(prediction.list_rows()) for _, prediction in answer.outputs] == [1, 1]
    first, second = engine.batches
    assert first is second
    assert engine.deadline_seconds is not None
    assert engine.deadline_seconds < LIMITS.deadline_seconds


def test_a_further_method_the_model_does_not_offer_is_refused_before_anything_is_computed() -> None:
    engine = FakeEngine()
    with pytest.raises(InvalidInput, match="'transform'"):
        run(execute(make_servable("iris", "3", engine), PredictRequest([ROW], also=("transform",)), LIMITS))
    assert not engine.batches


def test_several_methods_are_answered_now_only_when_all_of_them_can_be() -> None:
    class Immediate(FakeEngine):
        def answer_now(self, method: Method, batch: Batch) -> Prediction | None:
            return Prediction((self.rule(method, batch),)) if method in quick else None  # type: ignore[arg-type]

    servable = make_servable("iris", "3", Immediate())
    request = PredictRequest([ROW], "predict", also=("predict_proba",))
    quick = {"predict"}
    assert execute_now(servable, request, LIMITS) is None
    quick.add("predict_proba")
    answer = execute_now(servable, request, LIMITS)
    assert answer is not None
    assert [method for method, _ in answer.outputs] == ["predict", "predict_proba"]


def test_many_rows_as_python_values_are_converted_off_the_loop() -> None:
    engine = FakeEngine(echo)
    servable = make_servable("iris", "3", engine)
    rows = [[float(index), 1, 2, 3] for index in range(INLINE_ROWS + 1)]
    answer = run(execute(servable, PredictRequest(rows), LIMITS))
    assert answer.prediction.list_rows() == [row[0] for row in rows]
    assert answer.rows == len(rows)
    rows[PIECE_ROWS + 5][2] = True
    with pytest.raises(InvalidInput, match=f"row {PIECE_ROWS + 5}, feature 'x2'"):
        run(execute(servable, PredictRequest(rows), LIMITS))


def test_a_row_of_another_kind_is_named_also_where_a_piece_begins() -> None:
    named = {"x0": 1, "x1": 2, "x2": 3, "x3": 4}
    rows = [ROW] * 2 * PIECE_ROWS + [named] * PIECE_ROWS
    with pytest.raises(InvalidInput, match="is an object, row 0 is an array"):
        run(execute(make_servable("iris", "3"), PredictRequest(rows), LIMITS))


def test_a_piece_that_is_a_matrix_is_of_arrays_and_asks_for_rows_only_where_it_must() -> None:
    servable = make_servable("iris", "3")
    numbers = Piece(lambda: pytest.fail("made rows"), np.array([ROW, ROW]))
    assert run(execute(servable, PredictRequest((numbers, Piece([ROW]), numbers)), LIMITS)).rows == 5
    named = Piece([{"x0": 1, "x1": 2, "x2": 3, "x3": 4}])
    with pytest.raises(InvalidInput, match="row 1 is an array, row 0 is an object"):
        run(execute(servable, PredictRequest((named, Piece(lambda: [ROW], np.array([ROW])))), LIMITS))


def test_pieces_without_a_row_are_not_rows() -> None:
    servable = make_servable("iris", "3")
    for pieces in ((), (Piece([]),)):
        with pytest.raises(InvalidInput, match="no rows"):
            run(execute(servable, PredictRequest(pieces), LIMITS))


def test_rows_of_arrays_and_scalars_of_numpy_are_not_json_rows() -> None:
    servable = make_servable("iris", "3")
    with pytest.raises(InvalidInput, match="row 0"):
        run(execute(servable, PredictRequest([np.zeros(4)]), LIMITS))


def test_limits_come_from_the_settings() -> None:
    settings = Settings.model_validate(
        {"server": {"max_rows": 1, "max_queue": 2, "predict_seconds": 3, "default_model": "m"}}
    )
    limits = RequestLimits.of(settings.server)
    assert limits == RequestLimits(1, 2, 3.0, "m")
    with pytest.raises(BodyTooLarge, match="2 rows"):
        run(execute(make_servable("m", "1"), PredictRequest([ROW, ROW]), limits))


def test_a_hold_is_refused_when_the_queue_is_full_and_leaves_no_lease_behind() -> None:
    servable = make_servable("iris", "3")
    state = state_with(iris=servable)
    with hold(state, LIMITS, "iris"), hold(state, LIMITS, "iris"):
        with pytest.raises(Overloaded, match="2 requests are waiting for 'iris'"):
            hold(state, LIMITS, "iris")
        assert servable.leases == 2
    with hold(state, LIMITS, "iris"):
        pass


def test_the_default_model_is_chosen_from_one_reading_of_the_reference() -> None:
    with hold(state_with(iris=make_servable("iris", "3")), LIMITS) as held:
        assert held.id.model == "iris"
    with pytest.raises(NothingActive, match="no model is active yet"):
        hold(SimpleNamespace(active=ActiveReference()), LIMITS)
    with pytest.raises(NothingActive, match="'iris' has no active version"):
        hold(state_with(iris=None), LIMITS)
    seven = {f"m{index}": make_servable(f"m{index}", "1") for index in range(7)}
    with pytest.raises(UnknownModel, match=r"7 models \(m0, m1, m2, m3, m4, \.\.\.\)"):
        hold(state_with(**seven), LIMITS)
    with pytest.raises(UnknownModel):
        hold(state_with(iris=make_servable("iris", "3")), LIMITS, "")  # an empty name is no default


def test_an_engine_that_fails_fails_its_own_request_only() -> None:
    engine = FakeEngine()
    servable = make_servable("iris", "3", engine)

    async def scenario() -> None:
        engine.error = ModelFailed("bad luck")
        with pytest.raises(ModelFailed):
            await execute(servable, PredictRequest([ROW]), LIMITS)
        engine.error = None
        assert (await execute(servable, PredictRequest([ROW]), LIMITS)).version == "3"

    run(scenario())


def test_a_long_method_name_is_shortened() -> None:
    with pytest.raises(InvalidInput) as caught:
        run(execute(make_servable("iris", "3"), PredictRequest([ROW], "x" * 10_000), LIMITS))
    assert len(str(caught.value)) < 200
