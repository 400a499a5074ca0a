"""A compiled servable: on the loop when that is quick, in a thread when it is not, and refusing what its guard says."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from serving.domain.batch import Batch
from serving.domain.compiled import Graph, Guard
from serving.domain.errors import DeadlineExceeded, InvalidInput, ModelFailed
from serving.domain.guard import GuardCheck
from serving.domain.signature import Dtype, Feature, Signature
from serving.host.compiling.convert import convert
from serving.host.describe import examine
from serving.servable import compiled
from serving.servable.compiled import CompiledEngine

ROWS = np.random.default_rng(7).normal(size=(50, 3))
MODEL = examine(LogisticRegression().fit(ROWS, np.where(ROWS[:, 0] > 0, "yes", "no")))
GRAPHS = [convert(MODEL)]


@pytest.fixture
def pool() -> Any:
    with ThreadPoolExecutor(1, "predictions") as pool:
        yield pool


def engine_of(pool: Any, guard: Guard | None = None) -> CompiledEngine:
    engine = CompiledEngine(GRAPHS, MODEL.signature, guard or Guard(), pool)
    engine.warm_up()
    return engine


def test_every_method_answers_as_the_estimator_does(pool: Any) -> None:
    engine = engine_of(pool)
    batch = Batch(50, matrix=ROWS.copy())
    for method in MODEL.signature.methods:
        wanted = getattr(MODEL.estimator, method)(ROWS)
        for answer in (engine.answer_now(method, batch), asyncio.run(engine.predict(method, batch, 5.0))):
            assert answer is not None
            if method == "predict":
                assert answer.tensors == (wanted.tolist(),)
            else:
                np.testing.assert_allclose(answer.tensors[0], wanted, rtol=1e-6)


def test_few_rows_are_answered_on_the_loop_and_many_in_a_thread(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(pool)
    engine._inline_rows["predict"] = 10
    threads: list[str] = []
    session = engine._sessions["predict"]
    answer = session.answer

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return answer(*arguments)

    monkeypatch.setattr(session, "answer", noted)
    assert engine.answer_now("predict", Batch(11, matrix=ROWS[:11].copy())) is None
    for rows in (10, 11):
        asyncio.run(engine.predict("predict", Batch(rows, matrix=ROWS[:rows].copy()), 5.0))
    assert threads == ["MainThread", "predictions_0"]


def test_the_bound_follows_from_what_was_measured(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row in 50 us and 64 in 50 + 63 * 4 us leave room for 51 rows within 250 us; a slow graph gets none."""
    engine = engine_of(pool)
    monkeypatch.setattr(compiled, "_seconds", lambda *arguments: 50e-6 + (arguments[-1] - 1) * 4e-6)
    engine.warm_up()
    assert engine._inline_rows["predict"] == 51
    monkeypatch.setattr(compiled, "_seconds", lambda *arguments: 300e-6 * arguments[-1])
    engine.warm_up()
    assert engine._inline_rows["predict"] == 0


def test_an_answer_that_takes_too_long_is_given_up(pool: Any) -> None:
    engine = engine_of(pool)
    engine._inline_rows["predict"] = 0
    gate = threading.Event()
    pool.submit(gate.wait)  # the only thread is busy
    try:
        with pytest.raises(DeadlineExceeded, match=r"server\.predict_seconds"):
            asyncio.run(engine.predict("predict", Batch(1, matrix=ROWS[:1].copy()), 0.05))
    finally:
        gate.set()


def test_the_guard_comes_first_both_ways(pool: Any) -> None:
    engine = engine_of(pool, Guard(largest=1e9))
    engine.warm_up()
    batch = Batch(1, matrix=np.array([[0.0, 2e9, 0.0]]))
    with pytest.raises(InvalidInput, match=r"row 0: 'x1' is 2e\+09, the model takes at most 1e\+09"):
        engine.answer_now("predict", batch)
    with pytest.raises(InvalidInput):
        asyncio.run(engine.predict("predict", batch, 5.0))


def test_many_rows_are_guarded_where_they_are_computed(pool: Any) -> None:
    """Not on the event loop: looking at every cell takes a while."""
    engine = engine_of(pool, Guard(largest=1e9))
    engine.warm_up()
    many = np.zeros((1_000_000, 3))
    many[999_999, 1] = 2e9
    batch = Batch(len(many), matrix=many)
    assert engine.answer_now("predict", batch) is None
    with pytest.raises(InvalidInput, match="row 999999: 'x1'"):
        asyncio.run(engine.predict("predict", batch, 5.0))


def test_closing_frees_the_graphs_in_a_thread(pool: Any) -> None:
    engine = engine_of(pool)
    asyncio.run(engine.close())
    assert not engine._sessions


def test_bytes_that_are_no_graph_are_refused(pool: Any) -> None:
    with pytest.raises(ModelFailed, match="onnxruntime does not take the graph"):
        CompiledEngine([Graph(b"no graph", {"predict": ("y",)})], MODEL.signature, Guard(), pool)


# --- guards -----------------------------------------------------------------------------------------------------------

MIXED = Signature(
    features=(Feature(name="kind", dtype=Dtype.STRING, nullable=True), Feature(name="size", nullable=True)),
    methods=("predict",),
)


@pytest.mark.parametrize(
    ("guard", "kinds", "sizes", "reason"),
    [
        (Guard(known={0: ("a", "b")}), ["a", "c"], [1.0, 1.0], "row 1: 'kind' is 'c', which the model does not know"),
        (Guard(known={0: ("a", "b")}), ["a", None], [1.0, 1.0], None),
        (Guard(smallest=0.0), ["a", "a"], [0.0, -1.0], "row 1: 'size' is -1, the model takes at least 0"),
        (Guard(largest=5.0), ["a", "a"], [5.0, -5.5], "row 1: 'size' is -5.5, the model takes at least -5"),
        (Guard(largest=5.0), ["a", "a"], [float("nan"), 6.0], "row 1: 'size' is 6, the model takes at most 5"),
        (Guard(largest=5.0), ["a", "a"], [float("nan"), 5.0], None),
        (Guard(known={1: (1.0, 2.0)}), ["a", "a"], [1.0, float("nan")], None),
        (Guard(known={1: (1.0, 2.0)}), ["a", "a"], [1.0, 3.0], "row 1: 'size' is 3.0, which the model does not know"),
    ],
)
def test_a_guard_names_the_cell_at_fault(
    guard: Guard, kinds: list[str | None], sizes: list[float], reason: str | None
) -> None:
    batch = Batch(2, columns=(kinds, np.array(sizes)))
    check = GuardCheck(guard, MIXED)
    if reason is None:
        check.check(batch)
    else:
        with pytest.raises(InvalidInput) as caught:
            check.check(batch)
        assert str(caught.value) == reason


@pytest.mark.parametrize("is_nullable", [False, True])
@pytest.mark.parametrize("cell", [6.0, -6.0])
@pytest.mark.parametrize("rows", [1, 2, 70])
def test_rows_of_numbers_are_held_to_the_same(rows: int, cell: float, is_nullable: bool) -> None:
    features = tuple(Feature(name=name, nullable=is_nullable) for name in "ab")
    check = GuardCheck(Guard(largest=5.0), Signature(features=features, methods=("predict",)))

    def last(*cells: float) -> Batch:
        return Batch(rows, matrix=np.array([[5.0, -5.0]] * (rows - 1) + [cells]))

    check.check(last(5.0, -5.0))
    with pytest.raises(InvalidInput, match=rf"row {rows - 1}: 'b' is -?6"):
        check.check(last(0.0, cell))
    if is_nullable:
        check.check(last(np.nan, 0.0))
        with pytest.raises(InvalidInput, match=rf"row {rows - 1}: 'b' is -?6"):
            check.check(last(np.nan, cell))


def test_a_busy_interpreter_does_not_make_a_graph_seem_slow(pool: Any) -> None:
    """A version is warmed up beside a loop that is answering: what it waits for the lock is not its cost."""
    is_over = threading.Event()

    def spin() -> None:
        while not is_over.is_set():
            sum(range(1000))

    others = [threading.Thread(target=spin)]
    for other in others:
        other.start()
    try:
        engine = engine_of(pool)
    finally:
        is_over.set()
        for other in others:
            other.join()
    assert min(engine._inline_rows.values()) > 10
