"""The life of one host: evaluate one candidate, then serve it until the socket ends."""

from __future__ import annotations

import mmap
import os
import socket
import threading

import orjson

from serving.domain.errors import InvalidInput, ModelFailed, ProtocolError
from serving.domain.report import CandidateReport, GateResult
from serving.host import sandbox
from serving.host.evaluation import EvaluationRequest
from serving.host.gates import run_gates
from serving.host.model import LoadedModel
from serving.host.protocol import (
    ARENA_BYTES,
    Frame,
    Kind,
    decode_batch,
    encode_tensors,
)
from serving.host.stream import receive_frame, send_frame


def main(socket_fd: int, arena_fd: int) -> int:
    """Run in a freshly forked process; returns its exit status.

    The candidate is loaded and checked in a thread of low priority; requests are answered by this thread, which has
    kept the normal one.
    """
    sandbox.silence_output()
    os.chdir("/")
    sock = socket.socket(fileno=socket_fd)
    arena = memoryview(mmap.mmap(arena_fd, ARENA_BYTES))
    os.close(arena_fd)
    first = receive_frame(sock)
    if first is None:
        return 0
    request = EvaluationRequest.model_validate_json(bytes(first.header))
    sandbox.limit_memory(request.memory_bytes)
    model = _evaluate_in_thread(sock, request)
    if model is None:
        return 0
    serve(sock, model, arena)
    return 0


def _evaluate_in_thread(sock: socket.socket, request: EvaluationRequest) -> LoadedModel | None:
    outcome: list[tuple[CandidateReport, LoadedModel | None]] = []

    def run() -> None:
        sandbox.lower_priority_of_this_thread()
        outcome.append(run_gates(request, started, finished))

    def started(gate: str) -> None:
        send_frame(sock, Kind.GATE_STARTED, 0, orjson.dumps({"gate": gate}))

    def finished(result: GateResult) -> None:
        send_frame(sock, Kind.GATE_RESULT, 0, result.model_dump_json().encode())

    thread = threading.Thread(target=run, name="evaluation", daemon=True)
    thread.start()
    thread.join()
    if not outcome:
        return None
    report, model = outcome[0]
    sandbox.give_back_memory()
    send_frame(sock, Kind.REPORT, 0, report.model_dump_json().encode())
    return model


def serve(sock: socket.socket, model: LoadedModel, arena: memoryview | None = None) -> None:
    """Answer PREDICT frames one after another until the socket ends."""
    while True:
        frame = receive_frame(sock, arena)
        if frame is None:
            return
        if frame.kind is not Kind.PREDICT:
            raise ProtocolError(f"a serving host does not take {frame.kind.name}")
        _answer(sock, model, frame)


def _answer(sock: socket.socket, model: LoadedModel, frame: Frame) -> None:
    try:
        method, batch = decode_batch(frame.header, frame.payload)
        prediction = model.answer(method, batch)
        descriptions, buffers = encode_tensors(prediction.tensors)
    except InvalidInput as error:
        send_frame(sock, Kind.REFUSAL, frame.request_id, orjson.dumps({"detail": str(error)}))
    except (ModelFailed, MemoryError, TypeError) as error:
        detail = str(error) if isinstance(error, ModelFailed) else f"{type(error).__name__}: {error}"
        send_frame(sock, Kind.FAILURE, frame.request_id, orjson.dumps({"detail": detail}))
    else:
        header = orjson.dumps({"tensors": descriptions})
        send_frame(sock, Kind.PREDICTION, frame.request_id, header, buffers)
