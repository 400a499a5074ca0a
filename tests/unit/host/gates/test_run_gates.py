"""All gates together: their order, where they stop, what they report, and that they raise no exception."""

from __future__ import annotations

import time
from typing import Any

import joblib
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression

from serving.domain.report import GateName, Verdict
from serving.host import gates
from serving.host.signature_of_estimator import signature_of
from serving.rows.batch import Batch
from tests.unit.host.candidates import ROWS, MakeCandidate


def test_every_gate_has_its_place() -> None:
    assert tuple(gate.name for gate in gates.GATES) == tuple(GateName)


def test_a_good_candidate_passes_all_gates_and_answers(candidate: MakeCandidate, yes_or_no: Any) -> None:
    outcome = candidate(yes_or_no).evaluate()
    assert [result.gate for result in outcome.report.gates] == list(GateName)
    assert {result.verdict for result in outcome.report.gates} == {Verdict.PASSED, Verdict.SKIPPED}
    assert outcome.report.refusal is None
    assert outcome.report.signature == signature_of(yes_or_no)
    assert outcome.report.engine == "sklearn"
    assert outcome.report.libraries["scikit-learn"] == sklearn.__version__
    assert outcome.report.memory_bytes is not None
    assert outcome.report.memory_bytes > 1 << 20
    assert outcome.model is not None
    assert outcome.model.answer("predict", Batch(2, ROWS[:2])).list_rows() == yes_or_no.predict(ROWS[:2]).tolist()


def test_the_start_and_end_of_each_gate_are_reported(candidate: MakeCandidate, yes_or_no: Any) -> None:
    events = candidate(yes_or_no).evaluate().events
    assert events[0::2] == [f"{name} started" for name in GateName]
    assert [line.split()[0] for line in events[1::2]] == list(GateName)


def test_the_first_refusal_is_the_last_gate(candidate: MakeCandidate) -> None:
    outcome = candidate({"a": 1}).evaluate()
    assert [result.gate for result in outcome.report.gates] == [
        "published",
        "integrity",
        "provenance",
        "format",
        "load",
    ]
    assert outcome.report.refusal is not None
    assert outcome.report.refusal.evidence.startswith("the file holds a dict")
    assert (outcome.model, outcome.report.signature, outcome.report.engine) == (None, None, None)
    assert outcome.events[-1] == "load refused"


def test_a_model_refused_after_loading_is_described_but_not_returned(candidate: MakeCandidate, yes_or_no: Any) -> None:
    made = candidate(yes_or_no)
    made.write_golden(instances=ROWS[:1].tolist(), expected={"predict": ["maybe"]})
    outcome = made.evaluate()
    assert outcome["golden"].verdict is Verdict.REFUSED
    assert outcome.model is None
    assert outcome.report.signature is not None


def test_a_respawned_version_is_only_loaded_and_warmed_up(candidate: MakeCandidate, yes_or_no: Any) -> None:
    made = candidate(yes_or_no)
    made.write_golden(instances=ROWS[:1].tolist(), expected={"predict": ["maybe"]})
    outcome = made.evaluate(is_respawn=True)
    assert [result.gate for result in outcome.report.gates] == ["load", "warm-up"]
    assert outcome.model is not None
    assert outcome.report.memory_bytes is not None


class RaisingGate:
    name = "load"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def check(self, context: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("one\ntwo in /home/me/x.py"), "RuntimeError: one two in ..."),
        (MemoryError(), "MemoryError"),
        (SystemExit(3), "SystemExit: 3"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_every_exception_in_a_gate_becomes_a_refusal_in_one_line(
    candidate: MakeCandidate, yes_or_no: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, line: str
) -> None:
    monkeypatch.setattr(gates, "GATES", (RaisingGate(error),))
    outcome = candidate(yes_or_no).evaluate()
    assert outcome.report.refusal is not None
    assert outcome.report.refusal.evidence == line


def test_durations_are_measured(candidate: MakeCandidate, yes_or_no: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(RaisingGate):
        def check(self, context: Any) -> Any:
            clock[0] += 0.25
            return Verdict.PASSED, "slept"

    clock = [10.0]
    monkeypatch.setattr(gates, "monotonic", lambda: clock[0])
    monkeypatch.setattr(gates, "GATES", (Slow(ValueError()),))
    assert candidate(yes_or_no).evaluate().report.gates[0].duration_seconds == 0.25


class CountsAnswers(LogisticRegression):
    calls = 0

    def predict(self, X: Any) -> Any:
        type(self).calls += 1
        return super().predict(X)


def test_a_small_model_passes_after_a_few_answers(candidate: MakeCandidate) -> None:
    """The time for that is measured by benchmarks/drop.py."""
    CountsAnswers.calls = 0
    model = CountsAnswers().fit(ROWS, ROWS[:, 0] > 0)
    made = candidate(model)
    made.write_golden(instances=ROWS[:5].tolist(), expected={"predict": model.predict(ROWS[:5]).tolist()})
    made.write_manifest(signature=signature_of(model).model_dump(mode="json"))
    assert made.evaluate().report.refusal is None
    assert CountsAnswers.calls < 60


class SleepsToAnswer(LogisticRegression):
    calls = 0

    def predict(self, X: Any) -> Any:
        type(self).calls += 1
        time.sleep(0.06)
        return super().predict(X)


def test_a_slow_model_answers_as_rarely_as_possible(candidate: MakeCandidate, yes_or_no: Any) -> None:
    SleepsToAnswer.calls = 0
    outcome = candidate(SleepsToAnswer().fit(ROWS, ROWS[:, 0] > 0)).evaluate()
    assert outcome.report.refusal is None
    assert SleepsToAnswer.calls < 16


def test_the_format_does_not_depend_on_the_name_of_the_blob(
    candidate: MakeCandidate, yes_or_no: Any, tmp_path: Any
) -> None:
    """Blobs have no suffix: the request names the format."""
    joblib.dump(yes_or_no, tmp_path / "x.onnx")
    made = candidate((tmp_path / "x.onnx").read_bytes(), "model.joblib")
    assert made.evaluate().report.refusal is None
