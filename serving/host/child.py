"""The life of one host: evaluate one candidate, then serve it until the socket ends."""

from __future__ import annotations

import mmap
import os
import socket
import threading
from collections.abc import Sequence

from serving import json_codec, sandbox
from serving.domain.errors import InvalidInput, ModelFailed, ProtocolError
from serving.domain.last_words import FAILED, write_last_words
from serving.domain.report import GateName, GateResult, Verdict
from serving.host.gates import EvaluatedCandidate, make_preparation, run_gates
from serving.host.gates.compile_gate import start_compiler
from serving.host.gates.gate import GateContext
from serving.host.library_set import find_watch_exceptions
from serving.host.model import LoadedModel, describe_exception
from serving.host.replicas import Channel, await_replicas, fork_replicas, make_channels
from serving.wire.evaluation import EvaluationRequest
from serving.wire.frames import Frame, FrameKind
from serving.wire.payloads import decode_batch, encode_answer, encode_detail
from serving.wire.stream import FrameReader, receive_frame, send_frame


def main(fds: Sequence[int]) -> int:
    """Run in a freshly forked process; returns its exit status. `fds` are pairs: a socket and an arena per replica.

    The sandbox is entered before the candidate's file is opened. A thread of low priority loads and checks the
    candidate; this thread, of normal priority, answers requests. With more than one pair, replicas are forked after the
    candidate has passed: each of them also returns from this function, when its own socket has ended. If this code
    fails, it leaves the reason as last words.
    """
    parent = os.getppid()
    sandbox.silence_output()
    sandbox.close_all_but(fds)
    channels = make_channels(fds)
    last_words = [channels[0].end]
    try:
        return _evaluate_and_serve(channels, last_words, parent)
    except Exception as error:  # noqa: BLE001  (a host prints nothing: the server reports the reason)
        write_last_words(last_words[0], describe_exception(error), FAILED)
        return FAILED


def _evaluate_and_serve(channels: list[Channel], last_words: list[mmap.mmap], parent: int) -> int:
    """Evaluate the candidate, then serve it. `last_words` has one item, the memory for last words of this process."""
    sock = channels[0].socket
    first = receive_frame(sock)
    if first is None:
        return 0
    if first.kind is FrameKind.CHECKER:
        from serving.host.graph_check import checker_process  # noqa: PLC0415  (needs onnx; preloaded where that is)

        return checker_process.main(sock, first)
    request = EvaluationRequest.model_validate_json(bytes(first.header))
    sandbox.move_into(request.scratch)
    own_sandbox = sandbox.enter([file.path for file in request.files], request.scratch, request.memory_bytes, parent)

    def watch() -> None:
        may_fork, exceptions = len(channels) > 1, find_watch_exceptions()
        sandbox.watch(lambda words: write_last_words(last_words[0], words), may_fork=may_fork, exceptions=exceptions)

    def enter_compiler() -> None:
        for channel in channels:
            channel.close()
        sandbox.forbid_processes(own_sandbox)

    compiler = start_compiler(request, own_sandbox, enter_compiler, watch)
    sandbox.forbid_processes(own_sandbox, [compiler.pid] if compiler else [], may_fork=len(channels) > 1)
    context = GateContext(request, own_sandbox, compiler, watch=watch, provenance=request.provenance)
    outcome = _evaluate_in_thread(sock, context)
    if compiler is not None:
        compiler.dismiss()
    if outcome is None:
        return 0
    findings, model, graphs = outcome
    sandbox.give_back_memory()
    own, replicas = fork_replicas(channels if model is not None else channels[:1])
    last_words[0] = own.end
    if len(channels) > 1:
        sandbox.forbid_processes(own_sandbox)
    if own is channels[0]:
        for graph in graphs:
            send_frame(sock, FrameKind.GRAPH, 0, json_codec.dumps({"outputs": graph.outputs}), [graph.content])
        send_frame(sock, FrameKind.REPORT, 0, findings.model_dump_json().encode())
    if model is not None:
        serve_predictions(own.socket, model, memoryview(own.arena))
    await_replicas(replicas)
    return 0


def _evaluate_in_thread(sock: socket.socket, context: GateContext) -> EvaluatedCandidate | None:
    outcome: list[EvaluatedCandidate] = []
    failures: list[Exception] = []
    reporter = _Reporter(sock, context)

    def run() -> None:
        try:
            sandbox.lower_priority_of_this_thread()
            outcome.append(run_gates(context, reporter.start, reporter.finish))
        except Exception as error:  # noqa: BLE001  (raised in the thread that waits)
            failures.append(error)

    thread = threading.Thread(target=run, name="evaluation", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return outcome[0] if outcome else None


class _Reporter:
    """Reports each gate to the server, and waits for its permission before the candidate's file is opened."""

    def __init__(self, sock: socket.socket, context: GateContext) -> None:
        self._socket = sock
        self._context = context
        self._is_prepared = False

    def start(self, gate: str) -> None:
        """Report that a gate starts; before the gate `load`, wait for permission and raise SystemExit without it."""
        send_frame(self._socket, FrameKind.GATE_STARTED, 0, json_codec.dumps({"gate": gate}))
        if gate == GateName.LOAD:
            self._prepare()
            if self._context.request.asks_needs:
                send_frame(self._socket, FrameKind.NEEDS, 0, self._context.needs_found.model_dump_json().encode())
            permission = receive_frame(self._socket)
            if permission is None or permission.kind is not FrameKind.LOAD:
                raise SystemExit

    def finish(self, result: GateResult) -> None:
        """Report the result of a gate."""
        send_frame(self._socket, FrameKind.GATE_RESULT, 0, result.model_dump_json().encode())
        if result.verdict is Verdict.REFUSED and not self._is_prepared:
            self._prepare()

    def _prepare(self) -> None:
        self._is_prepared = True
        send_frame(self._socket, FrameKind.PREPARED, 0, make_preparation(self._context).model_dump_json().encode())


def serve_predictions(sock: socket.socket, model: LoadedModel, arena: memoryview | None = None) -> None:
    """Answer PREDICT frames one after another until the socket ends. Blocks."""
    reader = FrameReader(sock, arena)
    while True:
        frame = reader.receive()
        if frame is None:
            return
        if frame.kind is not FrameKind.PREDICT:
            raise ProtocolError(f"a serving host does not take {frame.kind.name}")
        _answer_frame(sock, model, frame)


def _answer_frame(sock: socket.socket, model: LoadedModel, frame: Frame) -> None:
    try:
        method, batch = decode_batch(frame.header, frame.payload)
        header, buffers = encode_answer(model.answer(method, batch), batch.rows)
    except InvalidInput as error:
        send_frame(sock, FrameKind.REFUSAL, frame.request_id, encode_detail(str(error)))
    except (ModelFailed, MemoryError, TypeError) as error:
        detail = str(error) if isinstance(error, ModelFailed) else describe_exception(error)
        send_frame(sock, FrameKind.FAILURE, frame.request_id, encode_detail(detail))
    else:
        send_frame(sock, FrameKind.PREDICTION, frame.request_id, header, buffers)
