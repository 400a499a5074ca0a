"""Prove that a graph gives the estimator's answers and is faster. Runs in the process of a `ForkedWorker`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from serving.compiling.drawing import NotCompilable
from serving.compiling.find_guard import ProvableModel, find_guard
from serving.compiling.landmarks import find_landmarks
from serving.compiling.number_limits import find_number_limit
from serving.compiling.proof_rows import RowMaker
from serving.compiling.prover import Prover
from serving.compiling.thresholds import find_thresholds
from serving.domain.compiled_form import MOST_ROWS, Compilation, Graph, Guard, ProvenRows
from serving.domain.errors import InvalidInput
from serving.host.estimator_model import EstimatorModel
from serving.rows.apply_guard import GuardCheck
from serving.rows.batch import Batch

BATCH_ROWS = 256
# for many rows the graph may be this many times slower than the estimator: the way to a host costs more
BATCH_SLACK = 1.25
LEAST_ROWS = 256
PROOF_SECONDS = 1.0
TIMED_SECONDS, MOST_TIMED = 0.005, 15


def prove_graphs(
    model: ProvableModel,
    graphs: Sequence[Graph],
    tolerance: float,
    examples: Sequence[Batch],
    most_rows: int = MOST_ROWS,
) -> Compilation:
    """Return the proof that `graphs` together answer every method of `model` alike, and faster.

    No run of a graph has more than `most_rows` rows, as in service. `examples` are golden rows. Labels must be equal on
    all rows, other numbers within ``tolerance * max(|x|, s)`` where `s` is 1, or the largest of the first numbers seen
    when all are smaller. Raises NotCompilable with the first difference, or with the measured times when the graph is
    not faster.
    """
    prover = Prover(model, graphs, tolerance, most_rows)
    guard = find_guard(model)
    thresholds, landmarks = _find_jumps_and_landmarks(model)
    maker = RowMaker(model, guard, thresholds, examples, landmarks)
    rows = _choose_row_count(model, maker)
    times = _measure_both(prover, maker)
    tried: Counter[str] = Counter()
    for kind, batch in maker.make_batches(rows):
        prover.note_overflow(prover.compare_answers(kind, batch))
        tried[kind] += batch.rows
    guard = guard.model_copy(update={"largest": find_number_limit(prover, maker, rows, tried)})
    _require_examples_pass(guard, model, examples)
    return Compilation(
        engine="onnx",
        reason=f"answers alike on {sum(tried.values())} rows and {times[0][0] / times[0][1]:.3g} times as fast",
        rows=tuple(ProvenRows(kind=kind, rows=rows) for kind, rows in tried.items()),
        guard=guard,
        largest_difference=prover.largest_difference,
        row_seconds=times[0],
        batch_seconds=times[1],
        batch_rows=BATCH_ROWS,
        most_rows=min(prover.largest_rows, most_rows),
        graph_bytes=sum(len(graph.content) for graph in graphs),
    )


def _find_jumps_and_landmarks(model: ProvableModel) -> tuple[dict[int, Any], Any]:
    """Return where the model's answers may jump, by column, and the rows it stores."""
    if not isinstance(model, EstimatorModel):
        return {}, None  # the nodes of a file are not converted, so there is nothing to look for
    try:
        columns = len(model.columns)
        return find_thresholds(model.estimator, columns), find_landmarks(model.estimator, columns)
    except Exception:  # noqa: BLE001  (attributes may be anything; the other kinds of rows remain)
        return {}, None


def _require_examples_pass(guard: Guard, model: ProvableModel, examples: Sequence[Batch]) -> None:
    guard_check = GuardCheck(guard, model.signature)
    for batch in examples:
        try:
            guard_check.check(batch)
        except InvalidInput as error:
            raise NotCompilable(f"the proof does not cover the golden examples: {error}") from None


def _choose_row_count(model: ProvableModel, maker: RowMaker) -> int:
    """Return how many rows of a kind to try: about as many as the estimator answers in a second."""
    begin = time.thread_time()
    for method in model.signature.methods:
        try:
            model.answer(method, maker.make_plausible(64))
        except InvalidInput as error:
            raise NotCompilable(f"the estimator refuses made-up rows: {error}") from None
    seconds = (time.thread_time() - begin) / 64
    return int(min(MOST_ROWS, max(LEAST_ROWS, PROOF_SECONDS / 4 / seconds)))


def _measure_both(prover: Prover, maker: RowMaker) -> list[tuple[float, float]]:
    """Return how long the estimator and the graph take for one row and for many.

    Raises NotCompilable when the graph is not faster for one row, or clearly slower for many.
    """
    model, method = prover.model, prover.model.signature.default_method
    session = prover.sessions[method]
    times = []
    for count, slack in ((1, 1.0), (BATCH_ROWS, BATCH_SLACK)):
        batch = maker.make_plausible(count)
        own = _measure_median_seconds(lambda: model.answer(method, batch))  # noqa: B023  (called before the next turn)
        compiled = _measure_median_seconds(lambda: session.answer(method, batch))  # noqa: B023
        if compiled >= own * slack and isinstance(model, EstimatorModel):  # a file is the same graph in its host
            measured = f"{compiled * 1e6:.0f} us compiled, in {own * 1e6:.0f} us by the estimator"
            raise NotCompilable(f"not faster: {count} row{'s' * (count > 1)} in {measured}")
        times.append((own, compiled))
    return times


def _measure_median_seconds(answer: Callable[[], Any]) -> float:
    """Return the median time of an answer: at least three, more while they are quick.

    It is the CPU time of this thread: a host compiles at low priority, and on a busy machine the clock would count the
    time in which it had to wait.
    """
    times: list[float] = []
    answer()
    begin = time.thread_time()
    while len(times) < 3 or (time.thread_time() - begin < TIMED_SECONDS and len(times) < MOST_TIMED):
        start = time.thread_time()
        answer()
        times.append(time.thread_time() - start)
    return median(times)
