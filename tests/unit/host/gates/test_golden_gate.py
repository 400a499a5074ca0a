"""The golden gate: stored rows, read like those of a client, give the stored answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression

from serving.domain.report import GateResult, Verdict
from tests.unit.host.candidates import ROWS, Candidate, MakeCandidate
from tests.unit.host.gates.test_finite_gate import FailsInScoring

ASKED = ROWS[:12].tolist()


@pytest.fixture
def made(candidate: MakeCandidate, yes_or_no: Any) -> Candidate:
    return candidate(yes_or_no)


@pytest.fixture
def expected(yes_or_no: Any) -> dict[str, Any]:
    return {method: getattr(yes_or_no, method)(ROWS[:12]).tolist() for method in ("predict", "predict_proba")}


def judge(made: Candidate, **golden: Any) -> GateResult:
    made.write_golden(**golden)
    return made.evaluate()["golden"]


def test_the_gate_is_skipped_without_golden_examples(made: Candidate) -> None:
    result = made.evaluate()["golden"]
    assert (result.verdict, result.evidence) == (Verdict.SKIPPED, "no golden.json")


def test_equal_answers_pass(made: Candidate, expected: Any) -> None:
    result = judge(made, instances=ASKED, expected=expected)
    assert (result.verdict, result.evidence) == (
        Verdict.PASSED,
        "12 golden rows, predict and predict_proba equal within rtol 1e-06",
    )


def test_examples_may_be_objects(made: Candidate, expected: Any) -> None:
    instances = [dict(zip(("x2", "x0", "x1"), (c, a, b), strict=True)) for a, b, c in ASKED]
    assert judge(made, instances=instances, expected=expected).verdict is Verdict.PASSED


def test_another_label_is_refused_with_row_method_expected_and_got(made: Candidate, expected: Any) -> None:
    expected["predict"][3] = "maybe"
    result = judge(made, instances=ASKED, expected=expected)
    assert result.verdict is Verdict.REFUSED
    assert result.evidence.startswith("row 3, predict: expected 'maybe', got '")


def test_another_number_is_refused_with_the_largest_difference(made: Candidate, expected: Any) -> None:
    expected["predict_proba"][2][0] += 0.001
    expected["predict_proba"][5][0] += 0.25
    result = judge(made, instances=ASKED, expected=expected)
    assert result.verdict is Verdict.REFUSED
    assert result.evidence.startswith("row 2, predict_proba: expected [")
    assert result.evidence.endswith("(largest difference 0.25, rtol 1e-06)")


def test_golden_examples_may_set_the_tolerance(made: Candidate, expected: Any) -> None:
    expected["predict_proba"] = (np.array(expected["predict_proba"]) + 0.001).tolist()
    golden = {"instances": ASKED, "expected": expected}
    assert judge(made, **golden).verdict is Verdict.REFUSED
    assert judge(made, **golden, atol=0.002).verdict is Verdict.PASSED
    assert judge(made, **golden, rtol=0.5).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("instances", "answers", "words"),
    [
        (ASKED[:1], {"predict": ["no", "no"]}, "golden.json has 1 rows and 2 answers of predict"),
        (ASKED[:1], {"transform": [1]}, "golden.json expects transform, the model offers predict, predict_proba"),
        ([[1, 2]], {"predict": ["no"]}, "golden.json: row 0 has 2 values, the model takes 3"),
        ([[1, 2, "3"]], {"predict": ["no"]}, "golden.json: row 0, feature 'x2': expected a number, got the string"),
        (
            ASKED[:1],
            {"predict_proba": [[1.0]]},
            "row 0, predict_proba: 1 values expected, 2 given: expected [1.0], got",
        ),
        (ASKED[:1], {"predict": [["no"]]}, "row 0, predict: one is a list or an object, the other is not"),
    ],
)
def test_examples_for_another_model_are_refused(made: Candidate, instances: Any, answers: Any, words: str) -> None:
    result = judge(made, instances=instances, expected=answers)
    assert result.verdict is Verdict.REFUSED
    assert words in result.evidence


@pytest.mark.parametrize(
    "golden",
    [
        {"instances": ASKED, "expected": {"predict": []}, "rtl": 1},
        {"instances": [], "expected": {"predict": []}},
        {"instances": ASKED, "expected": {"guess": []}},
    ],
)
def test_a_misspelt_document_is_refused(made: Candidate, golden: dict[str, Any]) -> None:
    result = judge(made, **golden)
    assert result.verdict is Verdict.REFUSED
    assert result.evidence.startswith("golden.json: ")


def test_models_that_are_not_deterministic_are_checked_for_shape_only(candidate: MakeCandidate, yes_or_no: Any) -> None:
    made = candidate(DummyClassifier(strategy="uniform").fit(ROWS, yes_or_no.predict(ROWS)))
    golden = {"instances": ASKED, "expected": {"predict": ["?"] * 12, "predict_proba": [[9.0, 9.0]] * 12}}
    assert judge(made, **golden).verdict is Verdict.REFUSED
    result = judge(made, **golden, deterministic=False)
    assert result.verdict is Verdict.PASSED
    assert result.evidence.endswith("of the expected shape; declared not deterministic")
    golden["expected"]["predict_proba"][4] = [1.0]  # type: ignore[call-overload, index]
    assert "row 4, predict_proba: 1 values expected, 2 given" in judge(made, **golden, deterministic=False).evidence


def test_golden_rows_that_the_model_refuses_are_a_refusal(candidate: MakeCandidate) -> None:
    made = candidate(FailsInScoring().fit(ROWS))
    result = judge(made, instances=ASKED, expected={"score_samples": [0.0] * 12})
    assert result.verdict is Verdict.REFUSED
    assert result.evidence == "score_samples failed on the rows of golden.json: RuntimeError: too many"


def test_a_long_answer_is_shortened(candidate: MakeCandidate) -> None:
    many = LinearRegression().fit(ROWS, np.tile(ROWS, 40))
    result = judge(candidate(many), instances=ASKED[:1], expected={"predict": [[0.0] * 120]})
    assert result.verdict is Verdict.REFUSED
    assert len(result.evidence) < 400
