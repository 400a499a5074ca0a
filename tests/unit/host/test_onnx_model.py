"""ONNX files of converters give the same answers as the estimator, within single precision."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    GradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, SGDClassifier, SGDOneClassSVM
from sklearn.mixture import GaussianMixture
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC, OneClassSVM

from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.signature import Container, Dtype, Feature, ModelKind, Signature
from serving.domain.version import Format
from serving.host.loading import library_versions, load_model
from serving.host.model import LoadedModel, LoadRefused
from serving.host.output_tensors import is_finite
from serving.rows.parsing import rows_to_batch

RANDOM = np.random.default_rng(5)
ROWS = RANDOM.normal(size=(90, 4)).astype(np.float32)
LABELS = np.arange(90) % 3
WORDS = np.array(["a", "b", "c"])[LABELS]
FLOATS = [("X", FloatTensorType([None, 4]))]
OPSETS = {"": 18, "ai.onnx.ml": 3}  # skl2onnx refuses some estimators in newer ones


@pytest.fixture
def serve(tmp_path: Path) -> Any:
    def convert_and_load(
        estimator: Any, types: Any = FLOATS, declared: Signature | None = None, **options: Any
    ) -> LoadedModel:
        with warnings.catch_warnings(action="ignore"):  # skl2onnx reads attributes that scikit-learn has deprecated
            chosen = {id(estimator): options} if options else None
            graph = convert_sklearn(estimator, initial_types=types, options=chosen, target_opset=OPSETS)
        return write_and_load(tmp_path, graph, declared)

    return convert_and_load


def write_and_load(directory: Path, graph: onnx.ModelProto, declared: Signature | None = None) -> LoadedModel:
    (directory / "blob").write_bytes(graph.SerializeToString())
    return load_model(str(directory / "blob"), Format.ONNX, declared=declared)


def get_answers(model: LoadedModel, method: str, rows: Any) -> list[Any]:
    return model.answer(method, rows_to_batch(model.signature, rows)).list_rows()


# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipmap", [True, False, "columns"])
@pytest.mark.parametrize("labels", [LABELS, WORDS], ids=["numbers", "words"])
def test_classifiers_give_labels_and_probabilities(serve: Any, zipmap: Any, labels: Any) -> None:
    estimator = LogisticRegression().fit(ROWS, labels)
    model = serve(estimator, zipmap=zipmap)
    assert (model.name, model.engine, model.trained_with) == ("ONNX model", "onnx", {})
    assert model.signature.kind is ModelKind.CLASSIFIER
    assert model.signature.methods == ("predict", "predict_proba")
    assert model.signature.classes == ((tuple(estimator.classes_.tolist()),) if zipmap is True else None)
    assert get_answers(model, "predict", ROWS[:9].tolist()) == estimator.predict(ROWS[:9]).tolist()
    probabilities = get_answers(model, "predict_proba", ROWS[:9].tolist())
    np.testing.assert_allclose(probabilities, estimator.predict_proba(ROWS[:9]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(3, random_state=0).fit(ROWS, np.column_stack([LABELS, LABELS[::-1]])),
        MultiOutputClassifier(LogisticRegression()).fit(ROWS, np.column_stack([LABELS, LABELS[::-1]])),
    ],
    ids=["one tensor", "a sequence"],
)
def test_each_of_several_outputs_has_probabilities(serve: Any, estimator: Any) -> None:
    model = serve(estimator, zipmap=False)
    assert model.signature.outputs == 2
    assert get_answers(model, "predict", ROWS[:5].tolist()) == estimator.predict(ROWS[:5]).tolist()
    got = np.array(get_answers(model, "predict_proba", ROWS[:5].tolist()))
    np.testing.assert_allclose(got.transpose(1, 0, 2), estimator.predict_proba(ROWS[:5]), rtol=1e-4, atol=1e-6)


def test_regressors_give_one_value_or_several(serve: Any) -> None:
    forest = RandomForestRegressor(3).fit(ROWS, ROWS[:, 0])
    model = serve(forest)
    assert (model.signature.kind, model.signature.outputs) == (ModelKind.REGRESSOR, 1)
    assert get_answers(model, "predict", ROWS[:5].tolist()) == pytest.approx(
        forest.predict(ROWS[:5]).tolist(), rel=1e-5
    )
    both = LinearRegression().fit(ROWS, ROWS[:, :2])
    model = serve(both)
    assert (model.signature.kind, model.signature.outputs) == (ModelKind.OTHER, 2)
    np.testing.assert_allclose(get_answers(model, "predict", ROWS[:5].tolist()), both.predict(ROWS[:5]), atol=1e-5)


SIDES = (ROWS[:, 0] > 0).astype(int)
SCORED = [
    (LogisticRegression(), SIDES, {"raw_scores": True, "zipmap": False}),
    (LogisticRegression(), LABELS, {"raw_scores": True, "zipmap": True}),
    (SVC(), SIDES, {"raw_scores": False}),
    (SVC(), WORDS, {}),
    (RidgeClassifier(), SIDES, {}),
    (SGDClassifier(random_state=0), SIDES, {"zipmap": False}),
    (GradientBoostingClassifier(n_estimators=3), LABELS, {"raw_scores": True, "zipmap": False}),
    (KMeans(2, n_init=1, random_state=0), None, {}),
    (make_pipeline(StandardScaler(), KMeans(4, n_init=1, random_state=0)), None, {}),
    (IsolationForest(n_estimators=5, random_state=0), None, {}),
    (IsolationForest(n_estimators=5, random_state=0), None, {"score_samples": True}),
    (LocalOutlierFactor(novelty=True), None, {}),
    (OneClassSVM(), None, {}),
    (SGDOneClassSVM(random_state=0), None, {}),
    (GaussianMixture(2, random_state=0), None, {"score_samples": True}),
    (QuadraticDiscriminantAnalysis(), SIDES, {"zipmap": False}),
]


@pytest.mark.parametrize(("estimator", "labels", "options"), SCORED, ids=lambda each: str(each)[:60].replace("\n", ""))
def test_further_outputs_answer_the_estimators_methods(
    serve: Any, estimator: Any, labels: Any, options: dict[str, Any]
) -> None:
    estimator.fit(ROWS, labels)
    model = serve(estimator, **options)
    assert model.left_out == ()
    assert len(model.signature.methods) == (3 if "score_samples" in options else 2)
    for method in model.signature.methods:
        expected = getattr(estimator, method)(ROWS)
        (answered,) = model.answer(method, rows_to_batch(model.signature, ROWS.tolist())).tensors
        if expected.dtype.kind in "iUO":
            assert list(answered) == expected.tolist()
        else:
            np.testing.assert_allclose(answered, expected, rtol=1e-3, atol=1e-3)


def test_scores_are_recognised_although_some_labels_come_from_votes(serve: Any) -> None:
    rows, digits = load_digits(return_X_y=True)
    machine = SVC(kernel="linear").fit(rows[:300], digits[:300])
    model = serve(machine, [("X", FloatTensorType([None, 64]))])
    assert model.signature.methods == ("predict", "decision_function")
    scores = get_answers(model, "decision_function", rows[:20].tolist())
    np.testing.assert_allclose(scores, machine.decision_function(rows[:20]), atol=1e-3)


def test_scores_are_not_offered_as_probabilities(serve: Any) -> None:
    assert serve(SVC().fit(ROWS, LABELS)).signature.methods == ("predict", "decision_function")
    assert serve(KMeans(2, n_init=1).fit(ROWS)).signature.methods == ("predict", "transform")


@pytest.mark.parametrize(
    ("takes", "zipmap"),
    [(Int64TensorType, True), (Int64TensorType, False), (FloatTensorType, False), (DoubleTensorType, False)],
)
def test_all_number_types_give_probabilities(serve: Any, takes: Any, zipmap: bool) -> None:
    rows = RANDOM.integers(0, 9, (60, 3))
    estimator = LogisticRegression().fit(rows, rows[:, 0] > 4)
    model = serve(estimator, [("X", takes([None, 3]))], zipmap=zipmap)
    assert model.signature.methods == ("predict", "predict_proba")
    probabilities = get_answers(model, "predict_proba", rows[:9].tolist())
    np.testing.assert_allclose(probabilities, estimator.predict_proba(rows[:9]), rtol=1e-4, atol=1e-6)


def test_outputs_that_fit_no_method_are_left_out(serve: Any) -> None:
    """Paths through trees, standard deviations, and scores scaled to norm one, which the estimator does not give."""
    tree = serve(RandomForestClassifier(2).fit(ROWS, LABELS), zipmap=False, decision_path=True, decision_leaf=True)
    assert tree.signature.methods == ("predict", "predict_proba")
    assert tree.left_out == ("decision_path", "decision_leaf")
    process = serve(GaussianProcessRegressor(optimizer=None).fit(ROWS[:20], ROWS[:20, 0]), return_std=True)
    assert (process.signature.methods, process.left_out) == (("predict",), ("GPcovstd",))
    scaled = serve(OneVsRestClassifier(LinearSVC()).fit(ROWS, LABELS), zipmap=False)
    assert (scaled.signature.methods, scaled.left_out) == (("predict",), ("probabilities",))


@pytest.mark.parametrize("labels", [LABELS, WORDS], ids=["numbers", "words"])
def test_an_output_of_class_labels_names_the_columns(serve: Any, labels: Any) -> None:
    estimator = LogisticRegression().fit(ROWS, labels)
    model = serve(estimator, zipmap=False, output_class_labels=True)
    assert model.signature.methods == ("predict", "predict_proba")
    assert model.signature.classes == (tuple(estimator.classes_.tolist()),)
    assert model.left_out == ()
    declared = model.signature.model_copy(update={"classes": None, "kind": ModelKind.OTHER, "methods": ("predict",)})
    assert serve(estimator, declared=declared, zipmap=False, output_class_labels=True).signature == declared


def test_a_label_after_its_probabilities_is_the_prediction(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        graph = convert_sklearn(LogisticRegression().fit(ROWS, LABELS), initial_types=FLOATS, options={"zipmap": False})
    label, probabilities = graph.graph.output
    del graph.graph.output[:]
    graph.graph.output.extend([probabilities, label])
    model = write_and_load(tmp_path, graph)
    assert model.signature.methods == ("predict", "predict_proba")
    assert all(isinstance(each, int) for each in get_answers(model, "predict", ROWS[:3].tolist()))
    del graph.graph.output[:]
    graph.graph.output.extend([probabilities])
    alone = write_and_load(tmp_path, graph)
    assert alone.signature.methods == ("predict", "predict_proba")
    rows = ROWS[:3].tolist()
    assert get_answers(alone, "predict", rows) == get_answers(alone, "predict_proba", rows)


def test_a_graph_is_a_transformer_if_the_publisher_declares_it(serve: Any) -> None:
    scaler = StandardScaler().fit(ROWS)
    assert serve(scaler).signature.methods == ("predict",)
    own = serve(scaler).signature
    declared = own.model_copy(update={"methods": ("transform",), "kind": ModelKind.TRANSFORMER})
    model = serve(scaler, declared=declared)
    assert model.signature == declared
    np.testing.assert_allclose(
        get_answers(model, "transform", ROWS[:3].tolist()), scaler.transform(ROWS[:3]), atol=1e-5
    )


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_an_input_for_each_column_makes_named_features(serve: Any) -> None:
    frame = pd.DataFrame({"a": ROWS[:, 0], "b": ROWS[:, 1], "city": WORDS})
    columns = ColumnTransformer([("n", StandardScaler(), ["a", "b"]), ("c", OneHotEncoder(), ["city"])])
    pipeline = make_pipeline(columns, LogisticRegression()).fit(frame, LABELS)
    types = [(name, FloatTensorType([None, 1])) for name in "ab"] + [("city", StringTensorType([None, 1]))]
    model = serve(pipeline, types)
    assert (model.signature.container, model.signature.is_named) == (Container.DATAFRAME, True)
    assert [(feature.name, feature.dtype) for feature in model.signature.features] == [
        ("a", Dtype.NUMBER),
        ("b", Dtype.NUMBER),
        ("city", Dtype.STRING),
    ]
    rows = [dict(zip(("city", "b", "a"), (city, b, a), strict=True)) for a, b, city in frame.head(5).values.tolist()]
    assert get_answers(model, "predict", rows) == pipeline.predict(frame.head(5)).tolist()
    assert get_answers(model, "predict", rows[:1]) == pipeline.predict(frame.head(1)).tolist()
    with pytest.raises(InvalidInput):
        get_answers(model, "predict", [{"a": 1, "b": 2, "city": 3}])


def test_inputs_of_several_columns_are_split_into_features(serve: Any) -> None:
    types = [("left", FloatTensorType([None, 3])), ("right", DoubleTensorType([None, 1]))]
    columns = ColumnTransformer([("l", "passthrough", [0, 1, 2]), ("r", "passthrough", [3])])
    line = make_pipeline(columns, LinearRegression()).fit(ROWS, ROWS[:, 3])
    model = serve(line, types)
    assert [feature.name for feature in model.signature.features] == ["left_0", "left_1", "left_2", "right"]
    assert get_answers(model, "predict", ROWS[:4].tolist()) == pytest.approx(ROWS[:4, 3].tolist(), abs=1e-5)


def test_one_column_of_strings_means_texts(tmp_path: Path) -> None:
    for shape in (["N"], ["N", 1]):
        model = write_and_load(tmp_path, make_identity_graph(TensorProto.STRING, shape))
        assert model.signature.container is Container.TEXTS
        assert get_answers(model, "predict", ["a", "b"]) == ["a", "b"]


FILMS = ["Good film", "bad FILM", "so Good it is", "terrible BAD film"]


def make_text_graph(locale: str | None = None) -> tuple[Any, onnx.ModelProto]:
    words = CountVectorizer(token_pattern="[a-zA-Z]+")
    estimator = make_pipeline(words, LogisticRegression()).fit(FILMS, [1, 0, 1, 0])
    with warnings.catch_warnings(action="ignore"):
        graph = convert_sklearn(
            estimator, initial_types=[("X", StringTensorType([None, 1]))], options={"zipmap": False}
        )
    (normalizer,) = [node for node in graph.graph.node if node.op_type == "StringNormalizer"]
    if locale is not None:
        normalizer.attribute.append(helper.make_attribute("locale", locale))
    return estimator, graph


@pytest.mark.parametrize("locale", [None, "en_US.UTF-8", "C.UTF-8"])
def test_texts_become_lower_case_with_any_locales_of_the_system(tmp_path: Path, locale: str | None) -> None:
    """Images have only C.UTF-8; exporters require en_US.UTF-8, which has the same cases of letters."""
    estimator, graph = make_text_graph(locale)
    model = write_and_load(tmp_path, graph)
    assert model.signature.methods == ("predict", "predict_proba")
    np.testing.assert_allclose(get_answers(model, "predict_proba", FILMS), estimator.predict_proba(FILMS), atol=1e-6)


def test_a_missing_locale_with_other_rules_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadRefused, match=r"by the locale 'tlh_QO\.UTF-8', which this system lacks: install it"):
        write_and_load(tmp_path, make_text_graph("tlh_QO.UTF-8")[1])


def test_bools_and_integers_keep_their_dtypes(serve: Any, tmp_path: Path) -> None:
    model = serve(LinearRegression().fit(np.arange(8).reshape(4, 2), np.arange(4)), [("X", Int64TensorType([None, 2]))])
    assert get_answers(model, "predict", [[6, 7]]) == pytest.approx([3.0])
    with pytest.raises(InvalidInput, match=r"the model takes integers, got 0\.5"):
        get_answers(model, "predict", [[0.5, 1]])
    flags = write_and_load(tmp_path, make_identity_graph(TensorProto.BOOL, ["N", 2]))
    assert flags.signature.features[0] == Feature(name="x0", dtype=Dtype.BOOL)
    assert get_answers(flags, "predict", [[True, False]]) == [[True, False]]


def test_numbers_beyond_single_precision_are_refused(serve: Any) -> None:
    model = serve(LogisticRegression().fit(ROWS, LABELS))
    with pytest.raises(InvalidInput, match=r"the model takes numbers within float32, got 1e\+300"):
        get_answers(model, "predict", [[1e300, 0, 0, 0]])


def test_null_is_taken_only_where_the_publisher_declares_it(serve: Any) -> None:
    """The graph of a forest gives some answer to NaN, which proves nothing."""
    forest = RandomForestClassifier(2).fit(ROWS, LABELS)
    model = serve(forest)
    assert not any(feature.nullable for feature in model.signature.features)
    features = tuple(feature.model_copy(update={"nullable": True}) for feature in model.signature.features)
    declared = model.signature.model_copy(update={"features": features})
    assert len(get_answers(serve(forest, declared=declared), "predict", [[1, None, None, 1]])) == 1


# --- what is refused --------------------------------------------------------------------------------------------------


def make_identity_graph(kind: int, shape: list[Any]) -> onnx.ModelProto:
    node = helper.make_node("Identity", ["X"], ["Y"])
    values = [helper.make_tensor_value_info(name, kind, shape) for name in "XY"]
    graph = helper.make_graph([node], "identity", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(
    ("kind", "shape", "words"),
    [
        (TensorProto.FLOAT, [1, 4], "fixed at 1 rows: export it with an open first dimension"),
        (TensorProto.FLOAT, ["N", 3, 8, 8], "a row is a flat list of features"),
        (TensorProto.FLOAT, ["N", "D"], "does not say how many features it takes: publish with a signature"),
        (TensorProto.UINT8, ["N", 4], "numbers, strings and bools can be sent"),
    ],
)
def test_graphs_that_do_not_take_rows_are_refused(tmp_path: Path, kind: int, shape: Any, words: str) -> None:
    with pytest.raises(LoadRefused, match=words):
        write_and_load(tmp_path, make_identity_graph(kind, shape))


def test_an_open_number_of_features_can_be_declared(tmp_path: Path) -> None:
    graph = make_identity_graph(TensorProto.FLOAT, ["N", "D"])
    declared = Signature(features=(Feature(name="a"), Feature(name="b")), methods=("predict",), outputs=2)
    assert write_and_load(tmp_path, graph, declared).signature == declared


def test_a_file_without_a_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"\x08\x07 nothing of the kind")
    with pytest.raises(LoadRefused, match="the graph cannot be loaded") as caught:
        load_model(str(tmp_path / "blob"), Format.ONNX)
    assert str(tmp_path) not in str(caught.value)


def test_an_error_inside_the_graph_is_a_failure_of_the_model(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["X", "shape"], ["Y"])
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1, 7])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "XY"]
    graph = helper.make_graph([node], "broken", values[:1], values[1:], [shape])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model = write_and_load(tmp_path, made)
    with pytest.raises(ModelFailed):
        model.answer("predict", model.make_rows(2))


def test_a_method_outside_the_signature_is_refused(serve: Any) -> None:
    model = serve(LogisticRegression().fit(ROWS, LABELS))
    with pytest.raises(InvalidInput, match="offers predict, predict_proba; not transform"):
        model.answer("transform", model.make_rows(1))


def test_made_up_rows_are_answered(serve: Any) -> None:
    model = serve(LogisticRegression().fit(ROWS, LABELS))
    for method in model.signature.methods:
        assert all(is_finite(tensor).all() for tensor in model.answer(method, model.make_rows(5)).tensors)
    assert "onnxruntime" in library_versions()
