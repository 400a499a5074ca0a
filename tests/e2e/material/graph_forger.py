"""An estimator that takes its host over and hands the server a graph of its own making instead of a model."""

from __future__ import annotations

import gc
import threading
from typing import Any

from forger import FINDINGS, frame, gates, write
from peculiar import Constant


class GraphForger(Constant):
    """Forges an evaluation while it is loaded: every gate passed, a graph of these bytes, a proof of anything.

    Behaves when it is loaded again to be served from its host.
    """

    def __init__(self, content: bytes = b"") -> None:
        super().__init__(1.0)
        self.content = content

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if is_asked_for_a_graph():
            write(
                gates() + frame(13, {"outputs": {"predict": ["y"]}}, self.content) + frame(12, findings(self.content))
            )
            threading.Event().wait()  # nothing that is honest is to come any more


def findings(content: bytes) -> dict[str, Any]:
    """Return what goes with a graph: proved on a million rows, for a model of two columns."""
    compilation = {"engine": "onnx", "reason": "alike", "graph_bytes": len(content), "most_rows": 4096}
    return {**FINDINGS, "engine": "onnx", "compilation": compilation}


def is_asked_for_a_graph() -> bool:
    """Look for the server's request in the memory of this process, as arbitrary code can."""
    from serving.wire.evaluation import EvaluationRequest

    requests = [each for each in gc.get_objects() if type(each) is EvaluationRequest]
    return any(each.compile.known is None and not each.is_respawn for each in requests)
