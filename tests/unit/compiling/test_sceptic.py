"""The fast part of what ``python -m benchmarks.magnitudes`` does for every estimator and option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from serving.compiling.converters import scaling
from serving.compiling.proof_rows import RowMaker
from tests.unit.compiling.sceptic import compare_on_hard_rows
from tests.unit.compiling.sceptic_cases import ROWS, TWO, list_cases

# one for each formula that differs; a name that no longer exists is an error
FAST = (
    "Normalizer(norm='l1')", "TfidfTransformer(norm='l1')", "PowerTransformer()",
    "PolynomialFeatures(include_bias=False", "RBFSampler(gamma='scale'", "SGDClassifier(loss='log_loss'",
    "MLPClassifier(activation='logistic'", "AffinityPropagation(random_state=0)",
    "OneVsOneClassifier(estimator=LogisticRegression())",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_clock(steady_rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the number of rows nor the proof may depend on how busy this machine is."""
    monkeypatch.setattr("serving.compiling.prove._measure_both", lambda prover, maker: [(2.0, 1.0), (2.0, 1.0)])


@pytest.mark.parametrize("start", FAST)
def test_hard_rows_are_answered_alike(start: str) -> None:
    name, fit = next((name, fit) for name, fit in list_cases() if name.split(" ", 1)[1].startswith(start))
    finding = compare_on_hard_rows(name, fit, rows=400)
    assert not finding.differences
    assert finding.answers, finding.reason


def test_the_sceptic_finds_differences_that_a_proof_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tiny rows, a proof passes a graph that divides by every norm; the sceptic finds the difference."""
    divided, kinds = scaling._divide_by_norm, RowMaker.make_batches
    monkeypatch.setattr(scaling, "_divide_by_norm", lambda rows, kind, least: divided(rows, kind))

    def without_tiny(maker: RowMaker, rows: int) -> Any:
        return ((kind, batch) for kind, batch in kinds(maker, rows) if kind != "tiny")

    monkeypatch.setattr(RowMaker, "make_batches", without_tiny)
    monkeypatch.setattr("serving.compiling.hard_numbers.SLIGHTLY", 0.0)
    monkeypatch.setattr("serving.compiling.number_limits.GROUPS", ())
    model = make_pipeline(Normalizer(), LogisticRegression())
    finding = compare_on_hard_rows("a wrong graph", lambda: model.fit(ROWS, TWO), rows=400)
    assert any(difference.startswith("predict_proba") for difference in finding.differences)
    assert np.isfinite(model.predict_proba(ROWS)).all()
