"""The load gate: it reports the loaded model and the time for it, or why loading failed."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import skops.io
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from serving.domain.report import Verdict
from serving.domain.version import Format
from serving.host import loading
from tests.unit.host.candidates import ROWS, MakeCandidate


def test_the_evidence_names_the_loaded_model(candidate: MakeCandidate) -> None:
    result = candidate(make_pipeline(StandardScaler()).fit(ROWS)).evaluate()["load"]
    assert result.verdict is Verdict.PASSED
    assert re.fullmatch(r"loaded Pipeline in [\d.e-]+ s", result.evidence)


def test_graph_outputs_without_a_method_are_named(candidate: MakeCandidate) -> None:
    tree = DecisionTreeClassifier(max_depth=2).fit(ROWS.astype("float32"), ROWS[:, 0] > 0)
    types = [("X", FloatTensorType([None, ROWS.shape[1]]))]
    options = {id(tree): {"zipmap": False, "decision_path": True}}
    with warnings.catch_warnings(action="ignore"):  # skl2onnx reads attributes that scikit-learn has deprecated
        graph = convert_sklearn(tree, initial_types=types, options=options)
    outcome = candidate(graph.SerializeToString(), "model.onnx", Format.ONNX).evaluate()
    assert outcome["load"].evidence.endswith(" s; no method answers with the output 'decision_path'")
    assert outcome["batching"].verdict is Verdict.PASSED
    assert outcome.model is not None


def test_a_file_that_cannot_be_served_is_refused_with_the_reason(candidate: MakeCandidate) -> None:
    result = candidate(["no", "estimator"]).evaluate()["load"]
    assert (result.verdict, result.evidence) == (
        Verdict.REFUSED,
        "the file holds an object of type list, not an estimator",
    )


def test_a_file_cut_short_is_refused(candidate: MakeCandidate, yes_or_no: Any) -> None:
    made = candidate(yes_or_no)
    whole = (made.directory / made.files["model.joblib"].sha256).read_bytes()
    made.write("model.joblib", whole[:-100])
    result = made.evaluate()["load"]
    assert result.verdict is Verdict.REFUSED
    assert "cut short or damaged" in result.evidence


def halve(rows: Any) -> Any:
    return rows / 2


def test_trusted_skops_types_are_loaded(candidate: MakeCandidate) -> None:
    raw = skops.io.dumps(FunctionTransformer(halve).fit(ROWS))
    made = candidate(raw, "model.skops", Format.SKOPS)
    refused = made.evaluate(trust="known")["load"]
    assert refused.verdict is Verdict.REFUSED
    assert "security.skops_trusted" in refused.evidence
    trusted = tuple(skops.io.get_untrusted_types(data=raw))
    assert made.evaluate(trust="known", skops_trusted=trusted)["load"].verdict is Verdict.PASSED


def test_any_trust_loads_skops_files_with_a_warning(candidate: MakeCandidate) -> None:
    raw = skops.io.dumps(FunctionTransformer(halve).fit(ROWS))
    result = candidate(raw, "model.skops", Format.SKOPS).evaluate(trust="any")["load"]
    assert result.verdict is Verdict.WARNED
    assert "loaded without knowing what it runs, because security.trust is any" in result.evidence


def test_under_any_trust_a_file_is_not_read_again_for_an_explanation(
    candidate: MakeCandidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = candidate(FunctionTransformer(halve).fit(ROWS))
    with monkeypatch.context() as patch:
        patch.setattr(loading, "survey_file", lambda *_: pytest.fail("the file was read again"))
        assert "halve, which is not on the list" in made.evaluate(trust="any")["load"].evidence
    assert "security.pickle_trusted" in made.evaluate(trust="known")["load"].evidence
