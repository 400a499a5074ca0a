"""The warm-up gate: every method runs for one row and for a batch."""

from __future__ import annotations

import time
from typing import Any

import pytest

from serving.domain.report import Verdict
from serving.host.gates import warm_up_gate
from tests.unit.host.candidates import ROWS, MakeCandidate
from tests.unit.host.gates.test_finite_gate import AddsNumbers

CALLS: list[tuple[str, int]] = []


class RecordsCalls(AddsNumbers):
    """Records its calls."""

    def predict(self, X: Any) -> Any:
        CALLS.append(("predict", len(X)))
        return super().predict(X)

    def score_samples(self, X: Any) -> Any:
        CALLS.append(("score_samples", len(X)))
        return AddsNumbers.predict(self, X)


class Slow(RecordsCalls):
    def predict(self, X: Any) -> Any:
        time.sleep(0.02)
        return super().predict(X)


@pytest.fixture(autouse=True)
def _clear_calls() -> None:
    CALLS.clear()


@pytest.fixture(autouse=True)
def _is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model counts as slow because this machine is busy."""
    monkeypatch.setattr(warm_up_gate, "BATCH_SECONDS", 600.0)


def test_every_method_runs_for_one_row_and_for_a_batch(candidate: MakeCandidate) -> None:
    result = candidate(RecordsCalls().fit(ROWS)).evaluate()["warm-up"]
    assert (result.verdict, result.evidence) == (Verdict.PASSED, "predict, score_samples ran for 1 and 64 rows")
    assert CALLS[-4:] == [("predict", 1), ("score_samples", 1), ("predict", 64), ("score_samples", 64)]


def test_a_batch_is_no_larger_than_a_request_may_be(candidate: MakeCandidate) -> None:
    result = candidate(RecordsCalls().fit(ROWS)).evaluate(max_rows=5)["warm-up"]
    assert result.evidence == "predict, score_samples ran for 1 and 5 rows"
    assert "for 1 rows" in candidate(RecordsCalls().fit(ROWS)).evaluate(max_rows=1)["warm-up"].evidence


def test_a_slow_model_gets_no_batch(candidate: MakeCandidate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up_gate, "BATCH_SECONDS", 0.01)
    assert candidate(Slow().fit(ROWS)).evaluate()["warm-up"].evidence.endswith("ran for 1 rows")


def test_golden_rows_are_repeated_to_fill_a_batch(candidate: MakeCandidate) -> None:
    made = candidate(AddsNumbers("picky").fit(ROWS))
    made.write_golden(instances=[[100, 1, 2], [100, 3, 4]], expected={"predict": [103.0, 107.0]})
    assert made.evaluate()["warm-up"].evidence == "predict, score_samples ran for 1 and 64 rows"


def test_after_a_respawn_a_model_that_refuses_made_up_rows_is_not_warmed_up(candidate: MakeCandidate) -> None:
    outcome = candidate(AddsNumbers("picky").fit(ROWS)).evaluate(is_respawn=True)
    assert outcome["warm-up"].verdict is Verdict.SKIPPED
    assert outcome.model is not None


def test_a_model_that_fails_during_warm_up_is_refused(candidate: MakeCandidate) -> None:
    result = candidate(AddsNumbers("broken").fit(ROWS)).evaluate(is_respawn=True)["warm-up"]
    assert (result.verdict, result.evidence) == (Verdict.REFUSED, "RuntimeError: no such table")
