"""The life of one host: evaluate one candidate, then serve it until its lifeline ends."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence

from serving import json_codec, sandbox
from serving.domain.last_words import FAILED
from serving.domain.report import GateName, GateResult, Verdict
from serving.domain.sandbox import Sandbox
from serving.host.channels import Channel, ChannelEnds, LastWords, Lifeline, open_ends
from serving.host.gates import EvaluatedCandidate, make_preparation, run_gates
from serving.host.gates.compile_gate import start_compiler
from serving.host.gates.gate import GateContext
from serving.host.library_set import find_watch_exceptions
from serving.host.model import describe_exception
from serving.host.replicas import await_replicas, fork_replicas
from serving.host.serve_channels import serve_predictions
from serving.wire.evaluation import EvaluationRequest
from serving.wire.frames import FrameKind
from serving.wire.stream import receive_frame, send_frame


def main(fds: Sequence[int], slots: int) -> int:
    """Run in a newly forked process; returns its exit status.

    `fds` are pairs, a socket and an arena: first those of the lifeline, then `slots` pairs for each replica; the host
    itself is the first replica.

    The sandbox is entered before the candidate's file is opened. A thread of low priority loads and checks the
    candidate; this thread, of normal priority, answers requests. Other replicas are forked after the candidate has
    passed: each of them also returns from this function, when its own channels have ended. If this code fails, it
    leaves the reason as last words.
    """
    parent = os.getppid()
    sandbox.silence_output()
    sandbox.close_all_but(fds)
    lifeline = Lifeline(fds[0], fds[1])
    last_words = LastWords(lifeline.end)
    try:
        return _evaluate_and_serve(lifeline, fds[2:], slots, last_words, parent)
    except Exception as error:  # noqa: BLE001  (a host prints nothing: the server reports the reason)
        last_words.write(describe_exception(error), FAILED)
        return FAILED


def _evaluate_and_serve(lifeline: Lifeline, fds: Sequence[int], slots: int, last_words: LastWords, parent: int) -> int:
    """Evaluate the candidate, then serve it."""
    sock = lifeline.socket
    first = receive_frame(sock)
    if first is None:
        return 0
    if first.kind is FrameKind.CHECKER:
        from serving.host.graph_check import checker_process  # noqa: PLC0415  (needs onnx; preloaded where that is)

        for fd in fds:
            os.close(fd)
        return checker_process.main(sock, first)
    request = EvaluationRequest.model_validate_json(bytes(first.header))
    recent_rows = request.recent_rows
    request, first = request.model_copy(update={"recent_rows": None}), None  # the gate frees them
    ends = open_ends(fds)
    own = [end.open() for end in ends[:slots]]  # before this process may map only so much more
    others = [ends[start : start + slots] for start in range(slots, len(ends), slots)]
    sandbox.move_into(request.scratch)
    own_sandbox = sandbox.enter([file.path for file in request.files], request.scratch, request.memory_bytes, parent)

    def watch() -> None:
        sandbox.watch(last_words.write, may_fork=bool(others), exceptions=find_watch_exceptions())

    def enter_compiler() -> None:
        sock.close()
        for channel in own:
            channel.close()
        for end in (end for each in others for end in each):
            end.close()
        sandbox.forbid_processes(own_sandbox)

    compiler = start_compiler(request, own_sandbox, enter_compiler, watch)
    sandbox.forbid_processes(own_sandbox, [compiler.pid] if compiler else [], may_fork=bool(others))
    context = GateContext(request, own_sandbox, compiler, watch=watch, provenance=request.provenance)
    context.recent_rows, recent_rows = recent_rows, None
    outcome = _evaluate_in_thread(sock, context)
    if compiler is not None:
        compiler.dismiss()
    if outcome is not None:
        sandbox.give_back_memory()
        _serve(outcome, lifeline, own, others, last_words, own_sandbox)
    return 0


def _serve(
    outcome: EvaluatedCandidate,
    lifeline: Lifeline,
    own: Sequence[Channel],
    others: Sequence[Sequence[ChannelEnds]],
    last_words: LastWords,
    own_sandbox: Sandbox,
) -> None:
    """Report the outcome, and answer requests if there is a model; every replica returns from here, too."""
    model = outcome.model
    served, replicas = fork_replicas(lifeline, own, others if model is not None else ())
    arenas = [channel.arena for channel in served]
    last_words.memories = (*arenas,) if replicas is None else (lifeline.end, *arenas)
    if others:
        sandbox.forbid_processes(own_sandbox)
    if replicas is not None:
        _report(lifeline.socket, outcome)
    if model is not None:
        has_ended = serve_predictions(model, served, last_words, None if replicas is None else lifeline.socket)
        if replicas and not has_ended:  # else they die with this process
            await_replicas(replicas)


def _report(sock: socket.socket, outcome: EvaluatedCandidate) -> None:
    for graph in outcome.graphs:
        send_frame(sock, FrameKind.GRAPH, 0, json_codec.dumps({"outputs": graph.outputs}), [graph.content])
    send_frame(sock, FrameKind.REPORT, 0, outcome.findings.model_dump_json().encode())


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
