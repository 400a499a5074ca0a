"""Estimators with other settings than in the test of every estimator, proved as a host proves them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_classification
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.kernel_approximation import AdditiveChi2Sampler, Nystroem
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.multiclass import OneVsOneClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, SplineTransformer, TargetEncoder
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from serving.compiling.convert import NotCompilable, convert_estimator
from serving.compiling.prove import prove_graphs
from serving.domain.compiled_form import Compilation
from serving.host.graph_check.graph_check import bound_graphs
from serving.host.signature_of_estimator import examine_estimator
from serving.rows.batch import Batch

pytestmark = pytest.mark.usefixtures("steady_rows")

ROWS, CLASSES = make_classification(200, 5, n_informative=4, n_redundant=0, n_classes=3, random_state=0)
WORDS = np.array(["low", "high", "mean"])[CLASSES]
VALUES = ROWS @ np.arange(1.0, 6.0)


def prove_estimator(estimator: Any, rows: Any = ROWS, answers: Any = WORDS, tolerance: float = 1e-9) -> Compilation:
    """Fit, convert and prove: most within one part in a thousand million, also where numbers are as large."""
    with warnings.catch_warnings(action="ignore"):
        model = examine_estimator(estimator.fit(rows, answers), X=rows)
        return prove_graphs(model, bound_graphs([convert_estimator(model)], model.signature).graphs, tolerance, [])


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("kind", [GaussianMixture, BayesianGaussianMixture])
def test_mixtures_of_all_covariance_types_are_proved(kind: Any, covariance: str) -> None:
    assert prove_estimator(kind(n_components=3, covariance_type=covariance, random_state=0)).engine == "onnx"


@pytest.mark.parametrize("weights", ["dirichlet_process", "dirichlet_distribution"])
def test_bayesian_mixtures_of_all_weights_are_proved(weights: str) -> None:
    mixture = BayesianGaussianMixture(n_components=3, weight_concentration_prior_type=weights, random_state=0)
    assert prove_estimator(mixture).engine == "onnx"


@pytest.mark.parametrize("priors", ["uniform", "empirical"])
@pytest.mark.parametrize("answers", [WORDS, CLASSES > 0], ids=["three", "two"])
def test_nearest_centroids_are_proved(priors: str, answers: Any) -> None:
    rows = ROWS[:-3]  # classes of unequal sizes
    assert (
        prove_estimator(NearestCentroid(priors=priors, shrink_threshold=0.1), rows, answers[:-3], 1e-4).engine == "onnx"
    )


@pytest.mark.parametrize("inside", [LinearSVC(), DecisionTreeClassifier(max_depth=3)])
@pytest.mark.parametrize("answers", [WORDS, CLASSES > 0], ids=["three", "two"])
def test_classifiers_by_pairs_and_codes_are_proved(inside: Any, answers: Any) -> None:
    assert prove_estimator(OneVsOneClassifier(inside), answers=answers).engine == "onnx"
    assert prove_estimator(OutputCodeClassifier(inside, code_size=3, random_state=0), answers=answers).engine == "onnx"


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_chains_in_another_order_are_proved(method: str) -> None:
    labels = np.column_stack([CLASSES > 0, CLASSES > 1, VALUES > 0]).astype(int)
    chain = ClassifierChain(LogisticRegression(), order=[2, 0, 1], chain_method=method)
    assert prove_estimator(chain, answers=labels).engine == "onnx"


@pytest.mark.parametrize(("extrapolation", "degree"), [("constant", 1), ("constant", 3), ("linear", 2), ("linear", 3)])
@pytest.mark.parametrize("is_biased", [True, False])
def test_splines_are_proved_inside_and_outside_their_knots(extrapolation: str, degree: int, is_biased: bool) -> None:
    splines = SplineTransformer(4, degree=degree, extrapolation=extrapolation, include_bias=is_biased)
    assert prove_estimator(splines).engine == "onnx"
    knots = splines.bsplines_[0].t[degree:-degree]
    rows = np.repeat(np.concatenate([knots, knots + 1e-12, knots - 1e-12, [-1e3, 1e3]])[:, None], 5, axis=1)
    model = examine_estimator(make_pipeline(splines, LinearRegression()).fit(ROWS, VALUES))
    assert prove_graphs(model, [convert_estimator(model)], 1e-9, [Batch(len(rows), matrix=rows)]).engine == "onnx"


def test_splines_of_other_settings_stay_in_their_host() -> None:
    for options in ({"extrapolation": "periodic"}, {"extrapolation": "linear", "degree": 1}, {"degree": 0}):
        with pytest.raises(NotCompilable, match="SplineTransformer of this degree, extrapolation"):
            prove_estimator(SplineTransformer(**options))


@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly", "sigmoid"])
def test_nystroem_is_proved_with_all_kernels(kernel: str) -> None:
    assert prove_estimator(Nystroem(kernel, n_components=20, random_state=0), tolerance=1e-5).engine == "onnx"


def test_chi2_kernels_are_proved_with_zeros() -> None:
    rows = np.abs(ROWS)
    rows[::7] = 0
    assert prove_estimator(AdditiveChi2Sampler(sample_steps=3), rows).guard.smallest == 0.0


def test_indicators_of_missing_values_are_proved() -> None:
    rows = ROWS.copy()
    rows[::7, 1] = rows[::5, 3] = np.nan
    assert prove_estimator(MissingIndicator(error_on_new=False), rows).engine == "onnx"
    model = make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression())
    assert "missing" in {one.kind for one in prove_estimator(model, rows).rows}
    assert prove_estimator(SimpleImputer(add_indicator=True), rows).engine == "onnx"


@pytest.mark.parametrize("options", [{}, {"sublinear_tf": True, "norm": "l1"}, {"use_idf": False, "norm": None}])
def test_tf_idf_weights_of_counts_are_proved(options: dict[str, Any]) -> None:
    counts = np.round(np.abs(ROWS))
    assert prove_estimator(TfidfTransformer(**options), counts).engine == "onnx"


def test_target_encoders_of_several_classes_are_proved() -> None:
    table = pd.DataFrame({"a": np.resize(["x", "y", "z"], 200), "b": np.where(VALUES > 0, "p", "q")})
    assert prove_estimator(make_pipeline(TargetEncoder(random_state=0), LogisticRegression()), table).engine == "onnx"


@pytest.mark.parametrize("null", [None, np.nan])
def test_an_ordinal_encoder_counts_none_as_a_category_and_nan_as_missing(null: Any) -> None:
    table = pd.DataFrame({"a": np.resize(np.array(["x", "y", null], dtype=object), 200)})
    encoder = OrdinalEncoder(encoded_missing_value=-5)
    assert prove_estimator(make_pipeline(encoder, LogisticRegression()), table, CLASSES).engine == "onnx"
