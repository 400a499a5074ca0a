"""Bools that may be null: float64 with NaN in a graph, whatever shape the requests have."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from serving.compiling.convert import convert_estimator
from serving.compiling.prove import prove_graphs
from serving.domain.signature import Dtype
from serving.host.estimator_model import EstimatorModel
from serving.host.signature_of_estimator import examine_estimator
from serving.plane.graph import GraphSession
from serving.rows.parsing import rows_to_batch

pytestmark = pytest.mark.usefixtures("steady_rows")

RANDOM = np.random.default_rng(3)
KINDS = RANDOM.choice(np.array(["a", "b", "c"]), 200)
VIP = RANDOM.choice(np.array([True, False, None], dtype=object), 200)
LABELS = np.where(VIP == True, "yes", np.where(VIP == False, KINDS, "unknown"))  # noqa: E712


def fit_model(encoder: Any, last: Any, null: Any) -> EstimatorModel:
    """Return a model of a text and a bool, fitted on `null` for the missing bools."""
    vip = np.array([null if cell is None else cell for cell in VIP], dtype=object)
    frame = pd.DataFrame({"kind": KINDS, "vip": vip, "paid": KINDS == "a"})
    branches = make_column_transformer((OneHotEncoder(), ["kind"]), (encoder, ["vip"]), remainder="passthrough")
    model = examine_estimator(make_pipeline(branches, last).fit(frame, LABELS), X=frame)
    assert [each.dtype for each in model.signature.features] == [Dtype.STRING, Dtype.BOOL, Dtype.BOOL]
    assert model.signature.features[1].nullable
    return model


@pytest.mark.parametrize("null", [math.nan, None], ids=["nan", "none"])
@pytest.mark.parametrize(
    ("encoder", "last"),
    [
        ("passthrough", RandomForestClassifier(5, random_state=0)),
        ("passthrough", HistGradientBoostingClassifier(max_iter=5)),
        (OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
        (OrdinalEncoder(encoded_missing_value=-1), LogisticRegression()),
    ],
    ids=["forest", "boosting", "one-hot", "ordinal"],
)
def test_nullable_bools_are_proved_with_and_without_null(encoder: Any, last: Any, null: Any) -> None:
    model = fit_model(encoder, last, null)
    graph = convert_estimator(model)
    proof = prove_graphs(model, [graph], 1e-5, [])
    assert {"random", "missing"} <= {one.kind for one in proof.rows}
    session = GraphSession(graph)
    for rows in (
        [["a", True, False], ["b", False, True]],
        [["b", None, True], ["b", True, False]],
        [["c", None, True]],
    ):
        batch = rows_to_batch(model.signature, rows)
        for method in model.signature.methods:
            mine, its = session.answer(method, batch).list_rows(), model.answer(method, batch).list_rows()
            assert mine == its if method == "predict" else np.allclose(mine, its, rtol=1e-12)


def test_nullable_bools_are_float64_inputs() -> None:
    with warnings.catch_warnings(action="ignore"):
        graph = convert_estimator(fit_model(OneHotEncoder(), LogisticRegression(), math.nan))
    session = onnxruntime.InferenceSession(graph.content, providers=["CPUExecutionProvider"])
    assert {each.name: each.type for each in session.get_inputs()} == {
        "c0": "tensor(string)", "c1": "tensor(double)", "c2": "tensor(bool)",
    }  # fmt: skip
