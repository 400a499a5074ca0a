"""The check between a host and the server: started early, never in the way, and never passed over."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from serving.domain.compiled_form import UNSIGNED_FILE, Compilation, Graph
from serving.domain.errors import GraphHasNoRoom, GraphRefused, HostFailed
from serving.domain.report import CandidateReport, Evaluation
from serving.domain.sandbox import Sandbox
from serving.domain.version import Format
from serving.lifecycle.graph_checks import GraphCheck, stays_hosted
from serving.wire.frames import FrameKind
from tests.unit.host.forgery import SIGNATURE, make_request
from tests.unit.hosting.test_graph_checker import BOUNDS, READY, FakeZygote, make_checked_frame

PROOF = Compilation(engine="onnx", reason="alike", most_rows=512, graph_bytes=1)
SIGNED = SIGNATURE.model_copy(update={"methods": ("predict",)})
EVALUATION = Evaluation(
    CandidateReport(gates=(), signature=SIGNED, engine="onnx", compilation=PROOF, sandbox=Sandbox()),
    (Graph(b"sent", {"predict": ("y",)}),),
)


class NoZygote:
    """A zygote that cannot fork."""

    def spawn(self) -> Any:
        raise HostFailed("the zygote is gone")


def check_with(zygote: Any, **fields: Any) -> GraphCheck:
    return GraphCheck(zygote, make_request(**fields), threading.Event())


def test_the_server_gets_what_the_checker_wrote_with_its_bounds_and_size() -> None:
    zygote = FakeZygote(READY, make_checked_frame(b"written", sizes=[7]))
    check = check_with(zygote)
    check.start()
    report, graphs = check.check(EVALUATION)
    check.close()
    assert zygote.host.join()[0] == FrameKind.CHECKER
    assert [bytes(graph.content) for graph in graphs] == [b"written"]
    assert report.compilation is not None
    assert (report.compilation.bounds, report.compilation.graph_bytes) == (BOUNDS, 7)
    assert report.memory_bytes == BOUNDS.session_bytes


def test_a_checker_that_cannot_be_started_is_nothing_against_the_version_until_there_is_a_graph() -> None:
    check = check_with(NoZygote())
    check.start()
    with pytest.raises(GraphRefused, match="could not be checked: the zygote is gone") as caught:
        check.check(EVALUATION)
    check.close()
    assert not caught.value.is_final
    verdict = stays_hosted(caught.value)
    assert (verdict.engine, verdict.is_final) == (None, False)
    assert verdict.reason.startswith("its graph is not taken into the server: ")


def test_a_graph_without_room_says_so_and_may_have_room_another_time() -> None:
    verdict = stays_hosted(GraphHasNoRoom("it takes 5 MB"))
    assert (verdict.engine, verdict.is_final, verdict.lacks_memory) == (None, False, True)
    assert verdict.reason == "its graph has no room in the workers: it takes 5 MB"
    assert not stays_hosted(GraphRefused("it is too slow")).lacks_memory


def test_a_graph_of_a_file_that_nobody_signed_is_not_even_looked_at() -> None:
    """Whatever its host says: no checker is asked."""
    with pytest.raises(GraphRefused) as caught:
        check_with(NoZygote(), format=Format.ONNX).check(EVALUATION)
    assert str(caught.value) == UNSIGNED_FILE
    assert caught.value.is_final


def test_a_candidate_that_was_cancelled_meanwhile_has_its_checker_killed() -> None:
    zygote = FakeZygote()
    killed: list[bool] = []
    zygote.host.kill = lambda: killed.append(True)  # type: ignore[attr-defined]
    cancelled = threading.Event()
    check = GraphCheck(zygote, make_request(), cancelled)  # type: ignore[arg-type]
    check.kill()  # there is none yet
    cancelled.set()
    check.start()
    assert killed == [True]
    check.kill()
    assert killed == [True, True]
    check.close()
    zygote.host.join()
