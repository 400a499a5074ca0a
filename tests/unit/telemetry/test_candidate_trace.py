"""Candidates as spans: the times of gates, and what their evidence may not say."""

from __future__ import annotations

import pytest

from serving.domain.report import GateName, GateResult, Verdict
from serving.telemetry.candidate_trace import MOST_CHARACTERS, CandidateTrace
from serving.telemetry.spans import SpanClock


def gate(name: str, evidence: str = "", seconds: float = 0.0, verdict: Verdict = Verdict.PASSED) -> GateResult:
    return GateResult(gate=name, verdict=verdict, evidence=evidence, duration_seconds=seconds)


def test_gates_last_as_long_as_was_measured_and_do_not_overlap_however_late_their_news_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000
    monkeypatch.setattr(SpanClock, "now_ns", lambda _: int(now * 1e9))
    trace = CandidateTrace("iris", "1")
    for seconds, told_at in ((2, 1007), (5, 1007), (0, 1007), (3, 1010)):  # the first one had ended at 1002
        now = told_at
        trace.add_gate(gate(GateName.LOAD, seconds=seconds))
    trace.end()
    candidate, *gates = trace.make_spans()
    seen = [(one.begins_at_ns / 1e9, one.ends_at_ns / 1e9) for one in gates]
    assert seen == [(1000, 1002), (1002, 1007), (1007, 1007), (1007, 1010)]
    assert (candidate.begins_at_ns, candidate.ends_at_ns) == (int(1000e9), int(1010e9))


@pytest.mark.parametrize("name", [GateName.GOLDEN, GateName.FINITE, GateName.BATCHING, GateName.WARM_UP])
def test_evidence_that_may_quote_rows_is_left_out(name: str) -> None:
    trace = CandidateTrace("iris", "1")
    trace.add_gate(gate(name, "row 3: expected 31337.5, got 'secret'", verdict=Verdict.REFUSED))
    trace.conclude("refused", name, "sha256:1")
    trace.end()
    candidate, found = trace.make_spans()
    assert "serving.evidence" not in found.attributes
    assert found.error == f"refused by {name}"
    assert candidate.error == f"refused: {name}"
    assert "31337" not in repr(candidate) + repr(found)


def test_values_in_the_evidence_of_compiling_are_masked() -> None:
    trace = CandidateTrace("iris", "1")
    trace.add_gate(gate(GateName.COMPILE, "stays in its host: differs for 'secret', by 31337.5"))
    assert trace.make_spans()[1].attributes["serving.evidence"] == "stays in its host: differs for ..., by ..."


def test_other_evidence_is_one_short_line() -> None:
    trace = CandidateTrace("iris", "1")
    trace.add_gate(gate(GateName.LOAD, "names os.system\n" + "x" * 1000))
    evidence = str(trace.make_spans()[1].attributes["serving.evidence"])
    assert evidence.startswith("names os.system xxx")
    assert len(evidence) <= MOST_CHARACTERS


def test_a_part_that_fails_has_its_error() -> None:
    trace = CandidateTrace("iris", "1")
    with pytest.raises(OSError, match="no space"), trace.time("staging"):
        raise OSError("no space left")
    trace.end()
    _, staging = trace.make_spans()
    assert (staging.name, staging.error, staging.attributes) == ("staging", "no space left", {"error.type": "OSError"})
