"""Graphs of real estimators, run by the real onnxruntime, give the answers of the estimators."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    BaggingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from serving.compiling.convert import NotCompilable, convert_estimator, count_tree_nodes
from serving.domain.compiled_form import Graph
from serving.domain.errors import ModelFailed
from serving.domain.signature import Dtype, Method
from serving.host.estimator_model import EstimatorModel
from serving.host.graph_check.graph_check import bound_graphs
from serving.host.signature_of_estimator import examine_estimator
from serving.plane.graph import list_number_inputs, make_feed
from serving.rows.batch import Batch
from tests.unit.host.test_every_estimator import SERVED, fit_estimator

ROWS, CLASSES = make_classification(300, 6, n_informative=5, n_redundant=0, n_classes=3, random_state=0)
VALUES = ROWS @ np.arange(1.0, 7.0) + 20

# at least one method has no graph; if one gets its graph, remove it here
REFUSED = frozenset(
    [
        "BernoulliRBM",  # its score_samples is a matter of chance
        "BisectingKMeans",
        "CategoricalNB",
        "ClassifierChain",
        "DictionaryLearning",
        "DummyClassifier",
        "GaussianProcessClassifier",
        "GaussianProcessRegressor",
        "Isomap",
        "KNNImputer",
        "KernelDensity",
        "LabelPropagation",
        "LabelSpreading",
        "LatentDirichletAllocation",
        "LocallyLinearEmbedding",
        "MiniBatchDictionaryLearning",
        "MiniBatchNMF",
        "MiniBatchSparsePCA",
        "MissingIndicator",
        "NMF",
        "PolynomialCountSketch",
        "RadiusNeighborsClassifier",
        "RadiusNeighborsRegressor",
        "RadiusNeighborsTransformer",
        "SparsePCA",
    ]
)


def run_graph(graph: Graph, model: EstimatorModel, method: Method, batch: Batch) -> list[Any]:
    """Return what the graph answers as the checker writes it, which must not refuse any graph that is drawn here."""
    asked = model.signature.model_copy(update={"methods": tuple(graph.outputs)})
    (graph,) = bound_graphs([graph], asked).graphs
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])
    answers: list[Any] = session.run(list(graph.outputs[method]), make_feed(batch, list_number_inputs(session)))
    return answers


def assert_alike(
    estimator: Any, *matrices: np.ndarray[Any, Any], X: Any = None, batches: tuple[Batch, ...] = ()
) -> None:
    """Check that all methods together, and each alone, answer as the estimator: same labels, dtypes and shapes."""
    model = examine_estimator(estimator, X=X)
    whole = convert_estimator(model)
    assert list(whole.outputs) == list(model.signature.methods)
    for method in model.signature.methods:
        alone = convert_estimator(model, (method,))
        assert list(alone.outputs) == [method]
        made = (Batch(len(matrix), matrix=np.ascontiguousarray(matrix, dtype=np.float64)) for matrix in matrices)
        for batch in (model.make_rows(5), *made, *batches):
            wanted = model.answer(method, batch).tensors
            for graph in (whole, alone):
                for mine, its in zip(run_graph(graph, model, method, batch), wanted, strict=True):
                    if isinstance(its, list):
                        assert mine.tolist() == its
                        continue
                    assert (mine.dtype, mine.shape) == (its.dtype, its.shape)
                    if its.dtype.kind == "f":
                        np.testing.assert_allclose(mine, its, rtol=1e-9, atol=1e-11)
                    else:
                        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("name", SERVED)
def test_an_estimator_answers_alike_or_is_refused_by_name(name: str) -> None:
    estimator, rows = fit_estimator(name)
    matrix = np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)
    model = examine_estimator(estimator)
    refusals: list[str] = []
    for method in model.signature.methods:
        try:
            graph = convert_estimator(model, (method,))
        except NotCompilable as refusal:
            refusals.append(str(refusal))
            continue
        batch = Batch(20, matrix=np.ascontiguousarray(matrix[:20]))
        for mine, its in zip(run_graph(graph, model, method, batch), model.answer(method, batch).tensors, strict=True):
            assert (mine.dtype, mine.shape) == (np.asarray(its).dtype, np.asarray(its).shape)
            with np.errstate(invalid="ignore"):
                np.testing.assert_allclose(mine, its, rtol=1e-6, atol=1e-6 if name == "Birch" else 1e-7)
    assert all("compiled form" in refusal and "\n" not in refusal for refusal in refusals)
    assert bool(refusals) == (name in REFUSED)


@pytest.mark.parametrize(
    "labels",
    [np.array([0, 1, 2]), np.array([5, -1, 7]), np.array(["c", "å", ""]), np.array([1.0, 2.0, 4.0])],
    ids=["places", "integers", "text", "floats"],
)
@pytest.mark.parametrize(
    "estimator",
    [LogisticRegression(), RandomForestClassifier(5, random_state=0), SVC()],
    ids=["linear", "trees", "svm"],
)
def test_labels_come_out_as_they_went_in(estimator: Any, labels: np.ndarray[Any, Any]) -> None:
    assert_alike(estimator.fit(ROWS, labels[CLASSES]), ROWS)


@pytest.mark.parametrize("labels", [np.array([False, True]), np.array([3, 1]), np.array(["no", "yes"])])
def test_two_labels_come_out_as_they_went_in(labels: np.ndarray[Any, Any]) -> None:
    for estimator in (LogisticRegression(), SGDClassifier(loss="log_loss"), SVC(), DecisionTreeClassifier(max_depth=3)):
        assert_alike(estimator.fit(ROWS, labels[(CLASSES > 0).astype(int)]), ROWS)


def test_a_score_of_exactly_zero_is_the_first_class() -> None:
    estimator = LogisticRegression().fit(np.array([[-1.0], [1.0]]), [4, 9])
    estimator.coef_, estimator.intercept_ = np.array([[2.0]]), np.array([-1.0])

    assert_alike(estimator, np.array([[0.5], [np.nextafter(0.5, 1)], [np.nextafter(0.5, 0)]]))


def test_probabilities_far_from_one_half_keep_their_digits() -> None:
    estimator = LogisticRegression().fit(np.array([[-1.0], [1.0]]), [0, 1])
    estimator.coef_ = np.array([[1.0]])

    model = examine_estimator(estimator)
    batch = Batch(4, matrix=np.array([[-700.0], [-40.0], [40.0], [-800.0]]))
    for method in ("predict_proba", "predict_log_proba"):
        mine = run_graph(convert_estimator(model, (method,)), model, method, batch)[0]
        np.testing.assert_allclose(mine, model.answer(method, batch).tensors[0], rtol=1e-12)


def test_estimators_inside_estimators_are_converted() -> None:
    trees = RandomForestClassifier(5, random_state=0)
    scaled = make_pipeline(make_union(StandardScaler(), MinMaxScaler(clip=True)), LogisticRegression(max_iter=500))
    for estimator in (
        GridSearchCV(scaled, {"logisticregression__C": [0.1, 1.0]}, cv=2),
        VotingClassifier([("a", trees), ("b", scaled)], voting="soft", weights=[1, 2]),
        VotingClassifier([("a", trees), ("b", scaled)]),
        StackingClassifier([("a", trees), ("b", LinearSVC())], cv=2, passthrough=True),
        CalibratedClassifierCV(trees, method="isotonic", cv=2),
        CalibratedClassifierCV(LinearSVC(), cv=2),
        BaggingClassifier(n_estimators=4, max_features=0.5, random_state=0),
        make_pipeline(PolynomialFeatures(3), LinearRegression()),
        make_pipeline(KBinsDiscretizer(4, encode="onehot-dense"), PowerTransformer(), LinearRegression()),
        make_pipeline(FunctionTransformer(np.abs), FunctionTransformer(np.log1p), LinearRegression()),
    ):
        with warnings.catch_warnings(action="ignore"):
            estimator.fit(ROWS, CLASSES)
        assert_alike(estimator, ROWS, ROWS * 3)
    target = TransformedTargetRegressor(LinearRegression(), func=np.log, inverse_func=np.exp)
    assert_alike(target.fit(ROWS, VALUES - VALUES.min() + 1), ROWS)


# --- tables -----------------------------------------------------------------------------------------------------------


def make_table() -> tuple[pd.DataFrame, Any]:
    """Return a table with every kind of column, and labels for it."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": random.normal(40, 10, 200),
            "city": random.choice(["Rome", "Ålesund", "Oslo"], 200).astype(object),
            "plan": random.choice(["a", "b", "c"], 200).astype(object),
            "vip": random.random(200) > 0.5,
            "level": random.choice(["x", "y", "z"], 200).astype(object),
        }
    )
    frame.loc[::7, "age"] = np.nan
    frame.loc[::5, "city"] = np.nan
    return frame, np.where((frame.city == "Oslo") ^ (frame.age > 42), "yes", "no")


@pytest.mark.parametrize(
    "encoder",
    [
        OneHotEncoder(handle_unknown="ignore"),
        OneHotEncoder(handle_unknown="ignore", drop="first"),
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=55),
        make_pipeline(SimpleImputer(strategy="constant", fill_value="?"), OneHotEncoder(handle_unknown="ignore")),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
    ],
    ids=["one-hot", "dropped", "infrequent", "filled", "ordinal"],
)
def test_text_unknown_and_null_are_encoded_alike(encoder: Any) -> None:
    frame, labels = make_table()
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = ColumnTransformer(
        [
            ("numbers", numbers, ["age"]),
            ("city", encoder, ["city"]),
            ("target", TargetEncoder(cv=2), ["level", "plan"]),
        ],
        remainder="passthrough",
    )
    estimator = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(frame, labels)
    odd: tuple[Any, ...] = (
        np.array([30.0, np.nan, 50.0, 40.0]),
        ["Rome", None, "", "Nowhere"],
        ["a", "b", "c", "q"],
        np.array([True, False, True, False]),
        ["x", "new", "z", "y"],
    )
    with warnings.catch_warnings(action="ignore"):
        assert_alike(estimator, X=frame, batches=(Batch(4, columns=odd),))


def test_features_of_any_type_are_refused() -> None:
    frame, labels = make_table()
    estimator = make_pipeline(OrdinalEncoder(encoded_missing_value=-2), LogisticRegression())
    model = examine_estimator(estimator.fit(frame, labels), X=frame)
    features = list(model.signature.features)
    features[3] = features[3].model_copy(update={"dtype": Dtype.ANY})

    with pytest.raises(NotCompilable, match="'vip' takes values of any type"):
        convert_estimator(model.with_signature(model.signature.model_copy(update={"features": tuple(features)})))


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_more_tree_nodes_than_allowed_are_refused() -> None:
    model = examine_estimator(RandomForestRegressor(3, random_state=0).fit(ROWS, VALUES))
    nodes = count_tree_nodes(model.estimator)

    assert nodes == sum(tree.tree_.node_count for tree in model.estimator.estimators_)
    convert_estimator(model, max_nodes=nodes)
    with pytest.raises(NotCompilable, match=f"the trees have {nodes} nodes, at most {nodes - 1} are compiled"):
        convert_estimator(model, max_nodes=nodes - 1)


class Doubled(LinearRegression):  # type: ignore[misc]
    """Gives other answers than its base class."""

    def predict(self, X: Any) -> Any:
        return 2 * super().predict(X)


def test_classes_that_are_not_scikit_learns_are_refused_at_any_depth() -> None:
    estimator = make_pipeline(StandardScaler(), Doubled()).fit(ROWS, VALUES)

    with pytest.raises(NotCompilable, match=r"Doubled .* is not scikit-learn's own"):
        convert_estimator(examine_estimator(estimator))


def test_naive_bayes_that_always_ties_is_refused() -> None:
    rows = np.abs(np.random.default_rng(0).normal(size=(30, 3)))
    for norm in (True, False):
        model = examine_estimator(ComplementNB(norm=norm).fit(rows, np.arange(30) % 3))
        with pytest.raises(NotCompilable, match="ties on rows of equal numbers") if norm else nullcontext():
            convert_estimator(model)


def test_texts_are_refused() -> None:
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["red apple", "green pear"], [0, 1])

    with pytest.raises(NotCompilable, match="TfidfVectorizer has no compiled form"):
        convert_estimator(examine_estimator(estimator))


def test_a_model_that_fails_on_made_up_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = examine_estimator(LinearRegression().fit(ROWS, VALUES))

    def fail(method: str, batch: Batch) -> Any:
        raise ModelFailed("out of order")

    monkeypatch.setattr(model, "answer", fail)
    with pytest.raises(NotCompilable, match="does not answer made-up rows"):
        convert_estimator(model)


def test_one_method_alone_does_not_draw_the_others() -> None:
    model = examine_estimator(RandomForestClassifier(5, random_state=0).fit(ROWS, CLASSES))

    whole, label = convert_estimator(model), convert_estimator(model, ("predict",))
    assert len(label.content) < len(whole.content) < 1.1 * len(label.content)  # the trees are there once
    assert replace(label).outputs == {"predict": ("y0",)}
