"""The finite gate: all answers to golden rows are finite, and those to made-up rows as far as the rows are suitable."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KernelDensity, RadiusNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from serving.domain.report import Verdict
from tests.unit.host.candidates import ROWS, MakeCandidate


class AddsNumbers(BaseEstimator):
    """Adds three numbers up, with a given fault."""

    def __init__(self, fault: str = "none") -> None:
        self.fault = fault

    def fit(self, X: Any, y: Any = None) -> AddsNumbers:
        self.n_features_in_ = 3
        return self

    def predict(self, X: Any) -> Any:
        sums = np.asarray(X, dtype=float).sum(axis=1)
        if self.fault == "all NaN":
            return sums * np.nan
        if self.fault == "some infinite":
            return np.where(np.arange(len(sums)) == 2, np.inf, sums)
        if self.fault == "picky" and (sums < 100).any():
            raise ValueError("numbers must add up to 100")
        if self.fault == "broken":
            raise RuntimeError("no such table")
        if self.fault == "null refused" and np.isnan(sums).any():
            raise ValueError("nothing may be missing")
        return sums

    def score_samples(self, X: Any) -> Any:
        return self.predict(X) - 1


class FailsInScoring(AddsNumbers):
    """Has a method that fails where ``predict`` does not."""

    def score_samples(self, X: Any) -> Any:
        if len(X) > 4:
            raise RuntimeError("too many")
        return np.zeros(len(X))


def test_finite_answers_pass(candidate: MakeCandidate, yes_or_no: Any) -> None:
    result = candidate(yes_or_no).evaluate()["finite"]
    assert result.verdict is Verdict.PASSED
    assert result.evidence == ("predict, predict_proba, predict_log_proba, decision_function finite on 8 made-up rows")


def test_nulls_are_tried_where_the_signature_allows_them(candidate: MakeCandidate) -> None:
    made = candidate(HistGradientBoostingRegressor(max_iter=2).fit(ROWS, ROWS[:, 0]))
    assert made.evaluate()["finite"].evidence == "predict finite on 8 made-up rows and 8 with nulls"


def test_nan_from_transform_for_null_counts_as_an_answer(candidate: MakeCandidate) -> None:
    result = candidate(StandardScaler().fit(ROWS)).evaluate()["finite"]
    assert result.verdict is Verdict.PASSED
    assert result.evidence == "transform finite on 8 made-up rows and 8 with nulls"
    scaler = StandardScaler().fit(ROWS)
    scaler.mean_[1] = np.nan
    assert candidate(scaler).evaluate()["finite"].verdict is Verdict.REFUSED


def test_a_model_without_any_finite_answer_is_refused(candidate: MakeCandidate) -> None:
    result = candidate(AddsNumbers("all NaN").fit(ROWS)).evaluate()["finite"]
    assert result.verdict is Verdict.REFUSED
    assert result.evidence == "predict is not finite (NaN or infinity) for any of 8 made-up rows"
    line = LinearRegression().fit(ROWS, ROWS[:, 0])
    line.coef_[1] = np.nan
    assert candidate(line).evaluate()["finite"].verdict is Verdict.REFUSED


def test_some_made_up_rows_without_a_finite_answer_are_a_warning(candidate: MakeCandidate) -> None:
    made = candidate(AddsNumbers("some infinite").fit(ROWS))
    result = made.evaluate()["finite"]
    assert result.verdict is Verdict.WARNED
    assert result.evidence.startswith("predict is not finite for 1 of 8 made-up rows, first for row 2")


def test_one_golden_row_without_a_finite_answer_is_a_refusal(candidate: MakeCandidate) -> None:
    made = candidate(AddsNumbers("some infinite").fit(ROWS))
    made.write_golden(instances=[[1, 2, 3]] * 4, expected={"predict": [6.0, 6.0, None, 6.0]})
    result = made.evaluate()["finite"]
    assert result.verdict is Verdict.REFUSED
    assert "predict is not finite for 1 of 4 golden rows, first for row 2" in result.evidence


def test_a_model_that_answers_no_row_is_refused(candidate: MakeCandidate) -> None:
    """The model may check its input in a way that cannot be guessed; then golden rows decide."""
    made = candidate(AddsNumbers("picky").fit(ROWS))
    result = made.evaluate()["finite"]
    assert result.verdict is Verdict.REFUSED
    assert result.evidence.startswith("no row was answered: the model refuses made-up rows")
    assert "numbers must add up to 100" in result.evidence
    assert "publish it with rows that it takes ('golden' of serving.publish, or golden.json)" in result.evidence
    made.write_golden(instances=[[50, 50, 1]], expected={"predict": [101.0]})
    outcome = made.evaluate()
    assert {outcome[gate].verdict for gate in ("finite", "budget", "warm-up")} == {Verdict.PASSED}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("input_example.json", {"columns": ["x0", "x1", "x2"], "data": [[50, 50, 1], [60, 60, 2]]}),
        ("serving_input_example.json", {"dataframe_split": {"columns": ["x0", "x1", "x2"], "data": [[50, 50, 1]]}}),
        ("serving_input_example.json", {"inputs": [[50, 50, 1], [50, 50, 2]]}),
    ],
)
def test_mlflows_input_example_is_tried_where_made_up_rows_are_refused(
    candidate: MakeCandidate, name: str, content: Any
) -> None:
    made = candidate(AddsNumbers("picky").fit(ROWS))
    made.write(name, json.dumps(content).encode())
    outcome = made.evaluate()
    assert outcome["finite"].verdict is Verdict.PASSED
    assert "rows of MLflow's input example" in outcome["finite"].evidence
    assert outcome["warm-up"].verdict is Verdict.PASSED
    assert outcome.model is not None


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"inputs": 5}', b'{"columns": 1, "data": [1]}', b"[[1, 2]]", b"[[1, 2, 3]]"]
)
def test_an_invalid_input_example_changes_nothing(candidate: MakeCandidate, content: bytes) -> None:
    made = candidate(AddsNumbers("picky").fit(ROWS))
    made.write("input_example.json", content)
    assert made.evaluate()["finite"].evidence.startswith("no row was answered: the model refuses made-up rows")


def test_bytes_accepted_before_are_not_refused(candidate: MakeCandidate) -> None:
    outcome = candidate(AddsNumbers("picky").fit(ROWS)).evaluate(was_accepted=True)
    assert outcome["finite"].verdict is Verdict.WARNED
    assert "add golden.json to have its answers checked" in outcome["finite"].evidence
    assert outcome["budget"].verdict is Verdict.WARNED
    assert outcome["warm-up"].verdict is Verdict.SKIPPED
    assert outcome.model is not None


def test_a_model_that_fails_is_refused(candidate: MakeCandidate) -> None:
    result = candidate(AddsNumbers("broken").fit(ROWS)).evaluate()["finite"]
    assert (result.verdict, result.evidence) == (Verdict.REFUSED, "RuntimeError: no such table")


def test_a_model_with_a_failing_method_is_refused(candidate: MakeCandidate) -> None:
    result = candidate(FailsInScoring().fit(ROWS)).evaluate()["finite"]
    assert result.verdict is Verdict.REFUSED
    assert result.evidence == "score_samples does not answer made-up rows: RuntimeError: too many"


def test_null_declared_for_a_model_that_refuses_it_is_refused(candidate: MakeCandidate) -> None:
    made = candidate(AddsNumbers("null refused").fit(ROWS))
    features = [{"name": name, "nullable": name != "b"} for name in "abc"]
    made.write_manifest(signature={"features": features, "methods": ["predict"]})
    result = made.evaluate()["finite"]
    assert result.verdict is Verdict.REFUSED
    assert result.evidence.startswith("the signature says that 'a', 'c' may be null, but predict does not answer null")


@pytest.mark.parametrize(
    "model",
    [DecisionTreeClassifier().fit(ROWS, ROWS[:, 0] > 0), KernelDensity(kernel="tophat", bandwidth=1e-3).fit(ROWS)],
    ids=["log of probability 0", "density 0"],
)
def test_minus_infinity_as_a_logarithm_is_allowed(candidate: MakeCandidate, model: Any) -> None:
    assert candidate(model).evaluate()["finite"].verdict is Verdict.PASSED


def test_made_up_rows_are_near_the_rows_a_model_keeps(candidate: MakeCandidate) -> None:
    """Far from these rows the model has no neighbours and answers NaN."""
    model = RadiusNeighborsRegressor(radius=0.01).fit(ROWS * 1000, ROWS[:, 0])
    assert candidate(model).evaluate()["finite"].verdict is Verdict.PASSED
