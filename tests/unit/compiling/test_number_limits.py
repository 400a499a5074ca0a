"""Hard rows and limits of numbers: graphs that are wrong there are not proved, larger numbers are refused."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor
from sklearn.neighbors import KNeighborsRegressor, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, PowerTransformer, StandardScaler
from sklearn.random_projection import SparseRandomProjection
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from serving.compiling import hard_numbers, number_limits
from serving.compiling.convert import convert_estimator
from serving.compiling.converters import projections, scaling
from serving.compiling.drawing import Drawing, NotCompilable
from serving.compiling.find_guard import find_guard
from serving.compiling.landmarks import find_landmarks, find_scale
from serving.compiling.proof_rows import RowMaker
from serving.compiling.prove import prove_graphs
from serving.compiling.prover import Prover
from serving.domain.compiled_form import Compilation
from serving.domain.errors import InvalidInput
from serving.host.estimator_model import EstimatorModel
from serving.host.signature_of_estimator import examine_estimator
from serving.rows.apply_guard import GuardCheck
from serving.rows.batch import Batch

pytestmark = pytest.mark.usefixtures("steady_rows")

TOLERANCE = 1e-5
EPS = hard_numbers.EPS
ROWS = np.random.default_rng(8).normal(size=(150, 3))
LABELS = np.digitize(ROWS[:, 0] - ROWS[:, 1], [-0.5, 0.5])


def fit_model(estimator: Any, rows: Any = ROWS, answers: Any = LABELS) -> EstimatorModel:
    with warnings.catch_warnings(action="ignore"):
        return examine_estimator(estimator.fit(rows, answers), X=rows)


def prove_model(model: EstimatorModel) -> Compilation:
    with warnings.catch_warnings(action="ignore"):
        return prove_graphs(model, [convert_estimator(model)], TOLERANCE, [])


# --- close to 0 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("inside", [None, LogisticRegression()], ids=["alone", "before a classifier"])
def test_a_graph_that_divides_by_a_norm_close_to_0_is_not_proved(
    norm: str, inside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    divided = scaling._divide_by_norm
    monkeypatch.setattr(scaling, "_divide_by_norm", lambda rows, kind, least: divided(rows, kind))
    model = fit_model(make_pipeline(Normalizer(norm), inside or "passthrough"))
    with pytest.raises(NotCompilable, match="'tiny'"):
        prove_model(model)


def test_a_graph_that_loses_the_digits_of_small_numbers_is_not_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(drawing: Drawing, values: str) -> str:
        return drawing.draw_node("Log", drawing.draw_node("Add", values, drawing.add_constant(1.0)))

    monkeypatch.setattr(projections, "draw_log1p", plain)
    with pytest.raises(NotCompilable, match="transform on rows of kind 'tiny'"):
        prove_model(fit_model(PowerTransformer(standardize=False)))


def test_rounding_errors_of_tiny_numbers_that_cancel_out_are_ignored() -> None:
    """With equal weights, one computation gives 0 and another the rounding error of a last digit."""
    model = fit_model(SparseRandomProjection(2, dense_output=True, random_state=0))
    prover = Prover(model, [convert_estimator(model)], TOLERANCE, 4096)
    wanted, given = np.zeros((1, 2)), np.full((1, 2), 1e-29)
    assert (
        prover._compute_relative_distances(("transform", 0), wanted, given, np.array([1e-10 * 1e-13])).max()
        <= TOLERANCE
    )
    assert (
        prover._compute_relative_distances(("transform", 0), wanted, given, np.array([1e-10 * 1e-20])).max() > TOLERANCE
    )


def test_tiny_rows_are_on_both_sides_of_every_branch() -> None:
    plausible = np.random.default_rng(1).uniform(0.5, 2, (256, 4))
    rows = hard_numbers.make_tiny(np.random.default_rng(0), plausible)
    norms = np.sqrt((rows**2).sum(axis=1))
    assert rows.shape == plausible.shape
    for branch in (10 * EPS, EPS, 1e-8):
        assert ((norms < branch) & (norms > branch * (1 - 1e-15))).any()
        assert ((norms >= branch) & (norms < branch * (1 + 1e-15))).any()
    assert (np.abs(rows) == 5e-324).any()
    assert ((rows != 0) & (np.abs(rows) < 2.2e-308)).any()
    assert (rows == 0).all(axis=1).any()
    assert (np.signbit(rows) & (rows == 0)).all(axis=1).any()
    is_plausible = (rows == plausible).sum(axis=1)
    assert (is_plausible == 3).any()  # one tiny number among plausible ones


# --- what the model remembers -----------------------------------------------------------------------------------------


def test_rows_that_a_model_remembers_and_their_neighbours_are_tried() -> None:
    model = fit_model(make_pipeline(KMeans(4, n_init=1, random_state=0)))
    centers = model.estimator[-1].cluster_centers_
    maker = RowMaker(model, find_guard(model), {}, [], find_landmarks(model.estimator, 3))
    (batch,) = (batch for kind, batch in maker.make_batches(1024) if kind == "landmarks")
    assert batch.matrix is not None
    rows = batch.matrix
    for center in centers:
        assert (rows == center).all(axis=1).any()
        is_beside = np.isclose(rows, center, rtol=1e-15, atol=0).all(axis=1) & (rows != center).any(axis=1)
        assert is_beside.any()


def test_landmarks_are_of_the_columns_of_the_input() -> None:
    estimator = make_pipeline(StandardScaler(), SVC()).fit(ROWS, LABELS)
    found = find_landmarks(estimator, 3).tolist()
    assert estimator[0].mean_.tolist() in found
    assert estimator[1].support_vectors_[0].tolist() not in found  # those are scaled
    assert find_landmarks(SVC().fit(ROWS, LABELS), 3).shape[1] == 3
    knots = IsotonicRegression().fit(ROWS[:, 0], ROWS[:, 1])
    assert np.isin(find_landmarks(knots, 1), knots.X_thresholds_).any()
    assert find_scale(fit_model(estimator).columns, find_landmarks(estimator, 3)) is not None


# --- enormous ---------------------------------------------------------------------------------------------------------


def test_angles_are_proved_up_to_where_they_lose_their_digits() -> None:
    proof = prove_model(model := fit_model(RBFSampler(n_components=8, random_state=0)))
    assert proof.guard.largest == 1e9
    with pytest.raises(InvalidInput, match="is 1e\\+12, the model takes at most 1e\\+09"):
        GuardCheck(proof.guard, model.signature).check(Batch(1, matrix=np.array([[0.1, 1e12, 0.2]])))


def test_golden_examples_beyond_the_proof_keep_a_model_in_its_host() -> None:
    model = fit_model(RBFSampler(n_components=8, random_state=0))
    golden = Batch(1, matrix=np.array([[0.5, 3e9, 0.5]]))
    with pytest.raises(NotCompilable, match=r"the proof does not cover the golden examples: row 0: .* is 3e\+09"):
        prove_graphs(model, [convert_estimator(model)], TOLERANCE, [golden])


def test_sums_are_proved_up_to_where_an_order_overflows() -> None:
    estimator = LinearRegression().fit(ROWS, ROWS @ [2.0, -3.0, 4.0])
    proof = prove_model(examine_estimator(estimator))
    assert proof.guard.largest is not None
    assert 1e200 <= proof.guard.largest <= 1e300


def test_answers_that_overflow_for_ordinary_numbers_may_overflow() -> None:
    assert prove_model(fit_model(PoissonRegressor(), answers=np.exp(ROWS[:, 0]))).guard.largest in (None, 1e300)
    nowhere = IsotonicRegression(out_of_bounds="nan").fit(ROWS[:, 0], ROWS[:, 1])  # NaN outside of its knots
    assert prove_model(examine_estimator(nowhere)).guard.largest == 1e300


def test_a_hidden_overflow_is_not_risked() -> None:
    calibrated = CalibratedClassifierCV(LinearSVC(), cv=2)
    assert prove_model(fit_model(calibrated)).guard.largest == 1e300


def test_neighbours_are_proved_up_to_where_their_distances_become_equal() -> None:
    proof = prove_model(fit_model(NearestCentroid(priors="empirical")))
    assert proof.guard.largest is not None
    assert proof.guard.largest < 1e9
    model = fit_model(KNeighborsRegressor(3), answers=ROWS[:, 0])
    prover = Prover(model, [convert_estimator(model)], TOLERANCE, 4096)
    found = number_limits.find_number_limit(
        prover, RowMaker(model, find_guard(model), {}, []), 1024, tried := Counter()
    )
    assert found is not None
    assert found <= 1e15
    assert tried["extremes"] > 0


def test_trees_are_proved_up_to_the_largest_float32() -> None:
    assert prove_model(fit_model(DecisionTreeClassifier(max_depth=3))).guard.largest == float(np.finfo(np.float32).max)


def test_mixed_rows_come_three_times_with_only_their_enormous_numbers_changed() -> None:
    plausible = np.full((count := hard_numbers.count_extremes((1e9, 1e12), (0, 2), 8), 4), 0.5)
    rows = hard_numbers.make_extremes(
        np.random.default_rng(0), plausible, magnitudes=(1e9, 1e12), columns=(0, 2), few=8
    )
    assert len(rows) == count
    as_is, slightly, as_rounding = rows[-48:-32], rows[-32:-16], rows[-16:]
    assert (np.abs(as_is) <= 1e12).all()
    for changed, share in ((slightly, hard_numbers.SLIGHTLY), (as_rounding, hard_numbers.AS_ROUNDING)):
        is_plausible = as_is == 0.5
        assert (changed[is_plausible] == 0.5).all()
        assert is_plausible.any()
        np.testing.assert_allclose(changed, as_is, rtol=2 * share, atol=1e-300)
        is_large = np.abs(as_is) > 1e6
        assert (changed[is_large] != as_is[is_large]).all()
    alone = rows[:-48]
    assert {1e9, -1e9, 1e12, -1e12} <= set(alone[:, 0]) & set(alone[:, 2])
    assert (alone == 1e12).all(axis=1).any()


def test_the_guard_refuses_numbers_that_must_be_above_0() -> None:
    model = fit_model(PowerTransformer("box-cox", standardize=False), np.abs(ROWS) + 0.1)
    assert find_guard(model).smallest == 5e-324
