"""The server's side of an evaluation: ask a host, follow its gates, and say what happened when it died."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from pydantic import ValidationError

from serving.domain.compiled import Graph
from serving.domain.errors import HostDied, ProtocolError
from serving.domain.report import CandidateReport, Evaluation, GateResult, Verdict
from serving.domain.signature import METHODS
from serving.host.evaluation import EvaluationRequest
from serving.host.protocol import Frame, Kind, decode_object
from serving.host.stream import receive_frame, send_frame
from serving.host.zygote import HostProcess

FIRST_GATE = "load"
COMPILE_GATE = "compile"


class _Progress:
    """Which gates have answered, and which one is at work."""

    def __init__(self, started: Callable[[str], None], finished: Callable[[GateResult], None]) -> None:
        self._on_started, self._on_finished = started, finished
        self._began = time.monotonic()
        self.results: list[GateResult] = []
        self.gate = FIRST_GATE

    def start(self, gate: str) -> None:
        self.gate, self._began = gate, time.monotonic()
        self._on_started(gate)

    def finish(self, result: GateResult) -> None:
        self.results.append(result)
        self._on_finished(result)

    def refuse(self, reason: str) -> Evaluation:
        """The gate at work never answered: answer for it."""
        duration = time.monotonic() - self._began
        result = GateResult(gate=self.gate, verdict=Verdict.REFUSED, evidence=reason, duration_seconds=duration)
        self.finish(result)
        return Evaluation(CandidateReport(gates=tuple(self.results)))


def evaluate(
    host: HostProcess,
    request: EvaluationRequest,
    deadline_seconds: float,
    started: Callable[[str], None] = lambda _: None,
    finished: Callable[[GateResult], None] = lambda _: None,
) -> Evaluation:
    """Have `host` run the gates over one candidate; blocks until the verdict or the deadline, plus what compiling has.

    A host that crashes, exits, breaks the protocol or outlives its deadline earns its candidate a refusal by the gate
    that was at work. Raises HostDied when somebody else killed it (SIGKILL) or the zygote went away: that says nothing
    about the candidate. When the report is ready and there are no graphs the host is alive and waits for PREDICT
    frames; otherwise it is gone.
    """
    progress = _Progress(started, finished)
    ends_at = time.monotonic() + deadline_seconds
    try:
        host.socket.settimeout(deadline_seconds)
        placed = request.model_copy(update={"scratch": host.scratch})
        send_frame(host.socket, Kind.EVALUATE, 0, placed.model_dump_json().encode())
        evaluation = _follow(host, progress, ends_at, request.compile.seconds)
    except TimeoutError:
        host.close()
        limit = f"{deadline_seconds:g} s (candidate.timeout_seconds)"
        return progress.refuse(f"not finished after {limit}; the process was killed")
    except (ProtocolError, ValidationError) as error:
        host.close()
        return progress.refuse(f"the process answered with something that is no report: {str(error).splitlines()[0]}")
    except OSError:
        evaluation = None
    if evaluation is None:
        code = host.returncode()
        host.close()
        if code is None or code == -signal.SIGKILL:
            raise HostDied(f"the process was killed by somebody else during gate '{progress.gate}'", code)
        return progress.refuse(describe_end(code))
    if evaluation.report.refusal is not None or evaluation.report.is_compiled:
        host.close()
    return evaluation


def _follow(host: HostProcess, progress: _Progress, ends_at: float, compile_seconds: float) -> Evaluation | None:
    graphs: list[Graph] = []
    while True:
        left = ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        host.socket.settimeout(left)
        frame = receive_frame(host.socket)
        if frame is None:
            return None
        if frame.kind is Kind.GATE_STARTED:
            progress.start(str(decode_object(frame.header)["gate"]))
            if progress.gate == COMPILE_GATE:
                # which it keeps to itself: the end of that is no verdict over the candidate. Once, whatever it says
                ends_at, compile_seconds = ends_at + compile_seconds, 0.0
        elif frame.kind is Kind.GATE_RESULT:
            progress.finish(GateResult.model_validate_json(bytes(frame.header)))
        elif frame.kind is Kind.GRAPH:
            graphs.append(_graph(frame))
        elif frame.kind is Kind.REPORT:
            report = CandidateReport.model_validate_json(bytes(frame.header))
            offered = {method for graph in graphs for method in graph.outputs}
            needed = report.signature.methods if report.is_compiled and report.signature else ()
            if not offered.issuperset(needed):
                raise ProtocolError("a report of a compiled form came without its graphs")
            return Evaluation(report, tuple(graphs))
        else:
            raise ProtocolError(f"{frame.kind.name} during an evaluation")


def _graph(frame: Frame) -> Graph:
    outputs = decode_object(frame.header).get("outputs")
    if not isinstance(outputs, dict) or not outputs.keys() <= set(METHODS):
        raise ProtocolError("a graph does not say what it answers")
    return Graph(frame.payload, {method: tuple(map(str, names)) for method, names in outputs.items()})


def describe_end(code: int) -> str:
    """Say in words how a process ended."""
    if code >= 0:
        return f"the process exited with status {code} of its own accord"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"the process died with {name}"
