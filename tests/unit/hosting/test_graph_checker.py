"""A checker: a real process checks graphs, and the server checks what that process answers."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import orjson
import psutil
import pytest
from sklearn.linear_model import LogisticRegression

from serving import sandbox
from serving.compiling.convert import convert_estimator
from serving.domain.compiled_form import MOST_ROWS, PIECE_BYTES, PIECE_SECONDS, Compilation, Graph, Guard, RunBounds
from serving.domain.errors import GraphRefused, HostDied
from serving.host.signature_of_estimator import examine_estimator
from serving.hosting import graph_checker, zygote_process
from serving.hosting.graph_checker import GraphChecker
from serving.hosting.zygote import Zygote
from serving.plane.graph import GraphSession
from serving.rows.batch import Batch
from serving.wire.frames import FrameKind
from tests.e2e.harness import until
from tests.unit.host.forgery import LACKING, WHOLE, FakeHost, SentFrame
from tests.unit.host.graph_check.bombs import BOMBS
from tests.unit.host.graph_check.graphs import constant, graph_of, model, node, signature

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a checker is held by a sandbox of Linux's")
ROWS = np.random.default_rng(3).normal(size=(40, 3))
MODEL = examine_estimator(LogisticRegression().fit(ROWS, np.where(ROWS[:, 0] > 0, "yes", "no")))
MEMORY_BYTES = 1 << 30
PROOF = Compilation(engine="onnx", reason="alike", most_rows=512)
PLAIN = graph_of(model([node("Mul", "X factor", "y")], [constant("factor", [2.0])]))


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Start a zygote for all tests of this file."""
    zygote = Zygote(sandbox.scrub_environment(os.environ), tmp_path_factory.mktemp("scratch"))
    yield zygote
    zygote.stop()


@pytest.fixture
def checker(zygote: Zygote) -> Iterator[GraphChecker]:
    """Start a checker, for one check."""
    checker = GraphChecker(zygote, MEMORY_BYTES)
    yield checker
    checker.close()


# --- a real one -------------------------------------------------------------------------------------------------------


def test_a_sound_graph_comes_back_written_anew_with_its_bounds(checker: GraphChecker) -> None:
    graph = convert_estimator(MODEL)
    described = onnx.load_from_string(bytes(graph.content))
    described.doc_string = "read me"
    sent = Graph(described.SerializeToString(), graph.outputs)
    (made,), bounds = checker.check([sent], MODEL.signature, PROOF, 60)
    assert b"read me" not in bytes(made.content)
    assert made.outputs == graph.outputs
    assert bounds.rows == 512
    assert bounds.bytes_of(bounds.rows) <= PIECE_BYTES
    assert all(0 < each <= one <= PIECE_SECONDS for one, each in bounds.seconds.values())
    session = GraphSession(made, bounds.rows)
    for method in MODEL.signature.methods:
        wanted = getattr(MODEL.estimator, method)(ROWS)
        got = session.answer(method, Batch(40, matrix=ROWS.copy())).tensors[0]
        np.testing.assert_array_equal(got, wanted) if method == "predict" else np.testing.assert_allclose(got, wanted)


def test_several_graphs_are_checked_together(checker: GraphChecker) -> None:
    first, *others = MODEL.signature.methods
    graphs = [convert_estimator(MODEL, (first,)), convert_estimator(MODEL, others)]
    made, bounds = checker.check(graphs, MODEL.signature, PROOF, 60)
    assert [graph.outputs for graph in made] == [graph.outputs for graph in graphs]
    assert bounds.answer_bytes.keys() == set(MODEL.signature.methods)


@pytest.mark.parametrize(
    "name", ["equal", "filled_as_asked", "outer_product", "constant_shape", "doubled_again_and_again"]
)
def test_a_bomb_is_refused_with_the_reason(checker: GraphChecker, name: str) -> None:
    with pytest.raises(GraphRefused, match=r"depends on values|n x n|of one row could take") as caught:
        checker.check([graph_of(BOMBS[name]())], signature(), PROOF, 60)
    assert caught.value.is_final


def test_graphs_that_do_not_answer_every_method_are_refused(checker: GraphChecker) -> None:
    with pytest.raises(GraphRefused, match="do not answer every method once"):
        checker.check([convert_estimator(MODEL, ("predict",))], MODEL.signature, PROOF, 60)


def make_slow_graph() -> Graph:
    """Return a graph that multiplies large matrices for each row, which takes little memory and 100 ms."""
    nodes = [node("Expand", "one_ shape", "m0"), node("MatMul", "X row", "v0")]
    nodes += [node("MatMul", f"v{place} m0", f"v{place + 1}") for place in range(400)]
    nodes += [node("ReduceMax", "v400 axis", "y", keepdims=1)]
    constants = [
        constant("one_", [[1e-3]]),
        constant("shape", [1000, 1000]),
        constant("row", [[1.0] * 1000]),
        constant("axis", [1]),
    ]
    return graph_of(model(nodes, constants))


def test_a_graph_that_takes_too_long_for_one_row_is_refused(checker: GraphChecker) -> None:
    with pytest.raises(GraphRefused, match=r"one row takes .* s, at most 0\.05 s"):
        checker.check([make_slow_graph()], signature(), PROOF, 60)


def test_a_killed_checker_says_nothing_about_the_graph(checker: GraphChecker) -> None:
    os.kill(checker._process.pid, signal.SIGSTOP)  # or else it might be done before
    checker.kill()
    with pytest.raises(HostDied, match="killed from outside"):
        checker.check([PLAIN], signature(), PROOF, 60)


def test_a_checker_that_does_not_finish_refuses_the_graph_for_now(checker: GraphChecker) -> None:
    until(lambda: select.select([checker._process.socket], [], [], 0)[0], "its being ready")
    os.kill(checker._process.pid, signal.SIGSTOP)
    with pytest.raises(GraphRefused, match=r"not finished after 0\.1 s \(engine\.compile_seconds\)") as caught:
        checker.check([PLAIN], signature(), PROOF, 0.1)
    assert not caught.value.is_final


def test_a_checker_is_a_separate_process_that_ends_with_its_check(
    zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote_process, "EXIT_SECONDS", 60.0)  # the zygote has its time to say how it ended
    checker = GraphChecker(zygote, MEMORY_BYTES)
    pid = checker._process.pid
    assert psutil.Process(pid).ppid() != os.getpid()
    checker.check([PLAIN], signature(), PROOF, 60)
    assert checker._process.returncode(20) == 0
    checker.close()
    assert not psutil.pid_exists(pid)


def test_files_that_a_graph_names_are_not_read(checker: GraphChecker, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("secrets") / "settings.toml"
    secret.write_bytes(np.array([42.0]).tobytes())
    made = model([node("Mul", "X factor", "y")], [constant("factor", [2.0])])
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(secret))
    with pytest.raises(GraphRefused, match="a constant is kept in another file"):
        checker.check([graph_of(made)], signature(), PROOF, 60)


# --- one that lies ----------------------------------------------------------------------------------------------------

BOUNDS = RunBounds(
    rows=100, row_bytes=80, fixed_bytes=8, row_texts=0, fixed_texts=0,
    answer_bytes={"predict": 8}, seconds={"predict": (1e-5, 1e-7)}, session_bytes=1 << 20,
)  # fmt: skip
READY = SentFrame(FrameKind.CHECKER_READY, WHOLE.model_dump(mode="json"))


def make_checked_frame(payload: bytes = b"graph", sizes: list[Any] | None = None, **bounds: Any) -> SentFrame:
    header = {"bounds": {**BOUNDS.model_dump(mode="json"), **bounds}, "bytes": [5] if sizes is None else sizes}
    return SentFrame(FrameKind.CHECKED, header, payload)


class FakeZygote:
    """Hands out one fake checker, which sends the given frames."""

    def __init__(self, *said: SentFrame, code: int | None = 0) -> None:
        self.host = FakeHost([each.pack() for each in said], code)
        self.host.kill = self.host.close  # type: ignore[attr-defined]

    def spawn(self) -> Any:
        return self.host


def check_with_fake(*said: SentFrame, code: int | None = 0) -> tuple[tuple[Graph, ...], RunBounds]:
    """Return what the server accepts from a checker that sends these frames."""
    zygote: Any = FakeZygote(*said, code=code)
    checker = GraphChecker(zygote, MEMORY_BYTES)
    try:
        return checker.check([PLAIN], signature(), PROOF, 5)
    finally:
        checker.close()
        zygote.host.join()


def test_a_possible_answer_is_accepted() -> None:
    (graph,), bounds = check_with_fake(READY, make_checked_frame())
    assert bytes(graph.content) == b"graph"
    assert bounds == BOUNDS


LIES: dict[str, Callable[[], list[SentFrame]]] = {
    "more rows than the proof": lambda: [READY, make_checked_frame(rows=513)],
    "no rows": lambda: [READY, make_checked_frame(rows=0)],
    "more memory than a run may take": lambda: [READY, make_checked_frame(row_bytes=PIECE_BYTES)],
    "negative memory": lambda: [READY, make_checked_frame(fixed_bytes=-1)],
    "less memory than the graph has bytes": lambda: [READY, make_checked_frame(session_bytes=4)],
    "more memory than it has itself": lambda: [READY, make_checked_frame(session_bytes=MEMORY_BYTES + 1)],
    "no time": lambda: [READY, make_checked_frame(seconds={})],
    "times of another method": lambda: [READY, make_checked_frame(seconds={"transform": [1.0, 1.0]})],
    "an impossible time": lambda: [READY, make_checked_frame(seconds={"predict": [float("nan"), 1.0]})],
    "another size": lambda: [READY, make_checked_frame(sizes=[4])],
    "two graphs": lambda: [READY, make_checked_frame(b"graphgraph", sizes=[5, 5])],
    "a negative size": lambda: [READY, make_checked_frame(sizes=[-5])],
    "no graph": lambda: [READY, make_checked_frame(b"", sizes=[0])],
    "a graph of any size": lambda: [READY, make_checked_frame()._replace(payload_bytes=1 << 40)],
    "a larger graph than sent": lambda: [READY, make_checked_frame(bytes(graph_checker.MORE_BYTES + 2000), sizes=[5])],
    "another field": lambda: [READY, make_checked_frame(more=1)],
    "no JSON": lambda: [READY, SentFrame(FrameKind.CHECKED, b"{", b"graph")],
    "an answer of a host": lambda: [READY, SentFrame(FrameKind.PREDICTION, {"tensors": []})],
    "nothing of its sandbox": lambda: [make_checked_frame()],
    "no frame": lambda: [READY, SentFrame(0, {}, magic=b"HTTP")],
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_an_impossible_answer_is_refused(name: str) -> None:
    with pytest.raises(GraphRefused):
        check_with_fake(*LIES[name]())


def test_a_checker_without_a_whole_sandbox_gets_no_graph() -> None:
    lacking = SentFrame(FrameKind.CHECKER_READY, LACKING.model_dump(mode="json"))
    zygote: Any = FakeZygote(lacking, make_checked_frame())
    checker = GraphChecker(zygote, MEMORY_BYTES)
    with pytest.raises(GraphRefused, match="a layer of the sandbox is missing"):
        checker.check([PLAIN], signature(), PROOF, 5)
    checker.close()
    assert zygote.host.join() == [FrameKind.CHECKER]


def test_a_reason_is_one_line_of_bounded_length() -> None:
    refusal = SentFrame(FrameKind.REFUSAL, {"detail": "first\nsecond\x1b[2J" + "x" * 5000})
    with pytest.raises(GraphRefused) as caught:
        check_with_fake(READY, refusal)
    said = str(caught.value)
    assert len(said) <= graph_checker.MOST_REASON_CHARACTERS + 3
    assert "\n" not in said
    assert "\x1b" not in said


@pytest.mark.parametrize(("code", "reason"), [(-signal.SIGFPE, "died with SIGFPE"), (1, "exited with status 1")])
def test_a_checker_that_dies_of_a_graph_refuses_it_for_now(code: int, reason: str) -> None:
    with pytest.raises(GraphRefused, match=reason) as caught:
        check_with_fake(READY, code=code)
    assert not caught.value.is_final


def test_a_checker_reads_the_request_that_was_written() -> None:
    from serving.wire.graph_requests import CheckRequest

    guard = Guard(largest=1e9, known={0: ("a", 1.5, True)})
    request = CheckRequest(
        signature=signature(2), guard=guard, most_rows=MOST_ROWS, graphs=(({"predict": ("y", "z")}, 5),)
    )
    raw = orjson.dumps(request.model_dump(mode="json"), option=orjson.OPT_NON_STR_KEYS)
    assert CheckRequest.model_validate_json(raw) == request
