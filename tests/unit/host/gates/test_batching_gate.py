"""The batching gate: which models may answer rows of several requests together, and which never do."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.decomposition import NMF
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from serving.domain.report import Verdict
from serving.domain.version import Format
from serving.host.gates import batching_gate
from serving.host.gates.batching_gate import why_rows_may_interact
from serving.host.signature_of_estimator import examine_estimator
from tests.unit.host.candidates import ROWS, WORDS, MakeCandidate
from tests.unit.host.gates.test_finite_gate import AddsNumbers

LABELS = [word == "yes" for word in WORDS]


class SubtractsMean(RegressorMixin, BaseEstimator):
    """Subtracts the mean of all rows of a batch from each row."""

    def fit(self, X: Any, y: Any = None) -> SubtractsMean:
        self.n_features_in_ = np.shape(X)[1]
        return self

    def predict(self, X: Any) -> Any:
        return (X - X.mean(axis=0)).sum(axis=1)


class AnswersPosition(SubtractsMean):
    """Answers with the position of a row in its batch."""

    def predict(self, X: Any) -> Any:
        return np.arange(len(X)) if len(X) > 1 else np.array([0])


class AnswersByRow(SubtractsMean):
    """Computes each answer from one row only."""

    def predict(self, X: Any) -> Any:
        return X[:, 0] * 2


class AnswersByChance(SubtractsMean):
    """Gives another answer each time."""

    def predict(self, X: Any) -> Any:
        return np.random.default_rng().normal(size=len(X))


@pytest.fixture(autouse=True)
def _is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No trial is left out because this machine is busy."""
    monkeypatch.setattr(batching_gate, "SECONDS", 600.0)


def measure_distance(left: Any, right: Any) -> float:
    return float(np.abs(left - right).sum())


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression().fit(ROWS, WORDS),
        make_pipeline(StandardScaler(), Ridge()).fit(ROWS, LABELS),
        make_pipeline(FunctionTransformer(np.exp), Ridge()).fit(ROWS, LABELS),
    ],
    ids=lambda each: type(each).__name__,
)
def test_known_estimators_may_be_merged_without_a_trial(candidate: MakeCandidate, estimator: Any) -> None:
    report = candidate(estimator).evaluate()
    assert report["batching"].verdict is Verdict.PASSED
    assert report["batching"].evidence == "requests may be merged: every part is known to answer row by row"
    assert report.report.may_batch


@pytest.mark.parametrize(
    ("estimator", "named"),
    [
        (NMF(2, init="nndsvda", max_iter=5000), "NMF"),
        (BernoulliRBM(2, n_iter=1), "BernoulliRBM"),
        (make_pipeline(FunctionTransformer(np.cumsum, kw_args={"axis": 0}), Ridge()), "FunctionTransformer.func"),
        (KNeighborsRegressor(2, metric=measure_distance), "KNeighborsRegressor.metric"),
    ],
    ids=["NMF", "BernoulliRBM", "cumsum", "metric"],
)
def test_parts_that_may_use_other_rows_are_named(estimator: Any, named: str) -> None:
    assert named in str(why_rows_may_interact(examine_estimator(estimator.fit(np.abs(ROWS), LABELS))))


def test_estimators_known_to_use_other_rows_are_not_tried(candidate: MakeCandidate) -> None:
    outcome = candidate(BernoulliRBM(2, n_iter=1).fit(np.abs(ROWS))).evaluate()
    assert outcome["batching"].evidence.endswith(
        "never merged: BernoulliRBM uses other rows, or chance, for the answer to a row"
    )
    assert not outcome.report.may_batch


def test_own_code_may_be_merged_if_its_answers_are_the_same(candidate: MakeCandidate) -> None:
    report = candidate(AnswersByRow().fit(ROWS)).evaluate()
    assert report["batching"].verdict is Verdict.PASSED
    assert "predict gave the same answers to rows alone, together and in another order" in report["batching"].evidence


@pytest.mark.parametrize(
    ("estimator", "why"),
    [
        (SubtractsMean(), "predict gives another answer to row 0 when it is alone"),
        (AnswersPosition(), "predict gives another answer to row 0 when the rows are in another order"),
        (AnswersByChance(), "predict gives another answer to row 0 when the rows are in another order"),
    ],
    ids=["SubtractsMean", "AnswersPosition", "AnswersByChance"],
)
def test_models_whose_answers_depend_on_other_rows_are_never_merged(
    candidate: MakeCandidate, estimator: Any, why: str
) -> None:
    outcome = candidate(estimator.fit(ROWS)).evaluate()
    assert outcome["batching"].verdict is Verdict.WARNED
    assert outcome["batching"].evidence.startswith(f"requests are answered one by one, never merged: {why}")
    assert not outcome.report.may_batch


def test_models_that_refuse_made_up_rows_are_not_merged(candidate: MakeCandidate) -> None:
    outcome = candidate(AddsNumbers("picky").fit(ROWS)).evaluate(was_accepted=True)
    assert outcome["batching"].verdict is Verdict.WARNED
    assert "the model refuses made-up rows" in outcome["batching"].evidence


def test_golden_rows_are_tried_where_made_up_rows_are_refused(candidate: MakeCandidate) -> None:
    made = candidate(AddsNumbers("picky").fit(ROWS))
    made.write_golden(instances=[[100, 1, 2], [100, 3, 4]], expected={"predict": [103.0, 107.0]})
    assert made.evaluate()["batching"].verdict is Verdict.PASSED
    made = candidate(AddsNumbers("picky").fit(ROWS))
    made.write_golden(instances=[[100, 1, 2], [100, 1, 2]], expected={"predict": [103.0, 103.0]})
    assert "not two different rows" in made.evaluate()["batching"].evidence


@pytest.mark.parametrize("dtype", [onnx.TensorProto.INT64, onnx.TensorProto.FLOAT], ids=["integers", "floats"])
@pytest.mark.parametrize("is_across", [True, False])
def test_a_graph_is_tried_with_its_input_dtype(candidate: MakeCandidate, dtype: int, is_across: bool) -> None:
    outcome = candidate(make_graph(dtype, is_across), "model.onnx", Format.ONNX).evaluate()
    assert outcome["batching"].verdict is (Verdict.WARNED if is_across else Verdict.PASSED)
    assert ("predict gives another answer to row 0" in outcome["batching"].evidence) is is_across


def make_graph(dtype: int, is_across: bool) -> bytes:
    """Return a graph that answers its only feature; with `is_across`, less the mean of all rows."""
    nodes = [helper.make_node("Cast", ["X"], ["f"], to=onnx.TensorProto.FLOAT)]
    if is_across:
        nodes += [helper.make_node("ReduceMean", ["f"], ["mean"], axes=[0], keepdims=1)]
        nodes += [helper.make_node("Sub", ["f", "mean"], ["Y"])]
    else:
        nodes += [helper.make_node("Identity", ["f"], ["Y"])]
    given = helper.make_tensor_value_info("X", dtype, ["N", 1])
    answer = helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, ["N", 1])
    graph = helper.make_graph(nodes, "g", [given], [answer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
