"""The server's side of an evaluation: send a host its request, follow its gates, and explain its end.

:mod:`serving.wire.frames` says which frame comes when; `headers` and `verification` check their contents. When a host
sends anything else, the server ends it, and the running gate refuses its candidate with one line.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from enum import Enum, auto

from serving.domain.compiled_form import Graph
from serving.domain.environment import OWN, Choice
from serving.domain.errors import HostDied, HostFailed, ProtocolError
from serving.domain.last_words import ENDED_ITSELF
from serving.domain.manifest import MANIFEST_NAME, InvalidDocument, Manifest, parse_manifest
from serving.domain.report import CandidateReport, Evaluation, GateName, GateResult, Verdict
from serving.domain.text import one_line
from serving.hosting.headers import read_findings, read_gate, read_needs, read_outputs, read_preparation, read_result
from serving.hosting.verification import ClaimRefused, check_findings, check_preparation, make_report, why_no_graph
from serving.hosting.zygote import HostProcess
from serving.wire.evaluation import EvaluationRequest, Findings, NeedsFound, Preparation
from serving.wire.frames import BOUNDS, PREFIX, Frame, FrameKind, Prefix
from serving.wire.stream import FrameReader, StreamCut, TimedSocket, send_frame


class _Step(Enum):
    """What an evaluation waits for."""

    GATE = auto()
    PREPARATION = auto()
    NEEDS = auto()
    RESULT = auto()
    END = auto()


_EXPECTED = {
    _Step.GATE: (FrameKind.GATE_STARTED,),
    _Step.PREPARATION: (FrameKind.PREPARED,),
    _Step.NEEDS: (FrameKind.NEEDS,),
    _Step.RESULT: (FrameKind.GATE_RESULT,),
    _Step.END: (FrameKind.GRAPH, FrameKind.REPORT),
}


class RunsElsewhere(Exception):  # an outcome, not an error
    """The candidate runs in another environment: `request` is for a host there, from the gate load on."""

    def __init__(self, request: EvaluationRequest) -> None:
        super().__init__(request.place)
        self.request = request


Choose = Callable[[NeedsFound, Mapping[str, str]], Choice]
"""Chooses the environment for what a host has found; gets the versions of the host's own libraries, too."""


class _EvaluationProgress:
    """The state of one evaluation: which frames may come next, and what came so far. One thread only."""

    def __init__(
        self,
        request: EvaluationRequest,
        manifest: Manifest | None,
        on_gate_started: Callable[[str], None],
        on_gate_finished: Callable[[GateResult], None],
    ) -> None:
        self._request, self._manifest = request, manifest
        self._on_started, self._on_finished = on_gate_started, on_gate_finished
        self._began = self._gate_began = time.monotonic()
        self._step = _Step.GATE
        self._results = [*request.prior]
        self._preparation: Preparation | None = None
        self._found: NeedsFound | None = None
        self._needs, self._choice = request.needs, request.choice
        self._graphs: list[Graph] = []
        self.gate = request.gates[len(self._results)]

    @property
    def is_refused(self) -> bool:
        """Whether a gate has refused the candidate."""
        return bool(self._results) and self._results[-1].verdict is Verdict.REFUSED

    def may_load(self, last: FrameKind) -> bool:
        """Whether the host waits, after its `last` frame, for the permission to load the candidate's file."""
        return self._step is _Step.RESULT and last in (FrameKind.PREPARED, FrameKind.NEEDS)

    def check_prefix(self, prefix: Prefix) -> None:
        """Check the prefix of a frame before more of it is read; raises ProtocolError, ClaimRefused."""
        expected = _EXPECTED[self._step]
        if prefix.kind not in expected or prefix.request_id:
            names = " or ".join(kind.name for kind in expected)
            raise ProtocolError(f"{prefix.kind.name} of request {prefix.request_id}, where {names} of 0 was expected")
        if prefix.kind is FrameKind.GRAPH:
            self._check_graph(prefix.payload_bytes)

    def _check_graph(self, size: int) -> None:
        assert self._preparation is not None
        if self.is_refused:
            raise ProtocolError("GRAPH, though the candidate is refused")
        reason = why_no_graph(self._request, self._preparation.sandbox)
        if reason is not None:
            raise ClaimRefused(GateName.COMPILE, f"the process sent a graph that was not requested: {reason}")
        most = self._request.compile.bytes
        if size > most:
            raise ProtocolError(f"GRAPH of {size} bytes, at most {most} are taken (engine.compile_mb)")
        if len(self._graphs) == BOUNDS[FrameKind.GRAPH].times:
            raise ProtocolError(f"more than {len(self._graphs)} graphs")

    def process_frame(self, frame: Frame) -> Evaluation | None:
        """Process one frame; returns the evaluation after the last one. Raises ProtocolError, ClaimRefused."""
        if frame.kind is FrameKind.GATE_STARTED:
            self._start_gate(read_gate(frame.header))
        elif frame.kind is FrameKind.PREPARED:
            self._take_preparation(read_preparation(frame.header))
        elif frame.kind is FrameKind.NEEDS:
            self._found = read_needs(frame.header)
            self._needs = self._found.needs
            self._step = _Step.RESULT
        elif frame.kind is FrameKind.GATE_RESULT:
            self._take_result(read_result(frame.header, time.monotonic() - self._began))
        elif frame.kind is FrameKind.GRAPH:
            self._graphs.append(Graph(frame.payload, read_outputs(frame.header)))
        else:
            return self._make_evaluation(frame)
        return None

    def _take_preparation(self, preparation: Preparation) -> None:
        if self._request.prior:
            preparation = preparation.model_copy(update={"provenance": self._request.provenance})
        self._preparation = preparation
        self._step = _Step.END
        if not self.is_refused:
            check_preparation(self._request, preparation, self._results)
            self._step = _Step.NEEDS if self._request.asks_needs else _Step.RESULT

    def choose_environment(self, choose: Choose) -> None:
        """Choose where the candidate is loaded. Raises RunsElsewhere, and ClaimRefused where nothing has what it needs.

        It is loaded here all the same if the settings say so, or if loading it will explain better why it is refused.
        """
        assert self._preparation is not None
        assert self._found is not None
        self._choice = choice = choose(self._found, self._preparation.libraries)
        if choice.name is None:
            if self._request.environment == "refuse" and not self._found.stays:
                self._on_started(GateName.ENVIRONMENT)
                raise ClaimRefused(GateName.ENVIRONMENT, choice.reason)
            self._choice = Choice(name=OWN, reason=f"no environment fits: {choice.reason}")
        if self._choice.name == OWN:
            return
        moved = {
            "place": self._choice.name,
            "prior": tuple(self._results),
            "provenance": self._preparation.provenance,
            "needs": self._needs,
            "choice": self._choice,
        }
        raise RunsElsewhere(self._request.model_copy(update=moved))

    def _start_gate(self, gate: str) -> None:
        expected = self._request.gates[len(self._results)]
        if gate != expected:
            raise ProtocolError(f"the gate '{one_line(gate, 50)}' was started, '{expected}' was expected")
        self.gate, self._gate_began = gate, time.monotonic()
        self._step = _Step.PREPARATION if gate == GateName.LOAD else _Step.RESULT
        self._on_started(gate)

    def _take_result(self, result: GateResult) -> None:
        if result.gate != self.gate:
            raise ProtocolError(f"a result of '{one_line(result.gate, 50)}', '{self.gate}' was expected")
        self._results.append(result)
        if self.is_refused or len(self._results) == len(self._request.gates):
            self._step = _Step.PREPARATION if self._preparation is None else _Step.END
        else:
            self._step = _Step.GATE
        self._on_finished(result)

    def _make_evaluation(self, frame: Frame) -> Evaluation:
        assert self._preparation is not None
        findings = check_findings(
            self._request,
            self._manifest,
            read_findings(frame.header),
            self._graphs,
            is_refused=self.is_refused,
        )
        return Evaluation(self._make_report(self._results, findings), tuple(self._graphs))

    def _make_report(self, results: list[GateResult], findings: Findings | None = None) -> CandidateReport:
        report = make_report(results, self._preparation, findings)
        return report.model_copy(update={"needs": self._needs, "environment": self._choice})

    def refuse_candidate(self, reason: str, gate: str | None = None) -> Evaluation:
        """Refuse the candidate by the running gate, or by `gate`: then this result replaces that of the host."""
        gates = self._request.gates
        gate = self.gate if gate not in gates else gate
        duration = time.monotonic() - self._gate_began
        result = GateResult(gate=gate, verdict=Verdict.REFUSED, evidence=reason, duration_seconds=duration)
        before = [each for each in self._results if gates.index(each.gate) < gates.index(gate)]
        self._on_finished(result)
        return Evaluation(self._make_report([*before, result]))


def evaluate_candidate(
    host: HostProcess,
    request: EvaluationRequest,
    deadline_seconds: float,
    on_gate_started: Callable[[str], None] = lambda _: None,
    on_gate_finished: Callable[[GateResult], None] = lambda _: None,
    choose: Choose = lambda _found, _libraries: Choice(name=OWN, reason="there is no other environment"),
) -> Evaluation:
    """Let `host` run the gates over one candidate. Blocks until the verdict or the deadline, plus the time to compile.

    If the host crashes, exits, breaks the protocol or misses its deadline, the running gate refuses its candidate.
    Raises HostDied when its end says nothing about the candidate: it was killed from outside (SIGKILL), its zygote is
    gone, or it ended before the gate that opens the file. Raises HostFailed when the server has no memory for the
    graphs. If the candidate passed and there are no graphs, the host is alive and waits for requests in all of its
    channels; otherwise it is gone. The result is checked against `request`, and every text in it is printable, except
    for the names and labels of the signature.

    Raises RunsElsewhere, and closes the host, when `choose` names another environment.
    """
    progress = _EvaluationProgress(request, _read_manifest(request), on_gate_started, on_gate_finished)
    source = TimedSocket(host.socket, time.monotonic() + deadline_seconds)
    try:
        host.socket.settimeout(deadline_seconds)
        placed = request.model_copy(update={"scratch": host.scratch})
        send_frame(host.socket, FrameKind.EVALUATE, 0, placed.model_dump_json().encode())
        evaluation = _follow_gates(host, progress, source, request.compile.seconds, choose)
    except TimeoutError:
        host.close()
        limit = f"{deadline_seconds:g} s (candidate.timeout_seconds)"
        return progress.refuse_candidate(f"not finished after {limit}; the process was killed")
    except RunsElsewhere:
        host.close()
        raise
    except ClaimRefused as error:
        host.close()
        return progress.refuse_candidate(str(error), error.gate)
    except (StreamCut, OSError):
        evaluation = None
    except ProtocolError as error:
        host.close()
        return progress.refuse_candidate(f"the process broke the protocol: {one_line(str(error))}")
    except MemoryError:
        host.close()
        raise HostFailed("the server has no memory left for the frames of a process") from None
    if evaluation is None:
        code = host.returncode()
        how = host.read_last_words() or describe_end(code) if code is not None else ""
        host.close()
        if code is None or code == -signal.SIGKILL:
            raise HostDied(f"the process was killed from outside during gate '{progress.gate}'", code)
        if code != ENDED_ITSELF and _comes_before_load(request, progress.gate):
            raise HostDied(f"{how} during gate '{progress.gate}', before it opened the file", code)
        return progress.refuse_candidate(how)
    if evaluation.report.refusal is not None or evaluation.report.is_compiled:
        host.close()
    return evaluation


def _follow_gates(
    host: HostProcess,
    progress: _EvaluationProgress,
    source: TimedSocket,
    compile_seconds: float,
    choose: Choose,
) -> Evaluation | None:
    # Read no byte beyond a frame: the next reader must see everything that a host sends without a request.
    reader = FrameReader(source, None, PREFIX.size, progress.check_prefix)
    while (frame := reader.receive()) is not None:
        evaluation = progress.process_frame(frame)
        if evaluation is not None:
            return evaluation
        if frame.kind is FrameKind.NEEDS:
            began = time.monotonic()
            progress.choose_environment(choose)
            source.ends_at += time.monotonic() - began  # environments that are slow to describe are not its fault
        if progress.may_load(frame.kind):
            send_frame(host.socket, FrameKind.LOAD, 0, b"{}")
        elif frame.kind is FrameKind.GATE_STARTED and progress.gate == GateName.COMPILE:
            # The host enforces the compile deadline itself; add it to ours once.
            source.ends_at += compile_seconds
    return None


def _comes_before_load(request: EvaluationRequest, gate: str) -> bool:
    """Say whether a gate comes before the one that opens the file: until then the file cannot end a host."""
    return GateName.LOAD in request.gates and gate in request.gates[: request.gates.index(GateName.LOAD)]


def _read_manifest(request: EvaluationRequest) -> Manifest | None:
    """Return the candidate's manifest as it was staged; None for an unreadable one, which the gates refuse."""
    try:
        raw = request.read(MANIFEST_NAME)
        return None if raw is None else parse_manifest(raw)
    except (InvalidDocument, OSError):
        return None


def describe_end(code: int) -> str:
    """Say in words how a process ended."""
    if code >= 0:
        return f"the process exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"the process died with {name}"
