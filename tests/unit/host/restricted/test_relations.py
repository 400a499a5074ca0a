"""Sizes that must agree and indices that must be in range: wrong numbers that compiled code would use are refused."""

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


def matrix_machine() -> Any:
    return svm.SVC(kernel="precomputed").fit(ROWS @ ROWS.T, LABELS)


def custom_machine() -> Any:
    return svm.SVC(kernel=pairwise.rbf_kernel).fit(ROWS, LABELS)


def brute_knn() -> Any:
    return neighbors.KNeighborsClassifier(algorithm="brute").fit(ROWS, LABELS)


def tree_knn() -> Any:
    return neighbors.KNeighborsClassifier(algorithm="kd_tree").fit(ROWS, LABELS)


def multi_knn() -> Any:
    return neighbors.KNeighborsClassifier().fit(ROWS, np.column_stack([LABELS, LABELS % 2]))


def k_means() -> Any:
    return cluster.KMeans(3, n_init=1, random_state=0).fit(ROWS)


def bisecting_means() -> Any:
    return cluster.BisectingKMeans(3, random_state=0).fit(ROWS)


def birch() -> Any:
    return cluster.Birch(n_clusters=3).fit(ROWS)


def forest() -> Any:
    return ensemble.RandomForestClassifier(3, random_state=0).fit(ROWS, LABELS)


def isolation_forest() -> Any:
    return ensemble.IsolationForest(n_estimators=3, max_features=2, random_state=0).fit(ROWS)


def boosted_trees() -> Any:
    return ensemble.GradientBoostingClassifier(n_estimators=2).fit(ROWS, LABELS)


def boosted_regressor() -> Any:
    return ensemble.GradientBoostingRegressor(n_estimators=2).fit(ROWS, LABELS)


def histograms() -> Any:
    return ensemble.HistGradientBoostingClassifier(max_iter=2, categorical_features=[1, 3]).fit(CATEGORICAL, LABELS)


def word_counts() -> Any:
    return feature_extraction.text.CountVectorizer().fit(TEXTS)


def dict_vectorizer() -> Any:
    return feature_extraction.DictVectorizer().fit([{"a": 1, "b": "x"}])


def one_hot() -> Any:
    return preprocessing.OneHotEncoder(max_categories=2).fit(CITIES)


def dropping_encoder() -> Any:
    return preprocessing.OneHotEncoder(drop="first").fit(CITIES)


def grouping_encoder() -> Any:
    """Return an encoder in which four of six categories share a column."""
    rows = np.array([["a"]] * 9 + [["b"]] * 5 + [["c"], ["d"], ["e"], ["f"]], dtype=object)
    return preprocessing.OneHotEncoder(max_categories=3, drop="first").fit(rows)


def label_binarizer() -> Any:
    made = preprocessing.MultiLabelBinarizer().fit([["a"], ["b"]])
    made.transform([["a"]])
    return made


def lightgbm() -> Any:
    import lightgbm as library

    return library.LGBMClassifier(n_estimators=2, verbose=-1).fit(ROWS, LABELS)


def put(name: str, value: Any) -> Lie:
    """Change an attribute of the model; a function gets the old value."""

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


def shorten(array: Any) -> Any:
    return array[:-1]


def narrow(array: Any) -> Any:
    return array[:, :-1]


def repeat(array: Any) -> Any:
    return np.concatenate([array, array])


def remap(**places: int) -> Callable[[Any], Any]:
    """Return a function that changes values of a dict."""
    return lambda found: {**found, **places}


def tree_is_flat(model: Any) -> None:
    estimator = model.estimators_[0]
    estimator.tree_ = made_anew(estimator.tree_, "max_depth", 1)


def lie_in_tree(model: Any) -> None:
    """Replace a tree by one for fewer columns."""
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


def metric_knn() -> Any:
    return neighbors.KNeighborsClassifier(algorithm="brute", metric="mahalanobis", metric_params={"VI": np.eye(4)}).fit(
        ROWS, LABELS
    )


def ball_knn() -> Any:
    metric = {"metric": "mahalanobis", "metric_params": {"V": np.eye(4)}}
    return neighbors.KNeighborsClassifier(algorithm="ball_tree", **metric).fit(ROWS, LABELS)


def random_dummy() -> Any:
    return dummy.DummyClassifier(strategy="stratified", random_state=np.random.RandomState(0)).fit(ROWS, LABELS)


def generator_dummy() -> Any:
    """Return a model with one of NumPy's newer random generators."""
    made = random_dummy()
    made.random_state = np.random.Generator(np.random.Philox(0))
    return made


def classifier_chain() -> Any:
    return multioutput.ClassifierChain(linear_model.LogisticRegression()).fit(ROWS, np.column_stack([LABELS > 0] * 2))


def target_encoder() -> Any:
    return preprocessing.TargetEncoder(cv=2).fit(CATEGORICAL[:, [1, 3]], ROWS[:, 0])


def polynomials() -> Any:
    return preprocessing.PolynomialFeatures().fit(ROWS)


def number_encoder() -> Any:
    return preprocessing.OneHotEncoder().fit([[1.0], [3.0], [5.0], [np.nan]])


def sparse_note() -> Any:
    """Return a model with a sparse matrix as a note."""
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
    """Change a part of the state of a neighbour tree; a function gets the old value."""

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
    multi_knn = boosted_trees()
    model.estimators_, model.n_trees_per_iteration_ = multi_knn.estimators_, 3


def infrequent_is_high(model: Any) -> None:
    model._default_to_infrequent_mappings[0] = np.array([0, 1, 99])


def drops_too_high(model: Any) -> None:
    model._drop_idx_after_grouping = np.array([7], dtype=object)


def begins_with(made: Any) -> Lie:
    return put("init_", lambda _: made)


LIES: dict[str, tuple[Callable[[], Any], Lie, str]] = {
    "vectors of other classes": (machine, put("_n_support", repeat), "number of classes"),
    "a class without vectors": (machine, put("_n_support", first_is(-1)), "no support vectors of some class"),
    "counts that do not add up": (machine, put("_n_support", first_is(1000)), "classes' vectors"),
    "fewer weights": (machine, put("_dual_coef_", narrow), "number of weights"),
    "fewer weight rows": (machine, put("_dual_coef_", shorten), "number of weights"),
    "fewer intercepts": (machine, put("_intercept_", shorten), "number of intercepts"),
    "fewer vectors": (machine, put("support_vectors_", shorten), "of another width"),
    "narrower vectors": (machine, put("support_vectors_", narrow), "of another width"),
    "more places": (machine, put("support_", repeat), "than of support vectors"),
    "one probability": (machine, put("_probA", np.zeros(1)), "probabilities do not fit"),
    "probabilities of one half": (machine, put("_probB", np.zeros(3)), "probabilities do not fit"),
    "dense though sparse": (machine, put("_sparse", True), "of another layout"),
    "sparse though dense": (sparse_machine, put("_sparse", False), "of another layout"),
    "sparse weights left out": (
        sparse_machine, put("_dual_coef_", lambda found: sparse.csr_matrix(found.shape)), "number of weights",
    ),
    "sparse vectors by columns": (sparse_machine, put("support_vectors_", lambda found: found.tocsc()), "layout"),
    "a column that is not there": (matrix_machine, put("support_", first_is(1000)), "an entry that does not exist"),
    "a column before the first": (matrix_machine, put("support_", first_is(-1)), "an entry that does not exist"),
    "other columns": (matrix_machine, put("shape_fit_", (10, 10)), "an entry that does not exist"),
    "more columns": (matrix_machine, put("shape_fit_", (1000, 1000)), "another number of rows"),
    "a row that is not there": (custom_machine, put("support_", first_is(1000)), "an entry that does not exist"),
    "rows that are gone": (custom_machine, put("_BaseLibSVM__Xfit", lambda found: found[:5]), "does not exist"),
    "rows that are not counted": (brute_knn, put("n_samples_fit_", 10_000), "counts rows that it does not have"),
    "a count that is none": (brute_knn, put("n_samples_fit_", 1.5), "no number from"),
    "fewer rows": (brute_knn, put("_fit_X", shorten), "counts rows that it does not have"),
    "narrower rows": (brute_knn, put("_fit_X", narrow), "rows of another width"),
    "a label that is not there": (brute_knn, put("_y", first_is(99)), "an entry that does not exist"),
    "a label below": (brute_knn, put("_y", first_is(-1)), "an entry that does not exist"),
    "labels that are no places": (brute_knn, put("_y", lambda found: found + 0.5), "no array of"),
    "fewer labels": (brute_knn, put("_y", shorten), "a label for each row"),
    "fewer classes": (brute_knn, put("classes_", shorten), "an entry that does not exist"),
    "fewer outputs": (multi_knn, put("_y", narrow), "labels of other outputs"),
    "a missing second label": (multi_knn, put("classes_", lambda found: [found[0], found[1][:1]]), "does not exist"),
    "a tree of another kind": (tree_knn, put("_fit_method", "ball_tree"), "no tree of the kind"),
    "a tree though brute": (tree_knn, put("_fit_method", "brute"), "no tree of the kind"),
    "no tree": (tree_knn, put("_tree", None), "no tree of the kind"),
    "a tree of other rows": (
        tree_knn, put("_tree", lambda _: neighbors.KDTree(ROWS[:10])), "its tree holds other rows",
    ),
    "a density of another width": (
        lambda: neighbors.KernelDensity().fit(ROWS), put("n_features_in_", 2), "rows of another width",
    ),
    "narrower centers": (k_means, put("cluster_centers_", narrow), "of another width"),
    "no centers": (k_means, put("cluster_centers_", np.zeros((0, 4))), "of another width"),
    "no threads": (k_means, put("_n_threads", 0), "no number from 1"),
    "a million threads": (k_means, put("_n_threads", 1 << 20), "no number from 1"),
    "one child": (bisecting_means, child_is_none, "has one child"),
    "a short center": (bisecting_means, center_is_short, "of another width"),
    "a tree in itself": (bisecting_means, tree_is_its_own_child, "more nodes than centers"),
    "narrower centers of a class of its own": (bisecting_means, put("cluster_centers_", narrow), "of another width"),
    "fewer lengths": (birch, put("_subcluster_norms", shorten), "centers and labels do not agree"),
    "fewer labels of centers": (birch, put("subcluster_labels_", shorten), "centers and labels do not agree"),
    "a tree of more columns": (forest, lie_in_tree, "other rows than its trees"),
    "a forest of fewer columns": (forest, put("n_features_in_", 2), "other rows than its trees"),
    "a pipeline among trees": (
        forest, put("estimators_", lambda _: [pipeline.make_pipeline(FunctionTransformer())]), "is no tree",
    ),
    "a drawn column that is not there": (
        isolation_forest, put("estimators_features_", lambda found: [found[0] + 4, *found[1:]]), "does not exist",
    ),
    "fewer drawn columns": (
        isolation_forest, put("estimators_features_", lambda found: [found[0][:1], *found[1:]]), "other rows",
    ),
    "no drawn columns": (isolation_forest, put("estimators_features_", shorten), "columns for each tree"),
    "a tree deeper than it says": (isolation_forest, tree_is_flat, "is deeper than it says"),
    "all columns": (isolation_forest, put("_max_features", 4), "other rows than its trees"),
    "rounds that are no table": (boosted_trees, put("estimators_", np.ravel), "no table"),
    "no first answer": (boosted_trees, begins_with("nothing"), "no estimator"),
    "a first answer of other classes": (
        boosted_trees, begins_with(dummy.DummyClassifier().fit(ROWS, LABELS % 2)), "have another shape",
    ),
    "a first answer of a mean": (
        boosted_trees,
        begins_with(pipeline.make_pipeline(FunctionTransformer(np.mean), dummy.DummyClassifier().fit(ROWS, LABELS))),
        "do not fit together",
    ),
    "a first answer of several": (
        boosted_regressor, begins_with(dummy.DummyRegressor().fit(ROWS, ROWS)), "have another shape",
    ),
    "a first answer of other rows": (
        boosted_trees, begins_with(naive_bayes.GaussianNB().fit(ROWS[:, :2], LABELS)), "do not fit together",
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
    "a function before the trees": (histograms, preprocesses_by_a_function, "changes the numbers"),
    "a column left out": (histograms, preprocesses_once_less, "does not take each column once"),
    "a step more": (histograms, preprocesses_otherwise, "not the one of scikit-learn"),
    "a word beyond": (word_counts, put("vocabulary_", remap(cat=1 << 30)), "columns that do not exist"),
    "a word before": (word_counts, put("vocabulary_", remap(cat=-1)), "columns that do not exist"),
    "two words": (word_counts, put("vocabulary_", remap(cat=0, dog=0)), "or one twice"),
    "a word nowhere": (word_counts, put("vocabulary_", remap(cat=None)), "columns that are no numbers"),
    "words in a list": (word_counts, put("vocabulary_", list), "is no dict"),
    "a key beyond": (dict_vectorizer, put("vocabulary_", remap(a=99)), "columns that do not exist"),
    "no columns to hash into": (
        feature_extraction.text.HashingVectorizer, put("n_features", 0), "no number from 1",
    ),
    "more columns than there are": (
        feature_extraction.FeatureHasher, put("n_features", 1 << 40), "no number from 1",
    ),
    "more categories": (one_hot, put("_n_features_outs", [99]), "more or fewer than it counts"),
    "counts in a tuple": (one_hot, put("_n_features_outs", tuple), "more or fewer than it counts"),
    "a rare one beyond": (one_hot, infrequent_is_high, "rare category has no place"),
    "a dropped one beyond": (dropping_encoder, drops_too_high, "drop"),
    "a rare one in the column after the last": (
        grouping_encoder, put("_default_to_infrequent_mappings", [np.array([0, 1, 2, 2, 2, 3])]), "has no place",
    ),
    "rare ones that are not grouped": (grouping_encoder, put("_default_to_infrequent_mappings", None), "has no place"),
    "a rare one that is not there": (
        grouping_encoder, put("_infrequent_indices", lambda found: [found[0] + 99]), "does not exist",
    ),
    "a dropped one after the last group": (
        grouping_encoder, put("_drop_idx_after_grouping", np.array([3], object)), "drops a category it does not have",
    ),
    "a cached label beyond": (label_binarizer, put("_cached_dict", {"a": 0, "b": 9}), "columns that do not exist"),
    "fewer cached labels": (label_binarizer, put("_cached_dict", {"a": 0}), "other labels than classes_"),
    "a machine without classes": (
        matrix_machine, lambda model: (delattr(model, "classes_"), put("_n_support", first_is(1000))(model)), "vectors",
    ),
    "no neighbours": (tree_knn, put("n_neighbors", 0), "no number from 1"),
    "leaves of no rows": (density, in_tree("tree_", 4, 0), "leaves of no rows"),
    "no nodes": (density, in_tree("tree_", 6, 0), "no nodes"),
    "one weight": (density, in_tree("tree_", 12, np.ones(1)), "a weight for each row"),
    "boxes of one corner": (tree_knn, in_tree("_tree", 3, lambda found: np.ascontiguousarray(found[:1])), "the nodes"),
    "a narrow metric": (ball_knn, metric_is_narrow, "does not fit its rows"),
    "a metric of fewer columns": (brute_knn, metric_has_no_vector, "does not fit its rows"),
    "a matrix of fewer columns": (metric_knn, put("effective_metric_params_", {"VI": np.eye(2)}), "does not fit"),
    "lengths of rows": (
        brute_knn, put("effective_metric_params_", {"Y_norm_squared": np.ones(1)}), "parameters that it does not take",
    ),
    "a place beyond the numbers": (random_dummy, place_is_far, "no number from 0 to 624"),
    "a place before the buffer": (
        generator_dummy, buffer_is_far, "no number from 0 to 4",
    ),
    "a start that turns over": (sparse_rows, rows_end_before_they_start, "do not start where"),
    "a place outside": (sparse_note, place_is_outside, "does not have"),
    "knots of whole numbers": (splines, knots_are_whole, "do not fit its degree"),
    "a loss of two classes": (boosted_trees, loss_of_two, "for other answers"),
    "several trees for one answer": (boosted_regressor, several_for_one, "several trees for one answer"),
    "first answers of a Bunch": (boosted_trees, begins_with(Bunch(predict_proba=np.ravel)), "no estimator"),
    "a fit that goes on": (histograms, put("_in_fit", True), "saved while it was fitted"),
    "more polynomials": (polynomials, put("n_output_features_", 5000), "other columns than it fills"),
    "more polynomials before they are cut": (polynomials, put("_n_out_full", 5000), "other columns than it fills"),
    "fewer encodings": (target_encoder, put("encodings_", shorten), "other columns than it fills"),
    "fewer balls": (
        lambda: mixture.GaussianMixture(3, random_state=0).fit(ROWS), put("precisions_cholesky_", shorten), "it fills",
    ),
    "an order of one": (classifier_chain, put("order_", [0, 0]), "leaves an answer out"),
    "numbers out of order": (number_encoder, put("categories_", [np.array([5.0, 1.0, 3.0, 2.0])]), "are not found"),
    "objects out of order": (number_encoder, put("categories_", [np.array([5, 1, 3, 4], object)]), "are not found"),
    "a label twice": (
        lambda: preprocessing.MultiLabelBinarizer().fit([[0], [1]]), put("classes_", np.zeros(3)), "a label twice",
    ),
    "a check that is off": (lightgbm, put("_other_params", {"predict_disable_shape_check": True}), "past its rows"),
    "a check of a booster that is off": (
        lambda: lightgbm().booster_, put("params", {"predict_disable_shape_check": True}), "past its rows",
    ),
    "a check that is off by text": (lightgbm, put("_other_params", {"predict_disable_shape_check": "true"}), "past"),
}  # fmt: skip


def check(model: Any) -> None:
    check_soundness(model)
    check_answers(model)


@pytest.mark.parametrize("name", LIES)
def test_one_wrong_number_is_refused(name: str) -> None:
    make, lie, said = LIES[name]
    model = make()
    check(model)
    lie(model)
    with pytest.raises(Distrusted, match="that is not sound") as caught:
        check([model])
    assert said in str(caught.value)


def test_the_first_estimator_may_be_any_that_fits() -> None:
    made = ensemble.GradientBoostingClassifier(n_estimators=2, init=linear_model.LogisticRegression())
    check(made.fit(ROWS, LABELS))
    check(ensemble.GradientBoostingClassifier(n_estimators=2, init="zero").fit(ROWS, LABELS))
