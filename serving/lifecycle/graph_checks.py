"""The check of one version's graphs, between its host and the server. The checker starts while the host compiles."""

from __future__ import annotations

import threading

import structlog

from serving.domain.compiled_form import UNSIGNED_FILE, Compilation
from serving.domain.errors import GraphHasNoRoom, GraphRefused, HostFailed
from serving.domain.report import Evaluation
from serving.domain.version import Format
from serving.hosting.graph_checker import GraphChecker
from serving.hosting.zygote import Zygote
from serving.wire.evaluation import EvaluationRequest

log = structlog.get_logger("serving.candidate")


class GraphCheck:
    """At most one checker, for one evaluation. `kill` from any thread; the others from the thread that evaluates."""

    def __init__(self, zygote: Zygote, request: EvaluationRequest, cancelled: threading.Event) -> None:
        self._zygote, self._request, self._cancelled = zygote, request, cancelled
        self._checker: GraphChecker | None = None

    def start(self) -> None:
        """Start the checker, so that it can import what it needs meanwhile. Blocks for a fork (20 ms); never raises."""
        try:
            self._started()
        except HostFailed as error:
            log.warning("no_checker", reason=str(error), effect="it is tried again when there is a graph")

    def check(self, evaluation: Evaluation) -> Evaluation:
        """Return the evaluation with graphs that may run in the server, and their bounds in its report. Blocks.

        Raises GraphRefused; the refusal is not final if there was no checker or it was killed.
        """
        report, compilation = evaluation.report, evaluation.report.compilation
        if report.signature is None or compilation is None:
            raise GraphRefused("it came without a signature or a proof")
        if self._request.format is Format.ONNX and report.provenance is None:
            raise GraphRefused(UNSIGNED_FILE)  # the host should have said so itself
        try:
            checker, seconds = self._started(), self._request.compile.seconds
            graphs, bounds = checker.check(evaluation.graphs, report.signature, compilation, seconds)
        except HostFailed as error:
            raise GraphRefused(f"it could not be checked: {error}", is_final=False) from None
        size = sum(len(graph.content) for graph in graphs)
        checked = compilation.model_copy(update={"bounds": bounds, "graph_bytes": size})
        memory = {"compilation": checked, "memory_bytes": bounds.session_bytes}
        return Evaluation(report.model_copy(update=memory), graphs)

    def kill(self) -> None:
        """End the checker: a thread that waits for it gets an error."""
        if self._checker is not None:
            self._checker.kill()

    def close(self) -> None:
        """End the checker and free everything; more than once is harmless."""
        checker, self._checker = self._checker, None
        if checker is not None:
            checker.close()

    def _started(self) -> GraphChecker:
        if self._checker is None:
            self._checker = GraphChecker(self._zygote, self._request.memory_bytes)
            if self._cancelled.is_set():
                self._checker.kill()
        return self._checker


def stays_hosted(error: GraphRefused) -> Compilation:
    """Return the verdict on a version whose graphs are refused, or have no room: it stays in its host."""
    if isinstance(error, GraphHasNoRoom):
        reason = f"its graph has no room in the workers: {error}"
        return Compilation(engine=None, reason=reason, is_final=False, lacks_memory=True)
    return Compilation(engine=None, reason=f"its graph is not taken into the server: {error}", is_final=error.is_final)
