"""The checker process: a child of the zygote that opens no model file, checks the graphs of one version and ends.

It enters the same sandbox as a host, without files to read. It imports onnxruntime after that, because onnxruntime
starts a thread, and before the graphs arrive, because the import takes 40 ms while another process still draws them.
"""

from __future__ import annotations

import os
import socket

from serving import json_codec, sandbox
from serving.domain.compiled_form import Graph
from serving.domain.errors import GraphRefused, ProtocolError
from serving.host.graph_check.graph_check import CheckedGraphs, check_graphs
from serving.wire.frames import Frame, FrameKind
from serving.wire.graph_requests import CheckerRequest, CheckRequest
from serving.wire.stream import receive_frame, send_frame


def main(sock: socket.socket, first: Frame) -> int:
    """Run the checker in a newly forked process whose first frame was CHECKER; return its exit status."""
    request = CheckerRequest.model_validate_json(bytes(first.header))
    parent = os.getppid()
    sandbox.move_into(request.scratch)
    held = sandbox.enter([], request.scratch, request.memory_bytes, parent)
    sandbox.forbid_processes(held)
    sandbox.lower_priority_of_this_thread()
    send_frame(sock, FrameKind.CHECKER_READY, 0, held.model_dump_json().encode())
    from serving.host.graph_check import largest_run  # noqa: F401, PLC0415  (onnxruntime starts a thread)

    frame = receive_frame(sock)
    if frame is None:
        return 0
    if frame.kind is not FrameKind.CHECK:
        raise ProtocolError(f"a checker does not take {frame.kind.name}")
    try:
        checked = _check_frame(frame)
    except GraphRefused as error:
        send_frame(sock, FrameKind.REFUSAL, 0, json_codec.dumps({"detail": str(error)}))
    else:
        header = {
            "bounds": checked.bounds.model_dump(mode="json"),
            "bytes": [len(graph.content) for graph in checked.graphs],
        }
        send_frame(sock, FrameKind.CHECKED, 0, json_codec.dumps(header), [graph.content for graph in checked.graphs])
    return 0


def _check_frame(frame: Frame) -> CheckedGraphs:
    request = CheckRequest.model_validate_json(bytes(frame.header))
    graphs, start = [], 0
    for outputs, size in request.graphs:
        graphs.append(Graph(frame.payload[start : start + size], outputs))
        start += size
    return check_graphs(graphs, request.signature, request.guard, request.most_rows)
