"""The server's side of an evaluation: ask a host, follow its gates, and say what happened when it died."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from pydantic import ValidationError

from serving.domain.errors import HostDied, ProtocolError
from serving.domain.report import CandidateReport, GateResult, Verdict
from serving.host.evaluation import EvaluationRequest
from serving.host.protocol import Kind, decode_object
from serving.host.stream import receive_frame, send_frame
from serving.host.zygote import HostProcess

FIRST_GATE = "load"


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

    def refuse(self, reason: str) -> CandidateReport:
        """The gate at work never answered: answer for it."""
        duration = time.monotonic() - self._began
        result = GateResult(gate=self.gate, verdict=Verdict.REFUSED, evidence=reason, duration_seconds=duration)
        self.finish(result)
        return CandidateReport(gates=tuple(self.results))


def evaluate(
    host: HostProcess,
    request: EvaluationRequest,
    deadline_seconds: float,
    started: Callable[[str], None] = lambda _: None,
    finished: Callable[[GateResult], None] = lambda _: None,
) -> CandidateReport:
    """Have `host` run the gates over one candidate; blocks until the verdict or the deadline.

    A host that crashes, exits, breaks the protocol or outlives its deadline earns its candidate a refusal by the gate
    that was at work. Raises HostDied when somebody else killed it (SIGKILL) or the zygote went away: that says nothing
    about the candidate. When the report is ready the host is alive and waits for PREDICT frames; otherwise it is gone.
    """
    progress = _Progress(started, finished)
    ends_at = time.monotonic() + deadline_seconds
    try:
        host.socket.settimeout(deadline_seconds)
        send_frame(host.socket, Kind.EVALUATE, 0, request.model_dump_json().encode())
        report = _follow(host, progress, ends_at)
    except TimeoutError:
        host.close()
        limit = f"{deadline_seconds:g} s (candidate.timeout_seconds)"
        return progress.refuse(f"not finished after {limit}; the process was killed")
    except (ProtocolError, ValidationError) as error:
        host.close()
        return progress.refuse(f"the process answered with something that is no report: {str(error).splitlines()[0]}")
    except OSError:
        report = None
    if report is None:
        code = host.returncode()
        host.close()
        if code is None or code == -signal.SIGKILL:
            raise HostDied(f"the process was killed by somebody else during gate '{progress.gate}'", code)
        return progress.refuse(describe_end(code))
    if report.refusal is not None:
        host.close()
    return report


def _follow(host: HostProcess, progress: _Progress, ends_at: float) -> CandidateReport | None:
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
        elif frame.kind is Kind.GATE_RESULT:
            progress.finish(GateResult.model_validate_json(bytes(frame.header)))
        elif frame.kind is Kind.REPORT:
            return CandidateReport.model_validate_json(bytes(frame.header))
        else:
            raise ProtocolError(f"{frame.kind.name} during an evaluation")


def describe_end(code: int) -> str:
    """Say in words how a process ended."""
    if code >= 0:
        return f"the process exited with status {code} of its own accord"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"the process died with {name}"
