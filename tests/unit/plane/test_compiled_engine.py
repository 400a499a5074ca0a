"""A compiled servable: on the loop when that is quick, piece by piece in threads when not, and bounded in both ways."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from serving.compiling.convert import convert_estimator
from serving.domain.compiled_form import PIECE_BYTES, Graph, Guard
from serving.domain.errors import DeadlineExceeded, InvalidInput, ModelFailed
from serving.domain.signature import Dtype, Feature, Signature
from serving.host.graph_check.graph_check import check_graphs
from serving.host.signature_of_estimator import examine_estimator
from serving.plane import compiled_engine
from serving.plane.compiled_engine import CompiledEngine
from serving.plane.fair_turns import Turns
from serving.rows.apply_guard import GuardCheck
from serving.rows.batch import Batch
from tests.unit.host.graph_check.graphs import graph_of, model, node, signature

ROWS = np.random.default_rng(7).normal(size=(50, 3))
MODEL = examine_estimator(LogisticRegression().fit(ROWS, np.where(ROWS[:, 0] > 0, "yes", "no")))
GRAPHS, BOUNDS = check_graphs([convert_estimator(MODEL)], MODEL.signature, Guard(), most_rows=4096)


@pytest.fixture
def turns() -> Iterator[Turns]:
    with ThreadPoolExecutor(2, "predictions") as pool:
        yield Turns(pool, 2)


def engine_of(turns: Turns, guard: Guard | None = None, **bounds: Any) -> CompiledEngine:
    changed = BOUNDS.model_copy(update=bounds)
    engine = CompiledEngine(GRAPHS, MODEL.signature, guard or Guard(), changed, turns)
    engine.warm_up()
    return engine


def in_threads(engine: CompiledEngine) -> CompiledEngine:
    """Return the engine made to answer nothing on the loop."""
    engine._inline_rows = dict.fromkeys(engine._inline_rows, 0)
    return engine


def on_loop(engine: CompiledEngine) -> CompiledEngine:
    """Return the engine made to answer on the loop what it may, however slow this machine is."""
    engine._inline_rows = dict.fromkeys(engine._inline_rows, BOUNDS.rows)
    return engine


class Runs:
    """What a session ran: the rows of each run, and in which thread."""

    def __init__(self, engine: CompiledEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        self.threads: set[str] = set()
        session = engine._sessions["predict"]
        run = session._run

        def noted(outputs: Any, feed: Any, options: Any) -> Any:
            self.rows.append(len(next(iter(feed.values()))))
            self.threads.add(threading.current_thread().name.partition("_")[0])
            return run(outputs, feed, options)

        monkeypatch.setattr(session, "_run", noted)


def test_every_method_answers_as_the_estimator_does(turns: Turns) -> None:
    batch = Batch(50, matrix=ROWS.copy())
    for method in MODEL.signature.methods:
        wanted = getattr(MODEL.estimator, method)(ROWS)
        inline, threaded = on_loop(engine_of(turns)), in_threads(engine_of(turns, rows=7))
        for answer in (inline.answer_now(method, batch), asyncio.run(threaded.predict(method, batch, 30.0))):
            assert answer is not None
            if method == "predict":
                assert answer.tensors == (wanted.tolist(),)
            else:
                np.testing.assert_allclose(answer.tensors[0], wanted, rtol=1e-6)


def test_few_rows_are_answered_on_the_loop_and_many_in_a_thread(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(turns)
    engine._inline_rows["predict"] = 10
    assert engine.answer_now("predict", Batch(11, matrix=ROWS[:11].copy())) is None
    for rows, thread in ((10, "MainThread"), (11, "predictions")):
        runs = Runs(engine, monkeypatch)
        asyncio.run(engine.predict("predict", Batch(rows, matrix=ROWS[:rows].copy()), 30.0))
        assert runs.threads == {thread}


def test_the_bound_follows_from_what_was_measured(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row in 50 us and 64 in 50 + 63 * 4 us leave room for 51 rows within 250 us; a slow graph gets none."""
    engine = engine_of(turns, seconds=dict.fromkeys(MODEL.signature.methods, (0.0, 0.0)))
    monkeypatch.setattr(compiled_engine, "_measure_seconds", lambda *arguments: 50e-6 + (arguments[-1] - 1) * 4e-6)
    engine.warm_up()
    assert engine._inline_rows["predict"] == 51
    monkeypatch.setattr(compiled_engine, "_measure_seconds", lambda *arguments: 300e-6 * arguments[-1])
    engine.warm_up()
    assert engine._inline_rows["predict"] == 0


@pytest.mark.parametrize(("seconds", "rows"), [((50e-6, 20e-6), 11), ((300e-6, 1e-6), 0)])
def test_the_slowest_values_that_the_checker_tried_count_more_than_ordinary_ones(
    turns: Turns, seconds: tuple[float, float], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_engine, "_measure_seconds", lambda *_: 1e-6)
    engine = engine_of(turns, seconds=dict.fromkeys(MODEL.signature.methods, seconds))
    assert engine._inline_rows["predict"] == rows


def test_no_run_has_more_rows_than_were_tried(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(turns, rows=20)
    runs = Runs(engine, monkeypatch)
    asyncio.run(engine.predict("predict", Batch(50, matrix=ROWS.copy()), 30.0))
    assert runs.rows == [20, 20, 10]
    assert max(engine._inline_rows.values()) <= 20


def test_no_run_takes_more_memory_than_a_piece_may(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = in_threads(engine_of(turns, row_bytes=PIECE_BYTES // 16, fixed_bytes=PIECE_BYTES // 8))
    runs = Runs(engine, monkeypatch)
    asyncio.run(engine.predict("predict", Batch(50, matrix=ROWS.copy()), 30.0))
    assert runs.rows == [14, 14, 14, 8]


def test_an_answer_that_no_memory_is_given_to_is_refused_before_anything_runs(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = in_threads(engine_of(turns, answer_bytes=dict.fromkeys(MODEL.signature.methods, 10 << 20)))
    runs = Runs(engine, monkeypatch)
    with pytest.raises(InvalidInput, match=r"50 rows could take 500 MB, .* send at most 25 rows at once"):
        asyncio.run(engine.predict("predict", Batch(50, matrix=ROWS.copy()), 30.0))
    assert runs.rows == []


def test_an_answer_that_takes_too_long_is_given_up(turns: Turns) -> None:
    engine = in_threads(engine_of(turns))
    gate = threading.Event()
    for _ in range(2):
        turns.executor.submit(gate.wait)  # all threads are busy
    try:
        with pytest.raises(DeadlineExceeded, match=r"server\.predict_seconds"):
            asyncio.run(engine.predict("predict", Batch(1, matrix=ROWS[:1].copy()), 0.05))
    finally:
        gate.set()


def test_the_guard_comes_first_both_ways(turns: Turns) -> None:
    batch = Batch(1, matrix=np.array([[0.0, 2e9, 0.0]]))
    with pytest.raises(InvalidInput, match=r"row 0: 'x1' is 2e\+09, the model takes at most 1e\+09"):
        on_loop(engine_of(turns, Guard(largest=1e9))).answer_now("predict", batch)
    with pytest.raises(InvalidInput):
        asyncio.run(in_threads(engine_of(turns, Guard(largest=1e9))).predict("predict", batch, 30.0))


def test_many_rows_are_guarded_where_they_are_computed_and_named_by_their_place_in_the_request(turns: Turns) -> None:
    """Not on the event loop: looking at every cell takes a while."""
    engine = engine_of(turns, Guard(largest=1e9))
    many = np.zeros((1_000_000, 3))
    many[999_999, 1] = 2e9
    batch = Batch(len(many), matrix=many)
    assert engine.answer_now("predict", batch) is None
    with pytest.raises(InvalidInput, match="row 999999: 'x1'"):
        asyncio.run(engine.predict("predict", batch, 30.0))


def test_closing_frees_the_graphs_when_the_last_piece_is_done(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = in_threads(engine_of(turns))
    is_under_way, may_end = threading.Event(), threading.Event()
    session = engine._sessions["predict"]
    run = session._run

    def slow(*arguments: Any) -> Any:
        is_under_way.set()
        may_end.wait()
        return run(*arguments)

    monkeypatch.setattr(session, "_run", slow)

    async def close_while_it_computes() -> None:
        answering = asyncio.create_task(engine.predict("predict", Batch(1, matrix=ROWS[:1].copy()), 30.0))
        await asyncio.to_thread(is_under_way.wait)
        answering.cancel()  # whoever asked is gone; what was begun goes on
        closing = asyncio.create_task(engine.close())
        await asyncio.wait([answering])
        assert not closing.done()
        assert engine._sessions
        may_end.set()
        await closing

    asyncio.run(close_while_it_computes())
    assert not engine._sessions


def test_bytes_that_are_no_graph_are_refused(turns: Turns) -> None:
    with pytest.raises(ModelFailed, match="onnxruntime does not take the graph"):
        CompiledEngine([Graph(b"no graph", {"predict": ("y",)})], MODEL.signature, Guard(), BOUNDS, turns)


# --- texts ------------------------------------------------------------------------------------------------------------

WORDS = signature(2, texts=True, outputs=2)
SIDE_BY_SIDE = graph_of(model([node("Concat", "c0 c1", "y", axis=1)], width=2, texts=True))
WORD_GRAPHS, WORD_BOUNDS = check_graphs([SIDE_BY_SIDE], WORDS, Guard(), most_rows=4096)


def words_engine(turns: Turns) -> CompiledEngine:
    engine = CompiledEngine(WORD_GRAPHS, WORDS, Guard(), WORD_BOUNDS, turns)
    engine.warm_up()
    return engine


def words(*texts: str) -> Batch:
    return Batch(len(texts), columns=(list(texts), ["c"] * len(texts)))


def test_long_texts_are_not_answered_on_the_loop(turns: Turns) -> None:
    engine = on_loop(words_engine(turns))
    assert engine.answer_now("predict", words("short", "x")) is not None
    long = words("x" * (compiled_engine.INLINE_CHARACTERS + 1))
    assert engine.answer_now("predict", long) is None
    assert asyncio.run(engine.predict("predict", long, 30.0)).tensors == ([[long.columns[0][0], "c"]],)


def test_what_long_texts_take_makes_pieces_smaller(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = words_engine(turns)
    session, rows = engine._sessions["predict"], []
    run = session._run
    monkeypatch.setattr(
        session, "_run", lambda outputs, feed, options: rows.append(len(feed["c0"])) or run(outputs, feed, options)
    )
    batch = words(*["x"] * 7, "y" * 1_000_000)
    answer = asyncio.run(engine.predict("predict", batch, 30.0))
    assert [row[0] for row in answer.tensors[0]] == batch.columns[0]
    most = WORD_BOUNDS.rows_within(PIECE_BYTES, 4_000_000)
    assert 1 <= most < 8
    assert max(rows) == most


def test_a_text_that_no_run_has_room_for_is_refused(turns: Turns) -> None:
    with pytest.raises(InvalidInput, match=r"a text of 17000000 characters takes more memory .* send shorter texts"):
        asyncio.run(words_engine(turns).predict("predict", words("x" * 17_000_000), 30.0))


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


def test_a_busy_interpreter_does_not_make_a_graph_seem_slow(turns: Turns) -> None:
    """A version is warmed up beside a loop that is answering: what it waits for the lock is not its cost."""
    is_over = threading.Event()

    def spin() -> None:
        while not is_over.is_set():
            sum(range(1000))

    others = [threading.Thread(target=spin)]
    for other in others:
        other.start()
    try:
        engine = engine_of(turns)
    finally:
        is_over.set()
        for other in others:
            other.join()
    assert min(engine._inline_rows.values()) > 10
