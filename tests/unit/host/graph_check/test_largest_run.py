"""The run of graphs in the checker: as many rows as fit in memory and time, with values of all magnitudes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from serving.domain.compiled_form import MOST_ROWS, PIECE_SECONDS, Graph, Guard, RunBounds
from serving.domain.errors import GraphRefused
from serving.domain.signature import Dtype, Feature, Signature
from serving.host.graph_check import largest_run
from serving.host.graph_check.graph_check import bound_graphs, check_graphs
from serving.host.graph_check.largest_run import LargestRun
from tests.unit.host.graph_check.graphs import constant, graph_of, model, node, signature

DOUBLED = graph_of(model([node("Mul", "X factor", "y")], [constant("factor", [2.0])]))


def measure_graph(graph: Graph = DOUBLED, guard: Guard | None = None, **bounds: Any) -> RunBounds:
    """Return the measured bounds of a graph; `bounds` replace those of the analysis."""
    bounded = bound_graphs([graph], signature())
    return LargestRun([graph], signature(), guard or Guard()).measure_bounds(
        bounded.bounds.model_copy(update=bounds), bounded.steps
    )


def test_the_run_has_as_many_rows_as_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LargestRun, "_time_answer", lambda *_: 1e-5)  # this machine may be busy
    assert check_graphs([DOUBLED], signature(), Guard(), most_rows=100).bounds.rows == 100
    assert check_graphs([DOUBLED], signature(), Guard(), most_rows=1 << 40).bounds.rows == MOST_ROWS


def test_rows_are_fewer_when_a_piece_would_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row in 10 us and each further row in 100 us: 500 rows fit into 50 ms."""
    monkeypatch.setattr(LargestRun, "_measure_seconds", lambda *_: (1e-5, 1e-4))
    assert measure_graph().rows == 500


def test_the_time_of_tree_steps_is_a_lower_limit() -> None:
    bounded = bound_graphs([DOUBLED], signature())
    found = LargestRun([DOUBLED], signature(), Guard()).measure_bounds(bounded.bounds, steps=1_000_000)
    _, each = found.seconds["predict"]
    assert each == pytest.approx(1_000_000 * largest_run.STEP_SECONDS)
    assert found.rows == 1 + int((PIECE_SECONDS - found.seconds["predict"][0]) / each)


def test_the_time_of_the_slowest_magnitude_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def seconds(self: Any, session: Any, method: Any, batch: Any) -> float:
        largest = float(np.abs(batch.matrix).max())
        seen.append(largest)
        return 7e-6 if 0 < largest < 1e-300 else 2e-6

    monkeypatch.setattr(LargestRun, "_time_answer", seconds)
    monkeypatch.setattr(largest_run, "SWEEP_SECONDS", 600.0)  # for every magnitude, however busy this machine is
    assert measure_graph().seconds["predict"][0] == 7e-6
    assert min(filter(None, seen)) < 1e-310
    assert max(seen) > 1e300


def test_made_up_rows_pass_the_guard() -> None:
    features = (
        Feature(name="a"),
        Feature(name="b"),
        Feature(name="c", dtype=Dtype.STRING),
        Feature(name="d", dtype=Dtype.BOOL),
    )
    maker = largest_run._RowMaker(
        Signature(features=features, methods=("predict",)),
        Guard(smallest=0.0, largest=5.0, known={1: (1.0, 2.0), 2: ("x",)}),
    )
    for magnitude in (1.0, 1e-320, 1e308):
        numbers, known, texts, truths = maker.make_rows(70, magnitude).columns or ()
        assert 0 <= min(numbers) <= max(numbers) <= 5
        assert set(known) == {1.0, 2.0}
        assert set(texts) == {"x"}
        assert np.asarray(truths).dtype == np.bool_


def test_a_graph_that_fails_on_made_up_rows_is_refused() -> None:
    places = graph_of(
        model(
            [node("Cast", "X", "i", to=7), node("Gather", "table i", "g"), node("Squeeze", "g axis", "y")],
            [constant("table", [1.0]), constant("axis", [-1])],
        )
    )
    with pytest.raises(GraphRefused, match="does not answer 1 made-up rows"):
        measure_graph(places)


def test_bytes_that_onnxruntime_refuses_are_refused() -> None:
    with pytest.raises(GraphRefused, match="onnxruntime does not take the graph"):
        LargestRun([Graph(b"no graph", {"predict": ("y",)})], signature(), Guard())


LIMITED = """
import resource, sys
import numpy as np
from serving.host.graph_check.largest_run import SLACK_BYTES, _limit_memory
mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 30), mapped + (1 << 30)))
with _limit_memory(8 << 20):
    np.ones(1 << 20)  # 8 MB
    try:
        np.ones(SLACK_BYTES >> 2)
    except MemoryError:
        print("refused", end=" ")
np.ones(SLACK_BYTES >> 2)
print("and given back")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
def test_memory_is_limited_during_the_run() -> None:
    said = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True).stdout
    assert said == "refused and given back\n"


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
def test_a_graph_that_takes_more_memory_than_its_bounds_is_refused() -> None:
    """The analysis is wrong here: it does not know of 1.6 MB for each row."""
    code = """
import resource
import numpy as np
from serving.domain.errors import GraphRefused
from tests.unit.host.graph_check.graphs import constant, graph_of, model, node
from tests.unit.host.graph_check.test_largest_run import measure_graph
constants = [constant("row", np.ones((1, 200_000))), constant("axis", [1])]
wide = model([node("MatMul", "X row", "w"), node("ReduceMax", "w axis", "y")], constants)
mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + (2 << 30), mapped + (2 << 30)))
try:
    print(measure_graph(graph_of(wide), rows=200, row_bytes=0, fixed_bytes=0))
except GraphRefused as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "in the memory that its shapes say" in said
