"""Signatures of fitted estimators: the dtype of each column, which may be null, and the outputs."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_array, csr_array
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, OneHotEncoder, QuantileTransformer, StandardScaler
from sklearn.svm import SVC

from serving.domain.mlmodel import NamedColumn
from serving.domain.signature import Container, Dtype, Feature, ModelKind, Signature
from serving.host.estimator_model import EstimatorModel
from serving.host.model import LoadRefused
from serving.host.signature_of_estimator import examine_estimator, signature_of
from serving.wire.compatibility import find_disagreements
from tests.unit.host.tables import make_mixed_pipeline

RANDOM = np.random.default_rng(1)
ROWS = RANDOM.normal(size=(60, 3))
LABELS = np.arange(60) % 2

Columns = dict[str, tuple[str, bool]]


def columns_of(signature: Signature) -> Columns:
    return {feature.name: (feature.dtype.value, feature.nullable) for feature in signature.features}


MIXED: Columns = {
    "age": ("number", True),
    "income": ("number", True),
    "city": ("string", True),
    "is_member": ("number", False),
    "plan": ("string", True),
    "level": ("number", True),
    "note": ("string", False),
}


@pytest.fixture(scope="module")
def fitted_mixed(gaps: pd.DataFrame, older: Any) -> Pipeline:
    return make_mixed_pipeline().fit(gaps, older)


# --- what each column takes -------------------------------------------------------------------------------------------


def test_each_column_of_a_table_is_described_by_the_part_that_gets_it(fitted_mixed: Pipeline) -> None:
    signature = signature_of(fitted_mixed)
    assert columns_of(signature) == MIXED
    assert (signature.container, signature.is_named) == (Container.DATAFRAME, True)


def test_columns_are_described_inside_other_estimators_too(gaps: pd.DataFrame, older: Any) -> None:
    search = GridSearchCV(make_mixed_pipeline(), {"logisticregression__C": [1.0]}, cv=2).fit(gaps, older)
    assert columns_of(signature_of(search)) == MIXED
    assert columns_of(signature_of(FrozenEstimator(search))) == MIXED
    votes = VotingClassifier([("a", make_mixed_pipeline()), ("b", make_mixed_pipeline())]).fit(gaps, older)
    assert columns_of(signature_of(votes)) == MIXED
    calibrated = CalibratedClassifierCV(make_mixed_pipeline(), cv=2).fit(gaps, older)
    assert columns_of(signature_of(calibrated)) == MIXED
    regression = TransformedTargetRegressor(make_pipeline(make_mixed_pipeline()[:-1], LinearRegression())).fit(
        gaps, older * 1.0
    )
    assert columns_of(signature_of(regression)) == MIXED


def test_a_sample_of_rows_adds_what_the_estimator_does_not_know(fitted_mixed: Pipeline, gaps: pd.DataFrame) -> None:
    assert columns_of(signature_of(fitted_mixed, gaps)) == {**MIXED, "is_member": ("bool", False)}
    backwards = gaps[gaps.columns[::-1]]
    assert columns_of(signature_of(fitted_mixed, backwards)) == {**MIXED, "is_member": ("bool", False)}


def test_categories_without_a_missing_one_do_not_take_null(people: pd.DataFrame, older: Any) -> None:
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["city", "is_member"])])
    chosen = people[["age", "city", "is_member"]]
    signature = signature_of(make_pipeline(columns, LogisticRegression()).fit(chosen, older))
    assert columns_of(signature) == {"age": ("number", False), "city": ("string", False), "is_member": ("bool", False)}


def test_one_column_of_an_encoder_may_take_null_where_its_neighbour_does_not(gaps: pd.DataFrame, older: Any) -> None:
    """city and plan had missing values, level had none: each column has its own categories."""
    columns = ColumnTransformer(
        [("c", OneHotEncoder(), ["city", "level", "plan"]), ("n", StandardScaler(), ["income"])]
    )
    chosen = gaps[["city", "level", "plan", "income"]]
    signature = signature_of(make_pipeline(columns, LogisticRegression()).fit(chosen, older))
    assert [feature.nullable for feature in signature.features] == [True, False, True, False]


def test_columns_that_no_part_reads_take_any_type(people: pd.DataFrame, older: Any) -> None:
    columns = ColumnTransformer([("n", StandardScaler(), ["age"])])
    signature = signature_of(make_pipeline(columns, LogisticRegression()).fit(people, older))
    assert columns_of(signature)["age"] == ("number", False)
    assert columns_of(signature)["note"] == ("any", True)
    known = signature_of(make_pipeline(columns, LogisticRegression()).fit(people, older), people)
    assert columns_of(known)["note"] == ("string", True)


def test_columns_keep_their_dtype_by_name_through_a_function(people: pd.DataFrame, older: Any) -> None:
    columns = ColumnTransformer(
        [("n", StandardScaler(), ["age", "ratio"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["city"])]
    )
    pipeline = make_pipeline(FunctionTransformer(add_ratio), columns, LogisticRegression())
    signature = signature_of(pipeline.fit(people[["age", "income", "city"]], older))
    assert columns_of(signature) == {"age": ("number", False), "income": ("number", False), "city": ("string", True)}


def add_ratio(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(ratio=frame.age / frame.income)


@pytest.mark.parametrize(
    ("selection", "strings"),
    [
        (make_column_selector(dtype_include=["str"]), {"city", "plan", "note"}),
        (slice("city", "city"), {"city"}),
        (slice(2, 3), {"city"}),
        ([-1], {"note"}),
        ([False, False, True, False, True, False, False], {"city", "plan"}),
        (np.array(["note"]), {"note"}),
    ],
)
def test_columns_may_be_selected_in_every_way_of_scikit_learn(
    people: pd.DataFrame, older: Any, selection: Any, strings: set[str]
) -> None:
    columns = ColumnTransformer([("s", OneHotEncoder(handle_unknown="ignore"), selection)])
    signature = signature_of(make_pipeline(columns, LogisticRegression()).fit(people, older))
    assert {feature.name for feature in signature.features if feature.dtype is Dtype.STRING} == strings


def test_boosting_finds_its_own_categories(gaps: pd.DataFrame, older: Any) -> None:
    frame = gaps[["age", "city", "level"]].astype({"city": "category"})
    signature = signature_of(
        HistGradientBoostingClassifier(max_iter=3, categorical_features="from_dtype").fit(frame, older)
    )
    assert columns_of(signature) == {"age": ("number", True), "city": ("string", True), "level": ("number", True)}


def test_arrays_of_objects_and_of_text_have_string_columns(people: pd.DataFrame, older: Any) -> None:
    objects = people[["age", "city"]].to_numpy(dtype=object)
    columns = ColumnTransformer([("n", StandardScaler(), [0]), ("c", OneHotEncoder(), [1])])
    signature = signature_of(make_pipeline(columns, LogisticRegression()).fit(objects, older))
    assert columns_of(signature) == {"x0": ("number", False), "x1": ("string", False)}
    assert (signature.container, signature.is_named) == (Container.ARRAY, False)
    texts = people[["city", "plan"]].to_numpy(dtype="U")
    encoder = signature_of(OneHotEncoder().fit(texts))
    assert columns_of(encoder) == {"x0": ("string", False), "x1": ("string", False)}


@pytest.mark.parametrize(
    "build",
    [
        lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()),
        lambda: make_pipeline(CountVectorizer(), LogisticRegression()),
        lambda: make_pipeline(HashingVectorizer(n_features=32), LogisticRegression()),
        lambda: make_pipeline(FeatureUnion([("a", TfidfVectorizer()), ("b", CountVectorizer())]), LogisticRegression()),
        lambda: GridSearchCV(make_pipeline(TfidfVectorizer(), LogisticRegression()), {"logisticregression__C": [1.0]}),
        lambda: VotingClassifier([("a", make_pipeline(TfidfVectorizer(), LogisticRegression()))]),
        lambda: CalibratedClassifierCV(make_pipeline(TfidfVectorizer(), LogisticRegression()), cv=2),
        TfidfVectorizer,
        lambda: HashingVectorizer(n_features=32),
    ],
)
def test_texts_are_one_feature(build: Any, people: pd.DataFrame, older: Any) -> None:
    model = build().fit(people.note.tolist(), older)
    for signature in (signature_of(model), signature_of(model, people.note.tolist())):
        assert signature.container is Container.TEXTS
        assert signature.features == (Feature(name="text", dtype=Dtype.STRING),)


# --- what may be null -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "takes_null"),
    [
        (LogisticRegression(), False),
        (HistGradientBoostingClassifier(max_iter=2), True),
        (RandomForestClassifier(2), True),
        (make_pipeline(SimpleImputer(), LogisticRegression()), True),
        (make_pipeline(StandardScaler(), LogisticRegression()), False),
        (SimpleImputer(), True),
        (StandardScaler(), True),  # gives NaN for null
        (QuantileTransformer(n_quantiles=5), True),
        (make_pipeline(StandardScaler(), MaxAbsScaler()), True),
        (make_pipeline(StandardScaler(), PCA(2)), False),
        (FunctionTransformer(), True),
        (FunctionTransformer(np.isfinite), True),
    ],
)
def test_null_is_taken_if_rows_with_it_are_answered(model: Any, takes_null: bool) -> None:
    signature = signature_of(model.fit(ROWS, LABELS))
    assert {feature.nullable for feature in signature.features} == {takes_null}


class Argmax(BaseEstimator):
    """Gives a label even when all its scores are NaN, and does not check its input."""

    def fit(self, X: Any, y: Any) -> Argmax:
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        return self

    def predict_proba(self, X: Any) -> Any:
        scores = np.asarray(X, dtype=float)[:, :2]
        return scores / scores.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> Any:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def test_a_label_from_nan_scores_does_not_count_as_an_answer() -> None:
    signature = signature_of(Argmax().fit(ROWS, LABELS))
    assert {feature.nullable for feature in signature.features} == {False}
    assert signature.kind is ModelKind.CLASSIFIER
    assert signature.classes == ((0, 1),)


class FillsAge(BaseEstimator):
    """Handles a missing age, and no other missing value."""

    def fit(self, X: Any, y: Any = None) -> FillsAge:
        self.feature_names_in_ = np.array(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: Any) -> Any:
        return X.astype(float).fillna({"age": 40.0}).sum(axis=1, skipna=False)


def test_own_code_is_tried_with_null_column_by_column(people: pd.DataFrame) -> None:
    signature = signature_of(FillsAge().fit(people[["level", "age", "income"]]))
    assert columns_of(signature) == {"level": ("number", False), "age": ("number", True), "income": ("number", False)}


def test_the_signature_does_not_depend_on_how_busy_the_machine_is(
    fitted_mixed: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = EstimatorModel.answer

    def answer_slowly(self: EstimatorModel, method: str, batch: Any) -> Any:
        time.sleep(0.01)
        return answer(self, method, batch)

    monkeypatch.setattr(EstimatorModel, "answer", answer_slowly)
    assert columns_of(signature_of(fitted_mixed)) == MIXED


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (LogisticRegression(), ModelKind.CLASSIFIER),
        (make_pipeline(StandardScaler(), LinearRegression()), ModelKind.REGRESSOR),
        (KMeans(2, n_init=1), ModelKind.CLUSTERER),
        (IsolationForest(n_estimators=2), ModelKind.OUTLIER_DETECTOR),
        (PCA(2), ModelKind.TRANSFORMER),
        (GaussianMixture(2), ModelKind.OTHER),
    ],
)
def test_the_kind_of_model_is_found(model: Any, kind: ModelKind) -> None:
    signature = signature_of(model.fit(ROWS, LABELS))
    assert signature.kind is kind
    assert (signature.classes is not None) == (kind is ModelKind.CLASSIFIER)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([3, 7])[LABELS], ((3, 7),)),
        (np.array(["no", "yes"])[LABELS], (("no", "yes"),)),
        (LABELS == 1, ((False, True),)),
        (np.column_stack([LABELS, ROWS[:, 0] > 0]), ((0, 1), (0, 1))),
    ],
)
def test_classes_are_one_tuple_of_plain_values_for_each_output(labels: Any, classes: Any) -> None:
    signature = signature_of(RandomForestClassifier(2).fit(ROWS, labels))
    assert signature.classes == classes
    assert signature.outputs == len(classes)
    assert signature.classes is not None
    assert {type(label) for row in signature.classes for label in row} <= {int, str, bool}


def test_outputs_are_counted() -> None:
    assert signature_of(LinearRegression().fit(ROWS, ROWS[:, :2])).outputs == 2
    assert signature_of(LinearRegression().fit(ROWS, ROWS[:, 0])).outputs == 1
    assert signature_of(PCA(2).fit(ROWS)).outputs == 2
    assert (
        signature_of(MultiOutputClassifier(LogisticRegression()).fit(ROWS, np.column_stack([LABELS] * 3))).outputs == 3
    )


def test_only_methods_that_work_are_offered_and_predict_comes_first() -> None:
    assert signature_of(SVC().fit(ROWS, LABELS)).methods == ("predict", "decision_function")
    assert signature_of(KMeans(2, n_init=1).fit(ROWS)).methods == ("predict", "transform")
    assert signature_of(StandardScaler().fit(ROWS)).methods == ("transform",)
    parts = [("a", make_pipeline(StandardScaler(), SVC()))]
    assert signature_of(StackingClassifier(parts, cv=2).fit(ROWS, LABELS)).default_method == "predict"


class RaisesInTransform(Argmax):
    @property
    def transform(self) -> Any:
        raise RuntimeError("not now")


def test_a_method_whose_lookup_fails_is_not_offered() -> None:
    assert signature_of(RaisesInTransform().fit(ROWS, LABELS)).methods == ("predict", "predict_proba")


class HalfBroken(Argmax):
    def predict_proba(self, X: Any) -> Any:
        raise NotImplementedError

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X))


def test_a_method_that_always_fails_is_left_out() -> None:
    assert signature_of(HalfBroken().fit(ROWS, LABELS)).methods == ("predict",)


# --- samples, refusals, declared signatures ---------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [ROWS, ROWS.tolist(), csr_array(ROWS), pd.DataFrame(ROWS), ROWS.astype(object)])
def test_a_sample_may_have_any_usual_type(rows: Any) -> None:
    signature = signature_of(LogisticRegression().fit(ROWS, LABELS), rows)
    assert {feature.dtype for feature in signature.features} == {Dtype.NUMBER}


def test_a_dummy_estimator_takes_the_dtypes_of_its_sample(people: pd.DataFrame, older: Any) -> None:
    dummy = DummyClassifier().fit(people, older)
    assert {feature.dtype for feature in signature_of(dummy).features} == {Dtype.ANY}
    assert columns_of(signature_of(dummy, people))["city"] == ("string", True)
    assert {feature.dtype for feature in signature_of(DummyClassifier().fit(ROWS, LABELS)).features} == {Dtype.NUMBER}


def test_a_bool_array_is_numbers_and_a_bool_column_is_bools() -> None:
    model = LogisticRegression().fit(ROWS > 0, LABELS)
    assert signature_of(model, ROWS > 0).features[0].dtype is Dtype.NUMBER
    frame = pd.DataFrame({"a": ROWS[:, 0] > 0})
    assert signature_of(LogisticRegression().fit(frame, LABELS), frame).features[0].dtype is Dtype.BOOL


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (ROWS[:, :2], r"the sample has the shape \(60, 2\), the estimator takes 3 features"),
        (pd.DataFrame(ROWS[:, :2]), "the sample has 2 columns, the estimator takes 3"),
    ],
)
def test_a_sample_of_something_else_is_refused(rows: Any, words: str) -> None:
    with pytest.raises(LoadRefused, match=words):
        signature_of(LogisticRegression().fit(ROWS, LABELS), rows)


def test_a_sample_without_a_fitted_column_is_refused(people: pd.DataFrame, older: Any) -> None:
    model = LogisticRegression().fit(people[["age"]], older)
    with pytest.raises(LoadRefused, match="the sample has no column 'age'"):
        signature_of(model, people[["city"]])


@pytest.mark.parametrize("found", [LogisticRegression(), {"a": 1}, LogisticRegression, "text", None])
def test_objects_other_than_fitted_estimators_are_refused(found: Any) -> None:
    with pytest.raises(LoadRefused):
        signature_of(found)


class WithoutFeatureCount(BaseEstimator):
    def fit(self, X: Any) -> WithoutFeatureCount:
        self.fitted_ = True
        return self

    def predict(self, X: Any) -> Any:
        return np.asarray(X, dtype=float).sum(axis=1)


def test_an_estimator_without_known_features_gets_the_declared_ones() -> None:
    with pytest.raises(LoadRefused, match="WithoutFeatureCount does not say how many features it takes"):
        signature_of(WithoutFeatureCount().fit(ROWS))
    declared = Signature(features=(Feature(name="a"), Feature(name="b")), methods=("predict",))
    assert examine_estimator(WithoutFeatureCount().fit(ROWS), declared=declared).signature == declared


class WithZeroFeatures(WithoutFeatureCount):
    """Reports no features, like a CatBoost estimator after it was loaded from a file."""

    n_features_in_ = 0


TABLE = pd.DataFrame({"width": [1.0, 2.0], "height": [3.0, None]})


@pytest.mark.parametrize(
    "model",
    [WithoutFeatureCount().fit(ROWS), make_pipeline(WithoutFeatureCount().fit(ROWS)), WithZeroFeatures().fit(ROWS)],
)
def test_an_estimator_without_known_features_gets_those_of_the_sample(model: Any) -> None:
    columns = {"width": ("number", False), "height": ("number", False)}
    signature = signature_of(model, TABLE)
    assert (columns_of(signature), signature.container, signature.is_named) == (columns, Container.DATAFRAME, True)
    assert examine_estimator(model, declared=signature).signature == signature
    for rows in (TABLE.to_numpy(), TABLE.to_numpy().tolist(), coo_array(TABLE.fillna(0.0).to_numpy())):
        signature = signature_of(model, rows)
        assert (list(columns_of(signature)), signature.container) == (["x0", "x1"], Container.ARRAY)
        assert examine_estimator(model, declared=signature).signature == signature


def test_a_sample_of_texts_is_one_feature() -> None:
    class Lengths(WithoutFeatureCount):
        def predict(self, X: Any) -> Any:
            return np.array([len(text) for text in X], dtype=float)

    for texts in (["a", "bc"], pd.Series(["a", "bc"]), np.array(["a", "bc"])):
        assert signature_of(Lengths().fit(ROWS), texts).container is Container.TEXTS


def test_a_sample_without_columns_is_refused() -> None:
    with pytest.raises(LoadRefused, match=r"the sample has the shape \(2,\); rows and features are expected, or texts"):
        signature_of(WithoutFeatureCount().fit(ROWS), [1.0, 2.0])


@pytest.mark.parametrize(("library", "table"), [("pyarrow", "table"), ("polars", "DataFrame")])
def test_tables_of_other_libraries_are_samples_too(library: str, table: str) -> None:
    rows = getattr(pytest.importorskip(library), table)({"a": [1, None], "b": [1.5, 2.5]})
    assert columns_of(signature_of(WithoutFeatureCount().fit(ROWS), rows)) == {
        "a": ("number", False),
        "b": ("number", False),
    }


class CatBoostLike(WithZeroFeatures):
    """Keeps column names in the attribute that CatBoost uses."""

    feature_names_: list[str]


CatBoostLike.__module__ = "catboost.core"


def test_names_of_catboost_models_are_found() -> None:
    cats = CatBoostLike().fit(ROWS)
    cats.feature_names_ = ["width", "height"]
    signature = signature_of(cats)
    assert (list(columns_of(signature)), signature.container) == (["width", "height"], Container.DATAFRAME)
    assert examine_estimator(cats, declared=signature).signature == signature
    of_arrays = Signature(features=(Feature(name="x0"), Feature(name="x1")), methods=("predict",))
    assert examine_estimator(cats, declared=of_arrays).signature == of_arrays
    narrow = of_arrays.model_copy(update={"features": of_arrays.features[:1]})
    wrong = find_disagreements(narrow, examine_estimator(cats, declared=narrow).signature)
    assert wrong[0] == "declares 1 features, the model takes 2"
    cats.feature_names_ = ["0", "1"]  # fitted on an array
    found = signature_of(cats)
    assert (list(columns_of(found)), found.container) == (["x0", "x1"], Container.ARRAY)
    assert examine_estimator(cats, declared=of_arrays).signature == of_arrays


def test_too_many_features_are_refused() -> None:
    wide = WithoutFeatureCount().fit(ROWS)
    wide.n_features_in_ = 200_000
    with pytest.raises(LoadRefused, match="200000 features, at most 100000 can be served"):
        signature_of(wide)


def test_deriving_a_signature_gives_no_warnings(fitted_mixed: Pipeline) -> None:
    """scikit-learn warns of unknown categories and missing names; pytest would turn that into an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        signature_of(fitted_mixed)
    assert caught == []


# --- what MLflow says of columns --------------------------------------------------------------------------------------


def test_unknown_columns_get_the_dtypes_from_mlflow() -> None:
    frame = pd.DataFrame({"age": [1.0, 2.0] * 10, "flag": [True, False] * 10})
    model = LogisticRegression().fit(frame, [0, 1] * 10)
    named = (NamedColumn("flag", Dtype.BOOL), NamedColumn("age", Dtype.NUMBER))
    dtypes = {feature.name: feature.dtype for feature in examine_estimator(model, named=named).signature.features}
    assert dtypes == {"age": Dtype.NUMBER, "flag": Dtype.BOOL}
    assert examine_estimator(model).signature.features[1].dtype is Dtype.NUMBER


def test_an_estimator_without_names_gets_all_names_from_mlflow_or_none() -> None:
    model = LogisticRegression().fit(ROWS, LABELS)
    named = tuple(NamedColumn(name, Dtype.NUMBER) for name in "abc")
    signature = examine_estimator(model, named=named).signature
    assert [feature.name for feature in signature.features] == ["a", "b", "c"]
    assert not signature.is_named
    for wrong in (named[:2], (*named[:2], named[0])):
        assert examine_estimator(model, named=wrong).signature.features[0].name == "x0"
