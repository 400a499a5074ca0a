"""An evaluation by hosts that are honest, confused or hostile: each one ends in a verdict, and in nothing else."""

from __future__ import annotations

import json
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

import pytest

from serving.domain.compiled_form import Compilation
from serving.domain.environment import Choice, Needs
from serving.domain.errors import HostDied
from serving.domain.provenance import Provenance
from serving.domain.report import CandidateReport, Evaluation, GateName, GateResult, Verdict
from serving.domain.sandbox import Sandbox
from serving.domain.signature import MAX_FEATURES, Feature
from serving.domain.version import Format
from serving.hosting import evaluating
from serving.hosting.evaluating import RunsElsewhere, evaluate_candidate
from serving.wire.evaluation import CompileRequest, EvaluationFile, EvaluationRequest, Findings, NeedsFound
from serving.wire.frames import BOUNDS, FrameKind
from serving.wire.stream import TimedSocket
from tests.e2e.harness import until
from tests.unit.host.forgery import (
    COMPILED,
    FILE,
    GRAPH,
    LACKING,
    SIGNATURE,
    STAYS,
    WHOLE,
    FakeHost,
    SentFrame,
    forge_frame,
    make_findings,
    make_honest_frames,
    make_request,
)

GATES: list[str] = list(GateName)
DEADLINE_SECONDS = 30.0
KEY = Provenance(version="1", key="ed25519:abc...", created_at=datetime(2026, 11, 20, tzinfo=UTC))
Play = Callable[..., Evaluation]


@pytest.fixture
def hosts() -> Iterator[list[FakeHost]]:
    """A list for every host that a test makes; all of them are ended."""
    made: list[FakeHost] = []
    yield made
    for host in made:
        host.join()


@pytest.fixture
def play(hosts: list[FakeHost]) -> Play:
    """Return a function that evaluates a request with a host that sends the given frames."""

    def run(
        asked: EvaluationRequest,
        said: list[SentFrame],
        *,
        code: int | None = 0,
        seconds: float = DEADLINE_SECONDS,
        **how: Any,
    ) -> Evaluation:
        hosts.append(FakeHost([each.pack() for each in said], code, how.pop("says", None)))
        host: Any = hosts[-1]
        return evaluate_candidate(host, asked, seconds, **how)

    return run


def make_prior(provenance: Verdict = Verdict.PASSED) -> tuple[GateResult, ...]:
    """Return the results of the gates that have run at home before a host elsewhere goes on."""
    verdicts = dict.fromkeys(GATES[: GATES.index("load")], Verdict.PASSED) | {"provenance": provenance}
    return tuple(GateResult(gate=gate, verdict=verdict, evidence="") for gate, verdict in verdicts.items())


def get_refusal(evaluation: Evaluation) -> GateResult:
    result = evaluation.report.refusal
    assert result is not None
    assert evaluation.report.gates[-1] is result
    assert not evaluation.graphs
    assert result.evidence.isprintable()
    assert len(result.evidence) <= 2000
    return result


# --- an honest host ---------------------------------------------------------------------------------------------------


def test_a_host_that_passes_every_gate_is_left_to_serve(play: Play, hosts: list[FakeHost]) -> None:
    told: list[str] = []
    asked = make_request()
    evaluation = play(
        asked,
        make_honest_frames(asked),
        on_gate_started=told.append,
        on_gate_finished=lambda result: told.append(result.gate),
    )
    report = evaluation.report
    assert [result.gate for result in report.gates] == GATES
    assert report.is_ready
    assert report.signature == SIGNATURE
    assert (report.engine, report.memory_bytes, report.compilation) == ("sklearn", 1 << 20, STAYS)
    assert (report.sandbox, report.libraries) == (WHOLE, {"python": "3.11"})
    assert told == [gate for gate in GATES for _ in range(2)]
    assert not hosts[0].was_closed.is_set()
    assert hosts[0].join() == [FrameKind.EVALUATE, FrameKind.LOAD]


@pytest.mark.parametrize("graphs", [1, 2])
def test_graphs_come_with_the_report_and_the_host_is_gone(play: Play, hosts: list[FakeHost], graphs: int) -> None:
    asked = make_request()
    evaluation = play(asked, make_honest_frames(asked, graphs=graphs))
    assert evaluation.report.refusal is None
    assert evaluation.report.is_compiled
    assert evaluation.report.memory_bytes == graphs * len(GRAPH)
    assert "onnxruntime" in evaluation.report.libraries
    assert [bytes(graph.content) for graph in evaluation.graphs] == [GRAPH] * graphs
    assert {method for graph in evaluation.graphs for method in graph.outputs} == set(SIGNATURE.methods)
    assert hosts[0].was_closed.is_set()


@pytest.mark.parametrize("gate", GATES)
def test_a_refusal_by_a_gate_is_kept(play: Play, hosts: list[FakeHost], gate: str) -> None:
    asked = make_request()
    nothing = Findings()
    result = get_refusal(play(asked, make_honest_frames(asked, findings=nothing, refused_by=gate)))
    assert (result.gate, result.evidence) == (gate, f"{gate} was looked at")
    is_opened = GATES.index(gate) >= GATES.index(GateName.LOAD)
    assert hosts[0].join() == [FrameKind.EVALUATE, *([FrameKind.LOAD] if is_opened else [])]


def test_a_version_that_is_loaded_again_is_also_warmed_up(play: Play) -> None:
    asked = make_request(is_respawn=True)
    report = play(asked, make_honest_frames(asked)).report
    assert [result.gate for result in report.gates] == ["load", "warm-up"]
    assert report.is_ready


@pytest.mark.parametrize(("place", "where"), [("own", "the server"), ("sk15", "the environment 'sk15'")])
@pytest.mark.parametrize(("now", "is_taken"), [("1.5.0", True), ("1.6.1", False), (None, False)])
def test_a_version_is_not_loaded_again_under_another_library(
    play: Play, hosts: list[FakeHost], place: str, where: str, now: str | None, is_taken: bool
) -> None:
    asked = make_request(is_respawn=True, place=place, passed_under={"scikit-learn": "1.5.2", "numpy": "1.0"})
    said = [
        each
        if each.kind is not FrameKind.PREPARED
        else SentFrame(each.kind, {**each.header, "libraries": {} if now is None else {"scikit-learn": now}})
        for each in make_honest_frames(asked)
    ]
    evaluation = play(asked, said)
    if not is_taken:
        refusal = get_refusal(evaluation)
        assert refusal.gate == "load"
        assert f"evaluated with scikit-learn 1.5.2, and {where} has {now or 'none'} by now" in refusal.evidence
    assert (FrameKind.LOAD in hosts[0].join()) is is_taken


# --- before the file is opened ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_respawn", [False, True])
def test_a_file_is_not_opened_without_a_required_layer_of_the_sandbox(
    play: Play, hosts: list[FakeHost], is_respawn: bool
) -> None:
    asked = make_request(require_sandbox=True, is_respawn=is_respawn)
    result = get_refusal(play(asked, make_honest_frames(asked, LACKING)))
    assert result.gate == "load"
    assert "security.require_sandbox" in result.evidence
    assert "no seccomp (Function not implemented)" in result.evidence
    assert FrameKind.LOAD not in hosts[0].join()


def test_a_report_cannot_claim_a_sandbox_afterwards(play: Play) -> None:
    asked = make_request()
    said = make_honest_frames(asked, LACKING)
    said[-1] = SentFrame(FrameKind.REPORT, {**said[-1].header, "sandbox": WHOLE.model_dump(mode="json")})
    assert "sandbox" in get_refusal(play(asked, said)).evidence
    report = play(asked, make_honest_frames(asked, LACKING)).report
    assert report.sandbox == LACKING


@pytest.mark.parametrize("provenance", [None, KEY])
def test_an_unsigned_file_is_not_opened_where_signatures_are_required(
    play: Play, hosts: list[FakeHost], provenance: Provenance | None
) -> None:
    """The gate must have passed, whatever the host reports as provenance."""
    asked = make_request(trust="signed")
    said = make_honest_frames(asked, provenance=provenance)
    if provenance is not None:
        place = next(i for i, each in enumerate(said) if each.header.get("gate") == "provenance") + 1
        said[place] = said[place]._replace(header={**said[place].header, "verdict": "skipped"})
    result = get_refusal(play(asked, said))
    assert result.gate == "load"
    assert "no trusted key" in result.evidence
    assert FrameKind.LOAD not in hosts[0].join()


def test_a_signed_file_is_opened(play: Play, hosts: list[FakeHost]) -> None:
    asked = make_request(trust="signed")
    assert play(asked, make_honest_frames(asked, provenance=KEY)).report.provenance == KEY
    assert FrameKind.LOAD in hosts[0].join()
    unsigned = make_request(trust="signed", publisher_key="ed25519:...")
    assert play(unsigned, make_honest_frames(unsigned)).report.is_ready


# --- frames -----------------------------------------------------------------------------------------------------------


def assert_sound(asked: EvaluationRequest, report: CandidateReport) -> None:
    """Check what holds for every forgery."""
    gates = [result.gate for result in report.gates]
    assert gates == list(asked.gates[: len(gates)])
    for result in report.gates:
        assert result.evidence.isprintable()
        assert len(result.evidence) <= 2000
        assert isfinite(result.duration_seconds)
        assert 0 <= result.duration_seconds <= DEADLINE_SECONDS
    assert [result.verdict for result in report.gates].count(Verdict.REFUSED) <= 1
    if report.refusal is None:
        assert report.is_ready
        assert len(gates) == len(asked.gates)
        assert report.engine in ("sklearn", "onnx", "xgboost", "lightgbm")
    else:
        assert report.gates[-1] is report.refusal
    if report.compilation is not None:
        assert report.compilation.reason.isprintable()
        assert all(proven.kind.isprintable() for proven in report.compilation.rows)


PLAYS = {
    "hosted": (make_request(), 0),
    "compiled": (make_request(), 2),
    "brought back": (make_request(is_respawn=True), 0),
    "compared": (make_request(active_signature=SIGNATURE, active_version="0"), 0),
}


@pytest.mark.parametrize("name", PLAYS)
def test_every_forged_frame_is_refused_or_harmless(name: str) -> None:
    """Each part of each frame of an evaluation is forged in turn: each time there is a verdict, and no traceback."""
    asked, graphs = PLAYS[name]
    said = make_honest_frames(asked, graphs=graphs)
    every = 1 if name == "compiled" else 4  # that one says the most; the others differ by little
    count = tried = 0
    for place, frame in enumerate(said):
        if place > 4 and frame.kind in (FrameKind.GATE_STARTED, FrameKind.GATE_RESULT) and place < len(said) - 4:
            continue  # the gates in the middle are like those at both ends
        bounds = BOUNDS[FrameKind(frame.kind)]
        for what, forged in forge_frame(frame, (bounds.header_bytes, bounds.payload_bytes)):
            count += 1
            if count % every:
                continue
            tried += 1
            raw = [each.pack() for each in [*said[:place], forged, *said[place + 1 :]]]
            fake = FakeHost(raw)
            host: Any = fake
            try:
                evaluation = evaluate_candidate(host, asked, DEADLINE_SECONDS)
            except BaseException as error:
                raise AssertionError(f"{FrameKind(frame.kind).name} {place}, {what}: {error!r}") from error
            finally:
                fake.join()
            assert_sound(asked, evaluation.report)
            is_of_prefix = not what.startswith("header with") and not what.startswith("header b")
            assert evaluation.report.refusal is not None or not is_of_prefix, what
    assert tried > (500 if every == 1 else 150)


@pytest.mark.parametrize("place", range(0, 31, 3))
@pytest.mark.parametrize("kind", list(FrameKind))
def test_an_extra_or_early_frame_is_refused(play: Play, kind: FrameKind, place: int) -> None:
    asked = make_request()
    said = make_honest_frames(asked, graphs=1)
    header = next((each.header for each in said if each.kind == kind), {})
    is_in_its_place = place < len(said) and said[place].kind == kind and said[place].header == header
    is_after_gates = all(each.kind != FrameKind.GATE_RESULT for each in said[place:])
    said.insert(place, SentFrame(kind, header, GRAPH if kind is FrameKind.GRAPH else b""))
    evaluation = play(asked, said)
    if place >= len(said) - 1:
        assert evaluation.report.refusal is None, "what comes after the report is whoever serves' to see"
    else:
        # a report without the graphs it speaks of comes in time, and is not believed
        may_come = is_in_its_place or (kind is FrameKind.REPORT and is_after_gates)
        assert may_come or "broke the protocol" in get_refusal(evaluation).evidence
        assert evaluation.report.refusal is not None


def test_no_byte_after_the_report_is_read(play: Play, hosts: list[FakeHost]) -> None:
    asked = make_request()
    play(asked, [*make_honest_frames(asked), SentFrame(FrameKind.REPORT, {})], code=None)
    hosts[0].socket.settimeout(20)
    assert hosts[0].socket.recv(4) == b"SVH1"


def test_frames_of_a_host_that_claims_a_lot_cost_nothing(play: Play) -> None:
    asked = make_request(compile=CompileRequest(bytes=1 << 30))
    said = make_honest_frames(asked, graphs=1)
    said[-2] = said[-2]._replace(header_bytes=10, payload_bytes=(1 << 30) + 1)
    tracemalloc.start()
    try:
        result = get_refusal(play(asked, said))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert "engine.compile_mb" in result.evidence


def test_a_report_of_more_values_than_any_costs_little(play: Play) -> None:
    """15 MB of empty lists would take 400 MB, and stop all other threads for a second."""
    asked = make_request()
    said = make_honest_frames(asked)
    header = b'{"signature":[' + b"[]," * (5 << 20) + b"[]]}"
    said[-1] = SentFrame(FrameKind.REPORT, header)
    tracemalloc.start()
    try:
        result = get_refusal(play(asked, said))
        assert tracemalloc.get_traced_memory()[1] < 6 * len(header)  # the test's own copies are three
    finally:
        tracemalloc.stop()
    assert "separators of values" in result.evidence


# --- graphs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "sandbox", "reason"),
    [
        (make_request(trust="any"), WHOLE, "security.trust is any"),
        (make_request(), LACKING, "a layer of the sandbox is missing"),
        (make_request(), Sandbox(), "a layer of the sandbox is missing"),
        (make_request(compile=CompileRequest(mode="off")), WHOLE, "engine.compile is off"),
        (make_request(compile=CompileRequest(known=STAYS)), WHOLE, "an earlier evaluation found none"),
        (make_request(format=Format.ONNX), WHOLE, "has signed the version"),
    ],
)
def test_a_graph_that_was_not_requested_is_refused_before_it_is_read(
    play: Play, asked: EvaluationRequest, sandbox: Sandbox, reason: str
) -> None:
    said = make_honest_frames(asked, sandbox, make_findings(make_request(), 1), graphs=1)
    claim = said[-2]._replace(header_bytes=10, payload_bytes=900)  # and then nothing: whoever reads it waits
    result = get_refusal(play(asked, [*said[:-2], claim], code=None))
    assert result.gate == "compile"
    assert reason in result.evidence
    engine = "onnx" if asked.format is Format.ONNX else "sklearn"
    own = make_findings(asked).model_copy(update={"engine": engine})
    assert play(asked, make_honest_frames(asked, sandbox, own)).report.is_ready


def test_three_graphs_are_one_too_many(play: Play) -> None:
    asked = make_request()
    said = make_honest_frames(asked, graphs=2)
    said.insert(-1, said[-2])
    assert "more than 2 graphs" in get_refusal(play(asked, said)).evidence


COMPILATIONS = {
    "without a graph": (0, {}, "without its graphs"),
    "with another size": (1, {"graph_bytes": 4}, "another size than"),
    "of another engine": (1, {"engine": "tensorflow"}, "impossible"),
    "that says it is none": (1, {"engine": None}, "without its graphs"),
    "with a guard over no feature": (1, {"guard": {"known": {"2": ["x"]}}}, "impossible"),
    "with bounds of its own": (
        1,
        {
            "bounds": {
                **dict.fromkeys(("row_bytes", "fixed_bytes", "row_texts", "fixed_texts"), 0),
                "rows": 1 << 40,
                "answer_bytes": {"predict": 0},
                "seconds": {"predict": [0.0, 0.0]},
                "session_bytes": 0,
            }
        },
        "impossible",
    ),
    "that has no room": (0, {"engine": None, "lacks_memory": True}, "says of the memory of workers"),
    "of negative rows at once": (1, {"most_rows": -1}, "impossible"),
    "of a negative time": (1, {"seconds": -1.0}, "impossible"),
    "of negative rows": (1, {"rows": [{"kind": "random", "rows": -1}]}, "impossible"),
    "of rows with a steering name": (1, {"rows": [{"kind": "\x1b[2J", "rows": 1}]}, "impossible"),
}


@pytest.mark.parametrize("name", COMPILATIONS)
def test_an_impossible_compiled_form_is_refused(play: Play, name: str) -> None:
    graphs, changes, reason = COMPILATIONS[name]
    asked = make_request()
    said = make_honest_frames(asked, graphs=graphs)
    compilation = {**COMPILED.model_dump(mode="json"), **changes}
    said[-1] = SentFrame(
        FrameKind.REPORT, {**said[-1].header, "engine": "onnx" if graphs else "sklearn", "compilation": compilation}
    )
    result = get_refusal(play(asked, said))
    assert result.gate == "compile"
    assert reason in result.evidence


@pytest.mark.parametrize(
    "outputs",
    [
        {"predict": ["y"]},
        {"predict": ["y"], "predict_proba": ["p"], "transform": ["t"]},
        {"predict": ["y"], "explode": ["p"]},
        {"predict": [], "predict_proba": ["p"]},
        {"predict": ["y" * 301], "predict_proba": ["p"]},
        {"predict": "y", "predict_proba": "p"},
        {},
        [],
    ],
)
def test_a_graph_answers_what_the_model_offers_by_outputs_with_names(play: Play, outputs: Any) -> None:
    asked = make_request()
    said = make_honest_frames(asked, graphs=1)
    said[-2] = SentFrame(FrameKind.GRAPH, {"outputs": outputs}, GRAPH)
    get_refusal(play(asked, said))


def test_a_known_verdict_on_compiling_cannot_change(play: Play) -> None:
    asked = make_request(compile=CompileRequest(known=STAYS))
    other = make_findings(asked).model_copy(update={"compilation": Compilation(engine=None, reason="faster")})
    result = get_refusal(play(asked, make_honest_frames(asked, findings=other)))
    assert (result.gate, "another verdict on compiling" in result.evidence) == ("compile", True)


def test_a_missing_compiled_form_is_refused_where_one_is_required(play: Play) -> None:
    asked = make_request(compile=CompileRequest(mode="require", bytes=1000))
    result = get_refusal(play(asked, make_honest_frames(asked)))
    assert result.gate == "compile"
    assert "engine.compile = require: slower" in result.evidence
    assert play(asked, make_honest_frames(asked, graphs=1)).report.is_compiled


# --- reports ----------------------------------------------------------------------------------------------------------

FINDINGS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no signature": ({"signature": None}, "load", "describes no model"),
    "an engine of another format": ({"engine": "onnx"}, "load", "does not read this format"),
    "no engine": ({"engine": None}, "load", "does not read this format"),
    "an engine that steers": ({"engine": "\x1b[2J"}, "load", "does not read this format"),
    "negative memory": ({"memory_bytes": -1}, "budget", "impossible amount of memory"),
    "more memory than there is": ({"memory_bytes": 1 << 60}, "budget", "impossible amount of memory"),
    "nothing of compiling": ({"compilation": None}, "compile", "reports nothing on compiling"),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_an_impossible_report_is_refused_by_the_gate_that_it_concerns(play: Play, name: str) -> None:
    changes, gate, reason = FINDINGS[name]
    asked = make_request()
    said = make_honest_frames(asked)
    said[-1] = SentFrame(FrameKind.REPORT, {**said[-1].header, **changes})
    evaluation = play(asked, said)
    result = get_refusal(evaluation)
    assert result.gate == gate
    assert reason in result.evidence
    assert [each.gate for each in evaluation.report.gates] == GATES[: GATES.index(gate) + 1]


SIGNATURES: dict[str, dict[str, Any]] = {
    "too long a name": {"features": [{"name": "x" * 1001}]},
    "a method twice": {"methods": ["predict", "predict"]},
    "an unknown method": {"methods": ["predict", "explode"]},
    "no methods": {"methods": []},
    "negative outputs": {"outputs": -1},
    "outputs beyond measure": {"outputs": 1 << 40},
    "labels beyond measure": {"classes": [list(range(200_000))] * 2},
    "labels that are lists": {"classes": [[[1]]]},
    "a dtype that there is not": {"features": [{"name": "a", "dtype": "object"}]},
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_that_cannot_be_served_is_refused(play: Play, name: str) -> None:
    asked = make_request()
    said = make_honest_frames(asked)
    signature = {**said[-1].header["signature"], **SIGNATURES[name]}
    said[-1] = SentFrame(FrameKind.REPORT, {**said[-1].header, "signature": signature})
    get_refusal(play(asked, said))
    already = play(asked, [*make_honest_frames(asked, refused_by="golden")[:-1], said[-1]])
    assert get_refusal(already).gate in ("load", "golden")
    assert already.report.signature is None, "a refused version has no signature either"


MANY: dict[str, tuple[dict[str, Any], str]] = {
    "too many features": ({"signature": {"features": [0] * 300_000}}, "300000 features, at most 100000 are taken"),
    "features that are none": ({"signature": {"features": [0] * 100_000}}, "an invalid feature"),
    "features without a name": ({"signature": {"features": [{}] * 100_000}}, "an invalid feature"),
    "features of odd dtypes": (
        {"signature": {"features": [{"name": "a", "dtype": []}] * 50_000}},
        "an invalid feature",
    ),
    "no list of features": ({"signature": {"features": {}}}, "no list of features"),
    "labels that are lists": ({"signature": {"classes": [[[]] * 200_000]}}, "class labels that are not plain values"),
    "too many labels": ({"signature": {"classes": [[0] * 300_000]}}, "300000 class labels"),
    "too many outputs": ({"signature": {"classes": [[]] * 300_000}}, "300000 outputs with classes"),
    "outputs that are none": ({"signature": {"classes": [0] * 200_000}}, "no list of class labels"),
    "known values that are lists": ({"compilation": {"guard": {"known": {"0": [[]] * 100_000}}}}, "not plain values"),
    "too many known values": ({"compilation": {"guard": {"known": {"0": [0] * 300_000}}}}, "300000 known values"),
    "known values of no feature": (
        {"compilation": {"guard": {"known": {"-1": ["x"]}}}},
        "not a feature",
    ),
    "known values without end": (
        {"compilation": {"guard": {"known": {str(place): [] for place in range(100_001)}}}},
        "not a feature",
    ),
    "too many kinds of rows": ({"compilation": {"rows": [{}] * 65}}, "65 kinds of rows"),
    "fields without end": ({str(place): 0 for place in range(300_000)}, "not the fields of Findings: 0"),
    "fields of a signature": ({"signature": {"\x1b[2J": 0}}, "not the fields of Signature: ?[2J"),
    "fields of a guard": ({"compilation": {"guard": {"x": 0}}}, "not the fields of Guard: x"),
    "a signature that is none": ({"signature": []}, "not the fields of Signature"),
}


@pytest.mark.parametrize("name", MANY)
def test_long_lists_are_checked_before_errors_are_made_of_them(play: Play, name: str) -> None:
    """Four million errors took 2.6 GB of the server's memory, and stopped all other threads for 9 seconds."""
    changes, reason = MANY[name]
    asked = make_request()
    said = make_honest_frames(asked)
    header = said[-1].header
    for key, value in changes.items():
        header[key] = {**header[key], **value} if isinstance(value, dict) and key in header else value
    result = get_refusal(play(asked, said))
    assert "broke the protocol" in result.evidence
    assert reason in result.evidence


def test_names_and_labels_are_not_changed(play: Play) -> None:
    """A table may have such columns: they are data. Only texts for people are cleaned."""
    signature = SIGNATURE.model_copy(
        update={"features": (Feature(name="Total\nSales"), Feature(name="\ufeffid")), "classes": (("a\tb", "\x1b[1m"),)}
    )
    asked = make_request()
    findings = make_findings(asked).model_copy(update={"signature": signature})
    assert play(asked, make_honest_frames(asked, findings=findings)).report.signature == signature


def test_a_hundred_thousand_features_are_taken_and_one_more_is_not(play: Play) -> None:
    asked = make_request()
    said = make_honest_frames(asked)
    for count in (MAX_FEATURES, MAX_FEATURES + 1):
        signature = {**said[-1].header["signature"], "features": write_features("the feature with the number ", count)}
        wide = SentFrame(FrameKind.REPORT, {**said[-1].header, "signature": signature})
        evaluation = play(asked, [*said[:-1], wide])
        if count == MAX_FEATURES:
            assert evaluation.report.is_ready
            assert evaluation.report.signature is not None
            assert len(evaluation.report.signature.features) == MAX_FEATURES
        else:
            assert "100001 features" in get_refusal(evaluation).evidence


def write_features(name: str, count: int) -> list[dict[str, Any]]:
    """Return features as a host sends them; to make so many of them as objects takes a second."""
    like = SIGNATURE.features[0].model_dump(mode="json")
    return [{**like, "name": f"{name}{place}"} for place in range(count)]


@pytest.mark.parametrize("kind", [Format.ONNX, Format.XGBOOST, Format.LIGHTGBM])
def test_each_format_has_its_engines(play: Play, kind: Format) -> None:
    asked = make_request(format=kind)
    assert get_refusal(play(asked, make_honest_frames(asked))).gate == "load"
    own = make_findings(asked).model_copy(update={"engine": str(kind)})
    assert play(asked, make_honest_frames(asked, findings=own)).report.engine == str(kind)


# --- the contract -----------------------------------------------------------------------------------------------------

WIDER = SIGNATURE.model_copy(update={"features": (*SIGNATURE.features, Feature(name="c"))})


def stage_manifest(tmp_path: Path, **fields: Any) -> tuple[EvaluationFile, ...]:
    listed = [{"name": FILE.name, "sha256": "0" * 64, "size": 1}]
    document = {"model": "m", "version": "1", "created_at": "2026-11-20T08:00:00Z", "files": listed, **fields}
    path = tmp_path / "manifest"
    path.write_text(json.dumps(document))
    return (FILE, EvaluationFile(name="manifest.json", sha256="00", size=path.stat().st_size, path=str(path)))


def test_a_contract_break_is_refused_whatever_the_gate_reported(play: Play, tmp_path: Path) -> None:
    asked = make_request(active_signature=WIDER, active_version="0")
    result = get_refusal(play(asked, make_honest_frames(asked)))
    assert result.gate == "contract"
    assert result.evidence.startswith("not compatible with the active version 0: takes 2 features")
    quiet = asked.model_copy(update={"files": stage_manifest(tmp_path)})
    assert get_refusal(play(quiet, make_honest_frames(quiet))).gate == "contract"


def test_a_contract_break_that_the_manifest_declares_is_accepted(play: Play, tmp_path: Path) -> None:
    asked = make_request(active_signature=WIDER, active_version="0", files=stage_manifest(tmp_path, breaking=True))
    assert play(asked, make_honest_frames(asked)).report.is_ready


def test_a_signature_that_the_manifest_does_not_declare_is_refused(play: Play, tmp_path: Path) -> None:
    files = stage_manifest(tmp_path, signature=WIDER.model_dump(mode="json"))
    asked = make_request(files=files)
    result = get_refusal(play(asked, make_honest_frames(asked)))
    assert result.gate == "contract"
    assert result.evidence.startswith("manifest.json declares 3 features")


def test_two_wide_signatures_are_compared_quickly(play: Play) -> None:
    """It took minutes when each name was looked up among all others."""

    features = tuple(Feature(name=f"a{place}") for place in range(MAX_FEATURES))
    asked = make_request(active_signature=SIGNATURE.model_copy(update={"features": features}))
    said = make_honest_frames(asked)
    signature = {**said[-1].header["signature"], "features": write_features("b", MAX_FEATURES)}
    said[-1] = SentFrame(FrameKind.REPORT, {**said[-1].header, "signature": signature})
    assert "feature names differ" in get_refusal(play(asked, said)).evidence


# --- texts ------------------------------------------------------------------------------------------------------------


def test_no_text_of_a_host_controls_a_terminal(play: Play) -> None:
    steering = "\x1b[2J\x1b]0;owned\x07\n2026 [error] forged\u202e"
    asked = make_request()
    said = make_honest_frames(asked)
    said = [
        each._replace(header={**each.header, "evidence": steering}) if each.kind == FrameKind.GATE_RESULT else each
        for each in said
    ]
    findings = make_findings(asked).model_copy(update={"compilation": Compilation(engine=None, reason=steering)})
    said[-1] = SentFrame(FrameKind.REPORT, findings.model_dump(mode="json"))
    told: list[str] = []
    report = play(asked, said, on_gate_finished=lambda result: told.append(result.evidence)).report
    assert report.is_ready
    assert report.compilation is not None
    for text in [*told, *(result.evidence for result in report.gates), report.compilation.reason]:
        assert text == "?[2J?]0;owned? 2026 [error] forged?"


# --- time -------------------------------------------------------------------------------------------------------------


def test_impossible_times_are_refused_or_cut(play: Play) -> None:
    asked = make_request()
    for seconds in (-1.0, "NaN", 1e308):
        said = make_honest_frames(asked)
        said[1] = said[1]._replace(header={**said[1].header, "duration_seconds": seconds})
        report = play(asked, said).report
        if seconds == 1e308:
            assert report.gates[0].duration_seconds < DEADLINE_SECONDS
        else:
            assert report.refusal is not None


@pytest.mark.parametrize("place", [0, 1, 8, -1])
def test_slow_bytes_do_not_move_the_deadline(play: Play, hosts: list[FakeHost], place: int) -> None:
    asked = make_request(compile=CompileRequest(seconds=0.01))
    frames = [each.pack() for each in make_honest_frames(asked)]

    def dribble(sock: socket.socket) -> None:
        until(lambda: hosts and hosts[0]._received, "the request: its time runs from then on")
        sock.sendall(b"".join(frames[:place]))
        for byte in frames[place] * 1000:
            sock.sendall(bytes([byte]))
            time.sleep(0.01)

    result = get_refusal(play(asked, [], seconds=0.5, says=dribble))
    assert "not finished after 0.5 s (candidate.timeout_seconds)" in result.evidence
    assert hosts[0].was_closed.is_set()


def test_compiling_has_its_own_time_once(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that never finishes gets the time for compiling once."""
    asked = make_request(compile=CompileRequest(seconds=0.5), place="sk15", prior=make_prior())
    frames = make_honest_frames(asked)
    place = next(place for place, each in enumerate(frames) if each.header.get("gate") == "compile")
    made: list[TimedSocket] = []
    began: list[float] = []

    def make(sock: socket.socket, ends_at: float) -> TimedSocket:
        made.append(TimedSocket(sock, ends_at))
        return made[-1]

    def let_time_pass(gate: str) -> None:
        if gate == "compile":
            made[0].ends_at = time.monotonic()
            began.append(made[0].ends_at)

    monkeypatch.setattr(evaluating, "TimedSocket", make)
    result = get_refusal(play(asked, frames[: place + 1], code=None, on_gate_started=let_time_pass))
    assert result.gate == "compile"
    assert [source.ends_at for source in made] == [began[0] + 0.5]


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(0, 27, 5))
@pytest.mark.parametrize("is_cut", [False, True])
def test_a_killed_host_gives_no_verdict(play: Play, place: int, is_cut: bool) -> None:
    asked = make_request()
    said = make_honest_frames(asked)

    def say(sock: socket.socket) -> None:
        sock.sendall(b"".join(each.pack() for each in said[:place]))
        sock.sendall(said[place].pack()[:-3] if is_cut else b"")

    for code in (-9, None):
        with pytest.raises(HostDied, match="killed from outside"):
            play(asked, [], code=code if code is not None else 0, says=say) if code else _without_a_code(
                play, asked, say
            )


def _without_a_code(play: Play, asked: EvaluationRequest, say: Callable[[socket.socket], None]) -> None:
    """The zygote is gone, so it is not known how the process ended."""

    def say_and_end(sock: socket.socket) -> None:
        say(sock)
        sock.shutdown(socket.SHUT_RDWR)

    play(asked, [], code=None, says=say_and_end)


@pytest.mark.parametrize("code", [1, -11])
def test_a_host_that_ends_before_it_opens_the_file_gives_no_verdict(play: Play, code: int) -> None:
    asked = make_request()
    first = make_honest_frames(asked)[0].pack()
    for said in (b"", first):
        with pytest.raises(HostDied, match="during gate 'published', before it opened the file"):
            play(asked, [], code=code, says=lambda sock, said=said: sock.sendall(said))


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize(
    ("code", "words"), [(3, "exited with status 3"), (-11, "died with SIGSEGV"), (-99, "signal 99")]
)
def test_any_other_end_of_a_host_refuses_its_candidate(play: Play, code: int, words: str, is_cut: bool) -> None:
    asked = make_request()
    said = make_honest_frames(asked)

    def say(sock: socket.socket) -> None:
        sock.sendall(b"".join(each.pack() for each in said[:9]))
        sock.sendall(said[9].pack()[:5] if is_cut else b"")

    result = get_refusal(play(asked, [], code=code, says=say))
    assert (result.gate, words in result.evidence) == ("load", True)


# --- which environment ------------------------------------------------------------------------------------------------

NEEDS = Needs(libraries={"scikit-learn": "1.5.2"}, sources={"scikit-learn": "the file says"}, modules=("sklearn",))


def tell_needs(asked: EvaluationRequest, *, stays: bool = False, **forged: Any) -> list[SentFrame]:
    """Return the frames of an honest host whose candidate needs `NEEDS`, with some fields forged."""
    found = {**NeedsFound(needs=NEEDS, stays=stays).model_dump(mode="json"), **forged}
    return [each._replace(header=found) if each.kind is FrameKind.NEEDS else each for each in make_honest_frames(asked)]


def test_a_candidate_of_another_environment_is_not_loaded_here(play: Play, hosts: list[FakeHost]) -> None:
    seen: list[tuple[NeedsFound, dict[str, str]]] = []

    def choose(found: NeedsFound, libraries: dict[str, str]) -> Choice:
        seen.append((found, libraries))
        return Choice(name="sk15", reason="it fits")

    asked = make_request()
    with pytest.raises(RunsElsewhere) as raised:
        play(asked, tell_needs(asked), choose=choose)
    moved = raised.value.request
    assert seen == [(NeedsFound(needs=NEEDS), {"python": "3.11"})]
    assert (moved.place, moved.needs, moved.choice) == ("sk15", NEEDS, Choice(name="sk15", reason="it fits"))
    assert [result.gate for result in moved.prior] == GATES[: GATES.index("load")]
    assert not moved.asks_needs
    [host] = hosts
    assert host.was_closed.is_set()
    assert FrameKind.LOAD not in host.join()


def test_the_time_to_choose_an_environment_is_not_the_candidates(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[TimedSocket, float]] = []
    took: list[float] = []

    def make(sock: socket.socket, ends_at: float) -> TimedSocket:
        made.append((TimedSocket(sock, ends_at), ends_at))
        return made[-1][0]

    def choose(*_: object) -> Choice:
        began = time.monotonic()
        time.sleep(0.05)
        took.append(time.monotonic() - began)
        return Choice(name="own", reason="it fits")

    monkeypatch.setattr(evaluating, "TimedSocket", make)
    asked = make_request(compile=CompileRequest(bytes=1000, seconds=0.0))
    assert play(asked, tell_needs(asked), choose=choose).report.is_ready
    ((source, ends_at),) = made
    assert source.ends_at - ends_at >= took[0]


def test_a_host_elsewhere_goes_on_from_the_gate_load(play: Play, hosts: list[FakeHost]) -> None:
    before = make_honest_frames(make_request())[1 : 2 * GATES.index("load") : 2]
    prior = tuple(GateResult.model_validate(each.header) for each in before)
    choice = Choice(name="sk15", reason="it fits")
    asked = make_request(place="sk15", prior=prior, provenance=KEY, needs=NEEDS, choice=choice)
    started: list[str] = []
    said = make_honest_frames(asked, provenance=KEY.model_copy(update={"key": "ed25519:forged..."}))
    report = play(asked, said, on_gate_started=started.append).report
    assert started == GATES[GATES.index("load") :]
    assert [result.gate for result in report.gates] == GATES
    assert (report.needs, report.environment, report.provenance) == (NEEDS, choice, KEY)
    assert FrameKind.LOAD in hosts[0].join()


@pytest.mark.parametrize(
    ("settings", "verdict", "provenance", "reason"),
    [
        ({"trust": "signed"}, Verdict.SKIPPED, None, "no trusted key has signed"),
        ({"trust": "signed"}, Verdict.SKIPPED, KEY, "no trusted key has signed"),
        ({"trust": "signed"}, Verdict.PASSED, None, "no trusted key has signed"),
        ({"require_sandbox": True}, Verdict.PASSED, KEY, "this system lacks what security.require_sandbox asks for"),
    ],
)
def test_a_host_elsewhere_opens_no_file_without_what_the_settings_require(
    play: Play,
    hosts: list[FakeHost],
    settings: dict[str, Any],
    verdict: Verdict,
    provenance: Provenance | None,
    reason: str,
) -> None:
    """Whatever the host there says of the signature: what counts is what was found out at home."""
    prior = make_prior(verdict)
    choice = Choice(name="sk15", reason="it fits")
    asked = make_request(place="sk15", prior=prior, provenance=provenance, needs=NEEDS, choice=choice, **settings)
    refusal = get_refusal(play(asked, make_honest_frames(asked, LACKING, provenance=KEY)))
    assert refusal.gate == "load"
    assert reason in refusal.evidence
    assert FrameKind.LOAD not in hosts[0].join()


def test_where_no_environment_fits_nothing_is_loaded(play: Play, hosts: list[FakeHost]) -> None:
    asked = make_request()
    started: list[str] = []
    evaluation = play(
        asked,
        tell_needs(asked),
        choose=lambda *_: Choice(name=None, reason="none has 1.5"),
        on_gate_started=started.append,
    )
    refusal = get_refusal(evaluation)
    assert (refusal.gate, refusal.evidence) == ("environment", "none has 1.5")
    assert [result.gate for result in evaluation.report.gates] == [*GATES[: GATES.index("load")], "environment"]
    assert (evaluation.report.needs, evaluation.report.environment) == (NEEDS, Choice(name=None, reason="none has 1.5"))
    assert started[-1] == "environment"
    assert FrameKind.LOAD not in hosts[0].join()


@pytest.mark.parametrize(("environment", "stays"), [("warn", False), ("refuse", True)])
def test_what_fits_nowhere_is_loaded_here_if_the_settings_say_so_or_loading_explains_it(
    play: Play, hosts: list[FakeHost], environment: str, stays: bool
) -> None:
    asked = make_request(environment=environment)
    said = tell_needs(asked, stays=stays)
    report = play(asked, said, choose=lambda *_: Choice(name=None, reason="none has 1.5")).report
    assert report.refusal is None
    assert report.environment == Choice(name="own", reason="no environment fits: none has 1.5")
    assert FrameKind.LOAD in hosts[0].join()


LONG = "x" * 1000


@pytest.mark.parametrize(
    "forged",
    [
        {"needs": {**NEEDS.model_dump(), "libraries": {"scikit-learn": LONG}}},
        {"needs": {**NEEDS.model_dump(), "libraries": {"scikit-learn": "1.5\x1b[2J"}}},
        {"needs": {**NEEDS.model_dump(), "modules": ["a\nb"]}},
        {"needs": {**NEEDS.model_dump(), "environment": LONG}},
        {"needs": {**NEEDS.model_dump(), "modules": [f"m{number}" for number in range(5001)]}},
        {"needs": 1},
        {"absent": [LONG]},
        {"unknown": 1},
    ],
)
def test_forged_needs_are_a_broken_protocol(play: Play, forged: dict[str, Any]) -> None:
    asked = make_request()
    refusal = get_refusal(play(asked, tell_needs(asked, **forged)))
    assert refusal.gate == "load"
    assert "broke the protocol" in refusal.evidence
    assert len(refusal.evidence) < 600


@pytest.mark.parametrize("place", ["own", "sk15"])
def test_needs_are_told_once_and_at_home(play: Play, place: str) -> None:
    asked = make_request(place=place)
    said = make_honest_frames(asked)
    place_of_load = next(number for number, each in enumerate(said) if each.kind is FrameKind.PREPARED)
    said.insert(place_of_load + 1, SentFrame(FrameKind.NEEDS, NeedsFound(needs=NEEDS).model_dump(mode="json")))
    assert "NEEDS" in get_refusal(play(asked, said)).evidence


def test_a_host_that_does_not_tell_the_needs_breaks_the_protocol(play: Play) -> None:
    asked = make_request()
    said = [each for each in make_honest_frames(asked) if each.kind is not FrameKind.NEEDS]
    assert "where NEEDS of 0 was expected" in get_refusal(play(asked, said)).evidence
