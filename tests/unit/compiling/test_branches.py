"""Numbers on both sides of every branch that scikit-learn takes by size: close to 0, and enormous."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.cluster import AffinityPropagation, FeatureAgglomeration, KMeans
from sklearn.compose import TransformedTargetRegressor
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.kernel_approximation import AdditiveChi2Sampler
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier, SGDOneClassSVM
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, PolynomialFeatures, PowerTransformer

from serving.compiling.convert import convert_estimator
from serving.host.signature_of_estimator import examine_estimator
from serving.plane.graph import GraphSession
from serving.rows.batch import Batch

ROWS = np.random.default_rng(2).normal(size=(150, 3))
LABELS = np.digitize(ROWS[:, 0] - ROWS[:, 1], [-0.5, 0.5])
EPS = np.finfo(np.float64).eps
LEAST = float(np.nextafter(0, 1))


def assert_equal(estimator: Any, rows: Any, tolerance: float = 1e-13) -> None:
    """Check that estimator and graph answer alike relative to each number, even the smallest; labels are equal."""
    with warnings.catch_warnings(action="ignore"):
        model = examine_estimator(estimator)
    batch = Batch(len(rows), matrix=np.array(rows, dtype=np.float64))
    session = GraphSession(convert_estimator(model))
    for method in model.signature.methods:
        for its, mine in zip(model.answer(method, batch).tensors, session.answer(method, batch).tensors, strict=True):
            if isinstance(its, list):
                assert mine == its
                continue
            np.testing.assert_allclose(mine, its, rtol=tolerance, atol=LEAST, err_msg=method)


def list_neighbours(*numbers: float) -> NDArray[np.float64]:
    """Return each number and its neighbours, of both signs."""
    made = np.array(numbers)
    made = np.concatenate([made, np.nextafter(made, np.inf), np.nextafter(made, 0)])
    return np.concatenate([made, -made])


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_rows_with_a_norm_close_to_0_are_not_divided(norm: str) -> None:
    rows = np.zeros((0, 3))
    for number in list_neighbours(10 * EPS, EPS, 1e-16, 1e-154, 1e-162, 1e-300, LEAST, 1e-8):
        alone, shared = [number, 0, -0.0], [number / 3, -number / 3, number / 3]
        rows = np.vstack([rows, alone, shared, np.full(3, number / np.sqrt(3))])
    assert_equal(Normalizer(norm).fit(ROWS), rows)
    assert_equal(make_pipeline(Normalizer(norm), LogisticRegression()).fit(ROWS, LABELS), rows)
    counts = np.abs(rows)
    assert_equal(TfidfTransformer(norm=None if norm == "max" else norm).fit(np.abs(ROWS)), counts)


@pytest.mark.parametrize(
    "power", [0.0, EPS / 2, EPS, 2 * EPS, 1e-8, 1.0, 2 - EPS, 2.0, 2 + EPS, 2 + 3 * EPS, -3.5, 7.0]
)
def test_powers_of_numbers_close_to_0_keep_their_digits(power: float) -> None:
    estimator = PowerTransformer(standardize=False).fit(ROWS)
    estimator.lambdas_ = np.array([power, 1.0, 0.5])
    numbers = list_neighbours(LEAST, 1e-310, 1e-100, 1e-17, EPS, 1e-8, 1e-3, 1.0, 1e9, 1e300)
    assert_equal(estimator, np.column_stack([numbers, numbers, numbers]))


@pytest.mark.parametrize("power", [0.0, 0.9e-19, 1.1e-19, 1e-8, 1.0, -2.0, 3.0])
def test_powers_of_positive_numbers_keep_their_digits(power: float) -> None:
    estimator = PowerTransformer("box-cox", standardize=False).fit(np.abs(ROWS))
    estimator.lambdas_ = np.array([power, 1.0, 0.5])
    numbers = np.abs(list_neighbours(2 * LEAST, 1e-310, 1e-100, 1e-17, 1 + EPS, 1.0, 1e9, 1e100))
    assert_equal(estimator, np.column_stack([numbers, numbers, numbers]), 1e-12)


def test_logarithms_and_exponentials_close_to_0_keep_their_digits() -> None:
    numbers = list_neighbours(LEAST, 1e-310, 1e-17, EPS, 1e-8, 0.5)
    rows = np.column_stack([numbers, numbers, numbers])
    assert_equal(FunctionTransformer(np.log1p).fit(ROWS), rows)
    target = TransformedTargetRegressor(LinearRegression(fit_intercept=False), func=np.log1p, inverse_func=np.expm1)
    target.fit(ROWS, np.abs(ROWS[:, 0]))
    far = rows * 1e3 / np.linalg.norm(target.regressor_.coef_)
    assert_equal(target, np.vstack([rows, far]), 1e-12)


def test_products_overflow_and_vanish_in_the_same_order() -> None:
    for options in ({"degree": 3}, {"degree": (2, 3), "include_bias": False}, {"degree": 3, "interaction_only": True}):
        assert_equal(
            PolynomialFeatures(**options).fit(ROWS),
            [[1e200, 1e200, 1e-200], [1e-200, 1e-200, 1e200], [1e-310, 1e17, 1e20], [1e308, -1e308, 1e-308]],
        )


def test_probabilities_that_all_vanish_are_equal() -> None:
    with warnings.catch_warnings(action="ignore"):
        estimator = SGDClassifier(loss="log_loss", random_state=0).fit(ROWS, LABELS)
    estimator.coef_ = np.abs(estimator.coef_) + 1
    assert_equal(estimator, [[-1e9, -1e9, -1e9], [-800, -800, -800], [1e-300, 0, 0]])


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_perceptrons_keep_the_digits_of_small_probabilities(activation: str) -> None:
    options: dict[str, Any] = {"hidden_layer_sizes": (4,), "activation": activation, "max_iter": 5, "random_state": 0}
    rows = np.vstack([ROWS * scale for scale in (1e-300, 1e-16, 1, 30, 1e3)])
    several = np.column_stack([LABELS > 0, LABELS > 1])
    with warnings.catch_warnings(action="ignore"):
        for labels in (LABELS, np.where(LABELS > 0, "yes", "no"), several.astype(int)):
            estimator = MLPClassifier(**options).fit(ROWS, labels)
            estimator.coefs_[1] *= 3
            assert_equal(estimator, rows, 1e-10)
        for values in (ROWS[:, 0], ROWS[:, :2]):
            assert_equal(MLPRegressor(**options).fit(ROWS, values), rows, 1e-10)


def test_the_nearest_of_far_rows_is_the_same() -> None:
    directions = np.random.default_rng(0).normal(size=(200, 3))
    rows = np.vstack([directions * 10.0**power for power in (12, 15, 20, 30, 100)])
    assert_equal(KMeans(3, n_init=1, random_state=0).fit(ROWS), rows)
    kind = AffinityPropagation(random_state=0)
    assert_equal(kind.fit(ROWS[:50]), directions * 1e10)
    overflown = np.where(np.eye(3)[np.arange(60) % 3] > 0, 10.0 ** np.linspace(306.8, 307.3, 60)[:, None], ROWS[:60])
    assert_equal(kind.fit(ROWS[:50] + 10), np.vstack([overflown, -overflown]))


def test_sums_are_computed_in_the_same_order() -> None:
    rows = [[-1e14, 1e15, 1e14], [1e15, -1e15, 0.3], [1e-17, 1e-17, 1e-17]]
    assert_equal(FeatureAgglomeration(2).fit(ROWS), rows)
    assert_equal(SGDOneClassSVM(random_state=0).fit(ROWS), np.multiply(rows, 1e-20))


def test_negative_zeros_become_zeros_where_a_matrix_is_sparse() -> None:
    for estimator in (AdditiveChi2Sampler(), TfidfTransformer()):
        model = examine_estimator(estimator.fit(np.abs(ROWS)))
        batch = Batch(1, matrix=np.array([[-0.0, 1.0, 0.0]]))
        (its,), (mine,) = (
            each.answer("transform", batch).tensors for each in (model, GraphSession(convert_estimator(model)))
        )
        assert np.signbit(np.asarray(mine)).tolist() == np.signbit(np.asarray(its)).tolist()
