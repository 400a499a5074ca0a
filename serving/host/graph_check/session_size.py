"""Opens the sessions of one version and counts what they take: as much as in each process that will answer.

onnxruntime needs 1 to 2 MB in a process for whatever it opens first. So a graph with nothing in it is opened before.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto, helper

from serving.allocator import count_allocated_bytes
from serving.domain.compiled_form import Graph
from serving.plane.graph import GraphSession, open_session

SESSION_BYTES = 256 << 10
SESSION_GROWTH = 4  # 3.5 for large forests, 6 for regressors, less than 2 where there are no trees


def open_sessions(graphs: Sequence[Graph]) -> tuple[list[GraphSession], int]:
    """Return a session for each graph, and the bytes that they take together. Blocks; raises ModelFailed.

    No other thread may allocate memory meanwhile. Under another C library than glibc the bytes are an estimate.
    """
    open_session(_make_bare_graph())
    before = count_allocated_bytes()
    sessions = [GraphSession(graph) for graph in graphs]
    now = count_allocated_bytes()
    size = sum(len(graph.content) for graph in graphs)
    if before is None or now is None:
        return sessions, len(graphs) * SESSION_BYTES + size * SESSION_GROWTH
    return sessions, max(size, now - before)


def _make_bare_graph() -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 1]) for name in ("X", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["X"], ["y"])], "bare", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content
