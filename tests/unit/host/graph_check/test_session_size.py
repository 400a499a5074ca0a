"""What a compiled form takes in a process: counted, and little more than that stays in the process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from serving import allocator
from serving.host.graph_check import session_size
from serving.host.graph_check.session_size import open_sessions
from serving.plane.graph import LARGE_BYTES
from tests.unit.host.graph_check.graphs import constant, graph_of, model, node

PLAIN = graph_of(model([node("Mul", "X factor", "y")], [constant("factor", [2.0])]))
LARGE = graph_of(model([node("Mul", "X factor", "y")], [constant("factor", [[2.0] * 4_000_000])]))
GROWTH = """
import pathlib
import numpy as np
from sklearn.ensemble import ExtraTreesRegressor
from serving.allocator import return_freed_memory
from serving.compiling.convert import convert_estimator
from serving.host.graph_check.graph_check import bound_graphs
from serving.host.graph_check.session_size import open_sessions
from serving.host.signature_of_estimator import examine_estimator

dice = np.random.default_rng(0)
model = examine_estimator(ExtraTreesRegressor(20, random_state=0).fit(dice.random((4000, 5)), dice.random(4000)))
graphs = bound_graphs([convert_estimator(model)], model.signature).graphs

def resident():
    lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Rss"))

open_sessions(graphs)
return_freed_memory()
before = resident()
sessions, counted = open_sessions(graphs)
print(counted, resident() - before, sum(len(graph.content) for graph in graphs))
"""


def test_what_is_in_the_graph_is_counted() -> None:
    _, small = open_sessions([PLAIN])
    _, large = open_sessions([LARGE])
    assert small < 1 << 20, "what onnxruntime needs once in each process does not count"
    assert 32_000_000 <= large < 40_000_000


def test_a_session_does_not_keep_the_bytes_that_it_was_opened_with() -> None:
    """In a worker they are a copy of what lies in shared memory."""
    _, size = open_sessions([replace(LARGE, content=memoryview(LARGE.content))])
    assert size < 40_000_000


def test_graphs_of_one_version_are_counted_together() -> None:
    sessions, size = open_sessions([LARGE, LARGE])
    assert len(sessions) == 2
    assert size >= 2 * 32_000_000


def test_it_is_estimated_where_the_c_library_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_size, "count_allocated_bytes", lambda: None)
    _, size = open_sessions([LARGE])
    assert size == session_size.SESSION_BYTES + session_size.SESSION_GROWTH * len(LARGE.content)


def test_another_c_library_than_glibc_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_count", None)
    monkeypatch.setattr(allocator, "_trim", None)
    allocator.return_freed_memory()
    assert allocator.count_allocated_bytes() is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and counts by glibc")
def test_opening_a_large_graph_leaves_little_more_than_what_is_counted() -> None:
    """Without giving memory back it is four times as much, and the bytes of the graph would stay, too."""
    done: Any = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    counted, grown, graph = map(int, done.stdout.split())
    assert graph > LARGE_BYTES, "large enough for memory to be given back"
    assert graph < counted
    assert 0.7 * counted < grown < 1.3 * counted
