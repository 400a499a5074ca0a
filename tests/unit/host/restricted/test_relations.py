"""Sizes that must agree and indices that must be in range: one lie at a time, for all that compiled code believes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn import (
    cluster,
    dummy,
    ensemble,
    feature_extraction,
    linear_model,
    mixture,
    multioutput,
    naive_bayes,
    neighbors,
    pipeline,
    preprocessing,
    svm,
)
from sklearn.metrics import DistanceMetric, pairwise
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch

from serving.host.restricted import Distrusted
from serving.host.restricted.soundness import check_answers, check_soundness
from tests.hostile.states import made_anew

ROWS = np.random.default_rng(0).normal(size=(90, 4))
LABELS = np.arange(90) % 3
CATEGORICAL = np.column_stack([ROWS[:, 0], LABELS, ROWS[:, 1], LABELS % 2])
TEXTS = ["the cat sat", "a dog sat down", "cats and dogs"] * 30
CITIES = np.array([["Lima"], ["Oslo"], ["Rome"], ["Rome"]], dtype=object)

Lie = Callable[[Any], None]


def machine() -> Any:
    return svm.SVC().fit(ROWS, LABELS)


def sparse_machine() -> Any:
    return svm.SVC().fit(sparse.csr_matrix(ROWS), LABELS)


def pairs_machine() -> Any:
    return svm.SVC(kernel="precomputed").fit(ROWS @ ROWS.T, LABELS)


def called_machine() -> Any:
    return svm.SVC(kernel=pairwise.rbf_kernel).fit(ROWS, LABELS)


def brute() -> Any:
    return neighbors.KNeighborsClassifier(algorithm="brute").fit(ROWS, LABELS)


def by_tree() -> Any:
    return neighbors.KNeighborsClassifier(algorithm="kd_tree").fit(ROWS, LABELS)


def several() -> Any:
    return neighbors.KNeighborsClassifier().fit(ROWS, np.column_stack([LABELS, LABELS % 2]))


def means() -> Any:
    return cluster.KMeans(3, n_init=1, random_state=0).fit(ROWS)


def bisected() -> Any:
    return cluster.BisectingKMeans(3, random_state=0).fit(ROWS)


def birch() -> Any:
    return cluster.Birch(n_clusters=3).fit(ROWS)


def forest() -> Any:
    return ensemble.RandomForestClassifier(3, random_state=0).fit(ROWS, LABELS)


def isolated() -> Any:
    return ensemble.IsolationForest(n_estimators=3, max_features=2, random_state=0).fit(ROWS)


def boosted() -> Any:
    return ensemble.GradientBoostingClassifier(n_estimators=2).fit(ROWS, LABELS)


def regressed() -> Any:
    return ensemble.GradientBoostingRegressor(n_estimators=2).fit(ROWS, LABELS)


def histograms() -> Any:
    return ensemble.HistGradientBoostingClassifier(max_iter=2, categorical_features=[1, 3]).fit(CATEGORICAL, LABELS)


def words() -> Any:
    return feature_extraction.text.CountVectorizer().fit(TEXTS)


def mapped() -> Any:
    return feature_extraction.DictVectorizer().fit([{"a": 1, "b": "x"}])


def one_hot() -> Any:
    return preprocessing.OneHotEncoder(max_categories=2).fit(CITIES)


def dropping() -> Any:
    return preprocessing.OneHotEncoder(drop="first").fit(CITIES)


def labelled() -> Any:
    made = preprocessing.MultiLabelBinarizer().fit([["a"], ["b"]])
    made.transform([["a"]])
    return made


def lightgbm() -> Any:
    import lightgbm as library

    return library.LGBMClassifier(n_estimators=2, verbose=-1).fit(ROWS, LABELS)


def put(name: str, value: Any) -> Lie:
    """Give the model another attribute; a function gets the present one."""

    def lie(model: Any) -> None:
        vars(model)[name] = value(vars(model)[name]) if callable(value) else value

    return lie


def first_is(value: Any) -> Callable[[Any], Any]:
    """Return a function that changes the first number of an array."""

    def change(array: Any) -> Any:
        changed = np.array(array)
        changed.reshape(-1)[0] = value
        return changed

    return change


def shorter(array: Any) -> Any:
    return array[:-1]


def narrower(array: Any) -> Any:
    return array[:, :-1]


def twice(array: Any) -> Any:
    return np.concatenate([array, array])


def remap(**places: int) -> Callable[[Any], Any]:
    """Return a function that changes values of a dict."""
    return lambda found: {**found, **places}


def lie_in_tree(model: Any) -> None:
    """Let a tree be one for fewer columns."""
    narrow = ensemble.RandomForestClassifier(1).fit(np.column_stack([ROWS, ROWS]), LABELS)
    model.estimators_[1].tree_ = narrow.estimators_[0].tree_


def child_is_none(model: Any) -> None:
    model._bisecting_tree.left = None


def center_is_short(model: Any) -> None:
    model._bisecting_tree.left.center = np.zeros(2)


def tree_is_its_own_child(model: Any) -> None:
    model._bisecting_tree.left = model._bisecting_tree


def category_is_high(model: Any) -> None:
    model._bin_mapper.bin_thresholds_[1] = np.array([0.0, 300.0])


def category_is_negative(model: Any) -> None:
    model._bin_mapper.bin_thresholds_[1] = np.array([-1.0, 3.0])


def knows_fewer(model: Any) -> None:
    model._bin_mapper.is_categorical_ = model._bin_mapper.is_categorical_[:-1]


def preprocesses_by_a_function(model: Any) -> None:
    name, _, mask = model._preprocessor.transformers_[1]
    model._preprocessor.transformers_[1] = (name, FunctionTransformer(np.mean), mask)


def preprocesses_once_less(model: Any) -> None:
    name, encoder, mask = model._preprocessor.transformers_[0]
    model._preprocessor.transformers_[0] = (name, encoder, np.zeros_like(mask))


def preprocesses_otherwise(model: Any) -> None:
    model._preprocessor.transformers_.append(("x", preprocessing.StandardScaler(), [0]))


def density() -> Any:
    return neighbors.KernelDensity().fit(ROWS)


def weighted() -> Any:
    return neighbors.KNeighborsClassifier(algorithm="brute", metric="mahalanobis", metric_params={"VI": np.eye(4)}).fit(
        ROWS, LABELS
    )


def by_ball() -> Any:
    metric = {"metric": "mahalanobis", "metric_params": {"V": np.eye(4)}}
    return neighbors.KNeighborsClassifier(algorithm="ball_tree", **metric).fit(ROWS, LABELS)


def stratified() -> Any:
    return dummy.DummyClassifier(strategy="stratified", random_state=np.random.RandomState(0)).fit(ROWS, LABELS)


def generating() -> Any:
    """Return a model whose source of random numbers is one of NumPy's newer ones."""
    made = stratified()
    made.random_state = np.random.Generator(np.random.Philox(0))
    return made


def chained() -> Any:
    return multioutput.ClassifierChain(linear_model.LogisticRegression()).fit(ROWS, np.column_stack([LABELS > 0] * 2))


def targets() -> Any:
    return preprocessing.TargetEncoder(cv=2).fit(CATEGORICAL[:, [1, 3]], ROWS[:, 0])


def polynomials() -> Any:
    return preprocessing.PolynomialFeatures().fit(ROWS)


def numbered() -> Any:
    return preprocessing.OneHotEncoder().fit([[1.0], [3.0], [5.0], [np.nan]])


def holder() -> Any:
    """Return a model with a sparse matrix for a note."""
    made = preprocessing.StandardScaler().fit(ROWS)
    made.note = sparse.dok_array((3, 3))
    made.note[0, 1] = 2.0
    return made


def sparse_rows() -> Any:
    made = preprocessing.StandardScaler().fit(ROWS)
    made.note = sparse.csr_array(np.eye(3))
    return made


def rows_end_before_they_start(model: Any) -> None:
    model.note.indptr = np.array([0, 1, 2, -(1 << 31)], dtype=np.int32)


def splines() -> Any:
    return preprocessing.SplineTransformer(n_knots=3).fit(ROWS)


def in_tree(attribute: str, place: int, value: Any) -> Lie:
    """Give a neighbour tree another part of its state; a function gets the present one."""

    def lie(model: Any) -> None:
        old = vars(model)[attribute].__getstate__()[place]
        vars(model)[attribute] = made_anew(vars(model)[attribute], str(place), value(old) if callable(value) else value)

    return lie


def metric_is_narrow(model: Any) -> None:
    metric = model._tree.__getstate__()[11]
    in_tree("_tree", 11, made_anew(metric, "2", np.ones((4, 1))))(model)


def metric_has_no_vector(model: Any) -> None:
    model.effective_metric_ = made_anew(DistanceMetric.get_metric("seuclidean", V=np.ones(4)), "1", np.ones(2))


def place_is_far(model: Any) -> None:
    state = model.random_state.get_state(legacy=False)
    model.random_state.set_state({**state, "state": {**state["state"], "pos": 1 << 30}})


def buffer_is_far(model: Any) -> None:
    model.random_state.bit_generator.state = {**model.random_state.bit_generator.state, "buffer_pos": -5}


def place_is_outside(model: Any) -> None:
    model.note._dict[7, 0] = 1.0


def knots_are_whole(model: Any) -> None:
    vars(model.bsplines_[0])["_t"] = vars(model.bsplines_[0])["_t"].astype(np.int64)


def loss_of_two(model: Any) -> None:
    model._loss = ensemble.GradientBoostingClassifier(n_estimators=1).fit(ROWS, LABELS > 0)._loss


def several_for_one(model: Any) -> None:
    several = boosted()
    model.estimators_, model.n_trees_per_iteration_ = several.estimators_, 3


def infrequent_is_high(model: Any) -> None:
    model._default_to_infrequent_mappings[0] = np.array([0, 1, 99])


def drops_too_high(model: Any) -> None:
    model._drop_idx_after_grouping = np.array([7], dtype=object)


def begins_with(made: Any) -> Lie:
    return put("init_", lambda _: made)


LIES: dict[str, tuple[Callable[[], Any], Lie, str]] = {
    "vectors of other classes": (machine, put("_n_support", twice), "number of classes"),
    "a class without vectors": (machine, put("_n_support", first_is(-1)), "no support vectors of some class"),
    "counts that do not add up": (machine, put("_n_support", first_is(1000)), "classes' vectors"),
    "fewer weights": (machine, put("_dual_coef_", narrower), "number of weights"),
    "fewer weight rows": (machine, put("_dual_coef_", shorter), "number of weights"),
    "fewer intercepts": (machine, put("_intercept_", shorter), "number of intercepts"),
    "fewer vectors": (machine, put("support_vectors_", shorter), "of another width"),
    "narrower vectors": (machine, put("support_vectors_", narrower), "of another width"),
    "more places": (machine, put("support_", twice), "than of support vectors"),
    "one probability": (machine, put("_probA", np.zeros(1)), "probabilities do not fit"),
    "probabilities of one half": (machine, put("_probB", np.zeros(3)), "probabilities do not fit"),
    "dense though sparse": (machine, put("_sparse", True), "of another layout"),
    "sparse though dense": (sparse_machine, put("_sparse", False), "of another layout"),
    "sparse weights left out": (
        sparse_machine, put("_dual_coef_", lambda found: sparse.csr_matrix(found.shape)), "number of weights",
    ),
    "sparse vectors by columns": (sparse_machine, put("support_vectors_", lambda found: found.tocsc()), "layout"),
    "a column that is not there": (pairs_machine, put("support_", first_is(1000)), "points to what is not there"),
    "a column before the first": (pairs_machine, put("support_", first_is(-1)), "points to what is not there"),
    "other columns": (pairs_machine, put("shape_fit_", (10, 10)), "points to what is not there"),
    "more columns": (pairs_machine, put("shape_fit_", (1000, 1000)), "another number of rows"),
    "a row that is not there": (called_machine, put("support_", first_is(1000)), "points to what is not there"),
    "rows that are gone": (called_machine, put("_BaseLibSVM__Xfit", lambda found: found[:5]), "is not there"),
    "rows that are not counted": (brute, put("n_samples_fit_", 10_000), "counts rows that it does not have"),
    "a count that is none": (brute, put("n_samples_fit_", 1.5), "no number from"),
    "fewer rows": (brute, put("_fit_X", shorter), "counts rows that it does not have"),
    "narrower rows": (brute, put("_fit_X", narrower), "rows of another width"),
    "a label that is not there": (brute, put("_y", first_is(99)), "points to what is not there"),
    "a label below": (brute, put("_y", first_is(-1)), "points to what is not there"),
    "labels that are no places": (brute, put("_y", lambda found: found + 0.5), "no array of"),
    "fewer labels": (brute, put("_y", shorter), "a label for each row"),
    "fewer classes": (brute, put("classes_", shorter), "points to what is not there"),
    "fewer outputs": (several, put("_y", narrower), "labels of other outputs"),
    "a second label that is not there": (several, put("classes_", lambda found: [found[0], found[1][:1]]), "not there"),
    "a tree of another kind": (by_tree, put("_fit_method", "ball_tree"), "no tree of the kind"),
    "a tree though brute": (by_tree, put("_fit_method", "brute"), "no tree of the kind"),
    "no tree": (by_tree, put("_tree", None), "no tree of the kind"),
    "a tree of other rows": (
        by_tree, put("_tree", lambda _: neighbors.KDTree(ROWS[:10])), "its tree holds other rows",
    ),
    "a density of another width": (
        lambda: neighbors.KernelDensity().fit(ROWS), put("n_features_in_", 2), "rows of another width",
    ),
    "narrower centers": (means, put("cluster_centers_", narrower), "of another width"),
    "no centers": (means, put("cluster_centers_", np.zeros((0, 4))), "of another width"),
    "no threads": (means, put("_n_threads", 0), "no number from 1"),
    "a million threads": (means, put("_n_threads", 1 << 20), "no number from 1"),
    "one child": (bisected, child_is_none, "has one child"),
    "a short center": (bisected, center_is_short, "of another width"),
    "a tree in itself": (bisected, tree_is_its_own_child, "more nodes than centers"),
    "narrower centers of a class of its own": (bisected, put("cluster_centers_", narrower), "of another width"),
    "fewer lengths": (birch, put("_subcluster_norms", shorter), "centers and labels do not agree"),
    "fewer labels of centers": (birch, put("subcluster_labels_", shorter), "centers and labels do not agree"),
    "a tree of more columns": (forest, lie_in_tree, "other rows than its trees"),
    "a forest of fewer columns": (forest, put("n_features_in_", 2), "other rows than its trees"),
    "a pipeline among trees": (
        forest, put("estimators_", lambda _: [pipeline.make_pipeline(FunctionTransformer())]), "is no tree",
    ),
    "a drawn column that is not there": (
        isolated, put("estimators_features_", lambda found: [found[0] + 4, *found[1:]]), "not there",
    ),
    "fewer drawn columns": (
        isolated, put("estimators_features_", lambda found: [found[0][:1], *found[1:]]), "other rows",
    ),
    "no drawn columns": (isolated, put("estimators_features_", shorter), "columns for each tree"),
    "all columns": (isolated, put("_max_features", 4), "other rows than its trees"),
    "rounds that are no table": (boosted, put("estimators_", np.ravel), "no table"),
    "no first answer": (boosted, begins_with("nothing"), "no estimator"),
    "a first answer of other classes": (
        boosted, begins_with(dummy.DummyClassifier().fit(ROWS, LABELS % 2)), "other answers",
    ),
    "a first answer of a mean": (
        boosted,
        begins_with(pipeline.make_pipeline(FunctionTransformer(np.mean), dummy.DummyClassifier().fit(ROWS, LABELS))),
        "do not fit together",
    ),
    "a first answer of several": (
        regressed, begins_with(dummy.DummyRegressor().fit(ROWS, ROWS)), "other answers",
    ),
    "a first answer of other rows": (
        boosted, begins_with(naive_bayes.GaussianNB().fit(ROWS[:, :2], LABELS)), "do not fit together",
    ),
    "rounds that are tuples": (histograms, put("_predictors", tuple), "no lists of trees"),
    "trees that are tuples": (
        histograms, put("_predictors", lambda found: [tuple(each) for each in found]), "no lists of trees",
    ),
    "fewer trees in a round": (histograms, put("_predictors", lambda found: [found[0][:1]]), "number of trees"),
    "other things in a round": (histograms, put("_predictors", lambda found: [[1, 2, 3]]), "no tree"),
    "fewer columns": (histograms, put("n_features_in_", 3), "categories of other features"),
    "a category of 300": (histograms, category_is_high, "has no place"),
    "a category of -1": (histograms, category_is_negative, "has no place"),
    "fewer known columns": (histograms, knows_fewer, "categories of other features"),
    "a function before the trees": (histograms, preprocesses_by_a_function, "does something to the numbers"),
    "a column left out": (histograms, preprocesses_once_less, "does not take each column once"),
    "a step more": (histograms, preprocesses_otherwise, "is another one"),
    "a word beyond": (words, put("vocabulary_", remap(cat=1 << 30)), "columns that are not there"),
    "a word before": (words, put("vocabulary_", remap(cat=-1)), "columns that are not there"),
    "two words": (words, put("vocabulary_", remap(cat=0, dog=0)), "or one twice"),
    "a word nowhere": (words, put("vocabulary_", remap(cat=None)), "columns that are no numbers"),
    "words in a list": (words, put("vocabulary_", list), "is no dict"),
    "a key beyond": (mapped, put("vocabulary_", remap(a=99)), "columns that are not there"),
    "no columns to hash into": (
        feature_extraction.text.HashingVectorizer, put("n_features", 0), "no number from 1",
    ),
    "more columns than there are": (
        feature_extraction.FeatureHasher, put("n_features", 1 << 40), "no number from 1",
    ),
    "more categories": (one_hot, put("_n_features_outs", [99]), "more or fewer than it counts"),
    "counts in a tuple": (one_hot, put("_n_features_outs", tuple), "more or fewer than it counts"),
    "a rare one beyond": (one_hot, infrequent_is_high, "rare category has no place"),
    "a dropped one beyond": (dropping, drops_too_high, "drop"),
    "a cached label beyond": (labelled, put("_cached_dict", {"a": 0, "b": 9}), "columns that are not there"),
    "fewer cached labels": (labelled, put("_cached_dict", {"a": 0}), "other labels than classes_"),
    "a machine without classes": (
        pairs_machine, lambda model: (delattr(model, "classes_"), put("_n_support", first_is(1000))(model)), "vectors",
    ),
    "no neighbours": (by_tree, put("n_neighbors", 0), "no number from 1"),
    "leaves of no rows": (density, in_tree("tree_", 4, 0), "leaves of no rows"),
    "no nodes": (density, in_tree("tree_", 6, 0), "no nodes"),
    "one weight": (density, in_tree("tree_", 12, np.ones(1)), "a weight for each row"),
    "boxes of one corner": (by_tree, in_tree("_tree", 3, lambda found: np.ascontiguousarray(found[:1])), "the nodes"),
    "a narrow metric": (by_ball, metric_is_narrow, "does not fit its rows"),
    "a metric of fewer columns": (brute, metric_has_no_vector, "does not fit its rows"),
    "a matrix of fewer columns": (weighted, put("effective_metric_params_", {"VI": np.eye(2)}), "does not fit"),
    "lengths of rows": (
        brute, put("effective_metric_params_", {"Y_norm_squared": np.ones(1)}), "parameters that it does not take",
    ),
    "a place beyond the numbers": (stratified, place_is_far, "no number from 0 to 624"),
    "a place before the buffer": (
        generating, buffer_is_far, "no number from 0 to 4",
    ),
    "a start that turns over": (sparse_rows, rows_end_before_they_start, "do not start where"),
    "a place outside": (holder, place_is_outside, "does not have"),
    "knots of whole numbers": (splines, knots_are_whole, "do not fit its degree"),
    "a loss of two classes": (boosted, loss_of_two, "for other answers"),
    "several trees for one answer": (regressed, several_for_one, "several trees for one answer"),
    "first answers of a Bunch": (boosted, begins_with(Bunch(predict_proba=np.ravel)), "no estimator"),
    "a fit that goes on": (histograms, put("_in_fit", True), "saved while it was fitted"),
    "more polynomials": (polynomials, put("n_output_features_", 5000), "other columns than it fills"),
    "more polynomials before they are cut": (polynomials, put("_n_out_full", 5000), "other columns than it fills"),
    "fewer encodings": (targets, put("encodings_", shorter), "other columns than it fills"),
    "fewer balls": (
        lambda: mixture.GaussianMixture(3, random_state=0).fit(ROWS), put("precisions_cholesky_", shorter), "it fills",
    ),
    "an order of one": (chained, put("order_", [0, 0]), "leaves an answer out"),
    "numbers out of order": (numbered, put("categories_", [np.array([5.0, 1.0, 3.0, 2.0])]), "are not found"),
    "objects out of order": (numbered, put("categories_", [np.array([5, 1, 3, 4], object)]), "are not found"),
    "a label twice": (
        lambda: preprocessing.MultiLabelBinarizer().fit([[0], [1]]), put("classes_", np.zeros(3)), "a label twice",
    ),
    "a check that is off": (lightgbm, put("_other_params", {"predict_disable_shape_check": True}), "past its rows"),
    "a check that is off by text": (lightgbm, put("_other_params", {"predict_disable_shape_check": "true"}), "past"),
}  # fmt: skip


def check(model: Any) -> None:
    check_soundness(model)
    check_answers(model)


@pytest.mark.parametrize("name", LIES)
def test_one_lie_is_refused(name: str) -> None:
    make, lie, said = LIES[name]
    model = make()
    check(model)
    lie(model)
    with pytest.raises(Distrusted, match="that is not sound") as caught:
        check([model])
    assert said in str(caught.value)


def test_a_first_answer_may_come_from_any_estimator_that_fits() -> None:
    made = ensemble.GradientBoostingClassifier(n_estimators=2, init=linear_model.LogisticRegression())
    check(made.fit(ROWS, LABELS))
    check(ensemble.GradientBoostingClassifier(n_estimators=2, init="zero").fit(ROWS, LABELS))
