"""Answers of a loaded estimator equal those of the estimator itself, for all rows and even if it changes its input."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
from sklearn.svm import OneClassSVM

from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.signature import Dtype, Feature
from serving.host.estimator_model import EstimatorModel
from serving.host.output_tensors import to_prediction
from serving.host.signature_of_estimator import examine_estimator
from serving.rows.batch import Batch
from serving.rows.parsing import rows_to_batch
from tests.unit.host.tables import make_mixed_pipeline, to_rows

RANDOM = np.random.default_rng(2)
ROWS = RANDOM.normal(size=(80, 3))
LABELS = np.arange(80) % 2


def assert_answers_like(model: EstimatorModel, rows: Any, instances: list[Any]) -> None:
    """Every method gives the same for `instances`, the rows of a client, as the estimator for `rows`."""
    batch = rows_to_batch(model.signature, instances)
    for method in model.signature.methods:
        got = model.answer(method, batch)
        with warnings.catch_warnings(action="ignore"):  # unknown categories
            expected = to_prediction(getattr(model.estimator, method)(rows), len(instances))
        assert len(got.tensors) == len(expected.tensors)
        for mine, its in zip(got.tensors, expected.tensors, strict=True):
            if isinstance(its, list):
                assert mine == its
            else:
                np.testing.assert_allclose(mine, its, rtol=1e-12)


@pytest.mark.parametrize("encoder", [OneHotEncoder(), OrdinalEncoder()])
def test_numbers_that_were_fitted_as_objects_are_passed_as_objects(encoder: Any) -> None:
    numbers = np.array([[1], [2.5], [None]] * 5, dtype=object)
    model = examine_estimator(encoder.fit(numbers))
    assert_answers_like(model, numbers[:3], [[1], [2.5], [None]])
    table = pd.DataFrame({"rank": numbers[:2, 0]})
    model = examine_estimator(encoder.fit(table))
    assert_answers_like(model, table, [[1.0], [2.5]])


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_with_nulls_is_answered_like_the_pipeline(gaps: pd.DataFrame, older: Any) -> None:
    model = examine_estimator(make_mixed_pipeline().fit(gaps, older), X=gaps)
    head = gaps.head(30)
    assert_answers_like(model, head, to_rows(head))
    objects = [dict(reversed(list(zip(gaps.columns, row, strict=True)))) for row in to_rows(head)]
    assert_answers_like(model, head, objects)
    for place in (0, 5, 9):  # a single row, so that a whole column is missing
        one = gaps.iloc[[place]]
        assert_answers_like(model, one, to_rows(one))


def make_column(kind: str) -> pd.Series[Any]:
    cells = ["a", "b", None, "a", "b", "b"]
    if kind == "object with nan":
        return pd.Series([np.nan if cell is None else cell for cell in cells], dtype=object)
    return pd.Series(cells, dtype={"text": "str", "object with None": object, "category": "category"}[kind])


ENCODERS: dict[str, Callable[[], Any]] = {
    "one-hot": OneHotEncoder,
    "one-hot ignoring": lambda: OneHotEncoder(handle_unknown="ignore"),
    "ordinal": OrdinalEncoder,
    "ordinal with unknown": lambda: OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "target": lambda: TargetEncoder(cv=2),
    "most frequent": lambda: make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()),
    "constant": lambda: make_pipeline(SimpleImputer(strategy="constant", fill_value="?"), OneHotEncoder()),
    "None imputed": lambda: make_pipeline(
        SimpleImputer(missing_values=None, strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
    ),
}


KINDS = ("text", "object with None", "object with nan", "category")
CASES = [(kind, name) for kind in KINDS for name in ENCODERS if name != "None imputed" or kind == "object with None"]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_null_becomes_the_missing_value_of_the_fitted_encoder(kind: str, name: str) -> None:
    frame = pd.DataFrame({"size": np.arange(6.0), "letter": make_column(kind)})
    parts = ColumnTransformer([("n", StandardScaler(), ["size"]), ("letter", ENCODERS[name](), ["letter"])])
    impute = SimpleImputer(missing_values=np.nan)  # ordinal codes of missing values are NaN
    pipeline = make_pipeline(parts, FunctionTransformer(to_dense), impute, LinearRegression())
    model = examine_estimator(pipeline.fit(frame, [0.1, 1.2, 5.3, 0.4, 1.5, 1.6]))
    letter = model.signature.features[1]
    assert letter == Feature(name="letter", dtype=Dtype.STRING, nullable=True)
    assert_answers_like(model, frame, to_rows(frame))
    assert_answers_like(model, frame.iloc[[2]], [[2.0, None]])


def to_dense(rows: Any) -> Any:
    return rows.toarray() if hasattr(rows, "toarray") else rows


def test_bools_with_nulls_stay_bools(gaps: pd.DataFrame, older: Any) -> None:
    frame = pd.DataFrame({"flag": pd.Series([True, None, False] * 10, dtype=object), "size": np.arange(30.0)})
    columns = ColumnTransformer([("flag", OneHotEncoder(), ["flag"])], remainder="passthrough")
    model = examine_estimator(make_pipeline(columns, LinearRegression()).fit(frame, np.arange(30) % 3))
    assert model.signature.features[0] == Feature(name="flag", dtype=Dtype.BOOL, nullable=True)
    assert_answers_like(model, frame, to_rows(frame))
    assert_answers_like(model, frame[frame.flag.notna()], [row for row in to_rows(frame) if row[0] is not None])


def test_boosting_gets_text_categories(gaps: pd.DataFrame, older: Any) -> None:
    frame = gaps[["age", "city", "level"]].astype({"city": "category"})
    boosting = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype").fit(frame, older)
    assert_answers_like(examine_estimator(boosting), frame.head(20), to_rows(gaps[["age", "city", "level"]].head(20)))


def test_arrays_of_objects_are_passed_as_objects(people: pd.DataFrame, older: Any) -> None:
    objects = people[["age", "city"]].to_numpy(dtype=object)
    columns = ColumnTransformer([("n", StandardScaler(), [0]), ("c", OneHotEncoder(), [1])])
    model = examine_estimator(make_pipeline(columns, LogisticRegression()).fit(objects, older))
    assert_answers_like(model, objects[:9], objects[:9].tolist())


def test_texts_are_passed_as_a_list(people: pd.DataFrame, older: Any) -> None:
    texts = people.note.tolist()
    model = examine_estimator(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, older))
    assert_answers_like(model, texts[:5], texts[:5])


def test_a_table_of_numbers_is_answered_the_same_by_name_and_by_position(people: pd.DataFrame, older: Any) -> None:
    frame = people[["age", "income", "level"]]
    by_position = examine_estimator(make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, older))
    assert isinstance(by_position._build_input(by_position.make_rows(2)), np.ndarray)
    assert_answers_like(by_position, frame.head(9), to_rows(frame.head(9)))
    by_name = examine_estimator(make_pipeline(FunctionTransformer(square), LogisticRegression()).fit(frame, older))
    assert_answers_like(by_name, frame.head(9), to_rows(frame.head(9)))


def square(frame: pd.DataFrame) -> pd.DataFrame:
    """Fails on an array, and on a column of objects."""
    return frame.assign(age=np.square(frame["age"]))


def test_numbers_in_a_column_of_any_type_stay_numbers(people: pd.DataFrame, older: Any) -> None:
    frame = people[["age", "income"]]
    model = examine_estimator(make_pipeline(FunctionTransformer(square), LogisticRegression()).fit(frame, older))
    features = tuple(Feature(name=name, dtype=Dtype.ANY, nullable=True) for name in frame.columns)
    lenient = model.with_signature(model.signature.model_copy(update={"features": features}))
    assert_answers_like(lenient, frame.head(5), to_rows(frame.head(5)))
    given = lenient._build_input(rows_to_batch(lenient.signature, [[1, "a"], [None, 2]]))
    assert given.dtypes.tolist() == [np.float64, object]
    flags = lenient._build_input(rows_to_batch(lenient.signature, [[True, True], [False, None]]))
    assert flags.dtypes.tolist() == [np.bool_, object]


# --- outputs ----------------------------------------------------------------------------------------------------------

WORDS = np.array(["no", "yes"])[LABELS]
TWO = np.column_stack([LABELS, (ROWS[:, 0] > 0).astype(int)])
TWO_WORDS = np.column_stack([WORDS, np.array(["a", "b", "c", "a"] * 20)])


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression().fit(ROWS, WORDS),
        LogisticRegression().fit(ROWS, np.array(WORDS, dtype=object)),
        LogisticRegression().fit(ROWS, LABELS == 1),
        RandomForestClassifier(3).fit(ROWS, TWO),
        RandomForestClassifier(3).fit(ROWS, TWO_WORDS),
        KNeighborsClassifier().fit(ROWS, TWO_WORDS),
        MultiOutputClassifier(LogisticRegression()).fit(ROWS, TWO),
        ClassifierChain(LogisticRegression()).fit(ROWS, TWO),
        LinearRegression().fit(ROWS, ROWS[:, :2]),
        IsolationForest(n_estimators=3).fit(ROWS),
        OneClassSVM().fit(ROWS),
        LocalOutlierFactor(novelty=True).fit(ROWS),
        OneHotEncoder(handle_unknown="ignore").fit(np.round(ROWS)),
        StandardScaler().set_output(transform="pandas").fit(ROWS),
        Pipeline([("scale", StandardScaler()), ("last", "passthrough")]).fit(ROWS),
    ],
    ids=lambda model: type(model).__name__,
)
def test_answers_of_every_shape_are_passed_on(model: Any) -> None:
    rows = np.round(ROWS[:7])
    assert_answers_like(examine_estimator(model), rows, rows.tolist())


def test_several_labels_for_each_row() -> None:
    with warnings.catch_warnings(action="ignore"):  # five iterations do not converge
        labels = MLPClassifier((4,), max_iter=5).fit(ROWS, TWO)
    model = examine_estimator(labels)
    assert model.signature.outputs == 2
    assert_answers_like(model, ROWS[:5], ROWS[:5].tolist())


def test_answers_of_several_outputs_are_interleaved_row_by_row() -> None:
    model = examine_estimator(RandomForestClassifier(3).fit(ROWS, TWO_WORDS))
    rows = model.answer("predict_proba", Batch(2, ROWS[:2])).list_rows()
    assert [[len(output) for output in row] for row in rows] == [[2, 3], [2, 3]]


# --- what a model may do to its input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [False, True])
def test_a_batch_is_neither_kept_nor_changed_and_may_be_read_only(frame: bool) -> None:
    """StandardScaler(copy=False) scales its input in place; a second answer would be computed from scaled rows."""
    rows = pd.DataFrame(ROWS, columns=list("abc")) if frame else ROWS
    model = examine_estimator(make_pipeline(StandardScaler(copy=False), LogisticRegression()).fit(rows.copy(), LABELS))
    matrix = ROWS[:5].copy()
    before = model.answer("predict_proba", Batch(5, matrix)).list_rows()
    assert (matrix == ROWS[:5]).all()
    matrix.flags.writeable = False
    assert model.answer("predict_proba", Batch(5, matrix)).list_rows() == before


class RaisesError(BaseEstimator):
    """Writes into its input and raises a given error."""

    def __init__(self, error: BaseException | None = None, answers: Any = None) -> None:
        self.error = error
        self.answers = answers
        self.n_features_in_ = 1

    def fit(self, X: Any) -> RaisesError:
        return self

    def predict(self, X: Any) -> Any:
        X[:] = 7.0
        warnings.warn("look at me", stacklevel=2)
        if self.error is not None and self.is_armed:
            raise self.error
        return np.zeros(len(X)) if self.answers is None else self.answers

    is_armed = False


def make_raising_model(error: BaseException | None = None, answers: Any = None) -> EstimatorModel:
    model = examine_estimator(RaisesError(error, answers))
    model.estimator.is_armed = True
    return model


ONE = Batch(1, np.zeros((1, 1)))


def test_warnings_are_dropped() -> None:
    assert make_raising_model().answer("predict", ONE).list_rows() == [0.0]


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            ValueError("Input X contains NaN.\nLong advice."),
            InvalidInput,
            "refused the rows: Input X contains NaN. Long",
        ),
        (TypeError("must be str, not float"), InvalidInput, "must be str"),
        (ValueError("see /home/me/model.py"), InvalidInput, "see ..."),
        (NotFittedError("not fitted yet"), ModelFailed, "NotFittedError: not fitted yet"),
        (RuntimeError("broken"), ModelFailed, "RuntimeError: broken"),
        (AttributeError("no such thing"), ModelFailed, "AttributeError: no such thing"),
        (MemoryError(), ModelFailed, "MemoryError"),
        (RecursionError("deep"), ModelFailed, "RecursionError: deep"),
        (SystemExit(3), ModelFailed, "SystemExit: 3"),
        (KeyError("x" * 2000), ModelFailed, "KeyError"),
    ],
)
def test_an_exception_of_a_model_is_a_refusal_or_a_failure(error: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        make_raising_model(error).answer("predict", ONE)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert len(message) <= 300


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (np.zeros(3), "the model gave 3 answers for 2 rows"),
        (np.float64(1), "the model gave a single value for 2 rows"),
        ([], "the model gave 0 answers for 2 rows"),
        (None, None),
        (np.zeros(2, dtype=complex), "complex128, which JSON cannot carry"),
    ],
)
def test_an_answer_without_one_entry_for_each_row_is_a_failure(answers: Any, words: str | None) -> None:
    model = make_raising_model(answers=answers)
    batch = Batch(2, np.zeros((2, 1)))
    if words is None:
        assert model.answer("predict", batch).list_rows() == [0.0, 0.0]
        return
    with pytest.raises(ModelFailed, match=words):
        model.answer("predict", batch)


def test_a_method_outside_the_signature_is_not_called() -> None:
    model = examine_estimator(LogisticRegression().fit(ROWS, LABELS))
    only = model.with_signature(model.signature.model_copy(update={"methods": ("predict",)}))
    with pytest.raises(InvalidInput, match="offers predict; not predict_proba"):
        only.answer("predict_proba", Batch(1, ROWS[:1]))


def test_rows_that_the_model_refuses_are_refused_in_one_line() -> None:
    model = examine_estimator(LogisticRegression().fit(ROWS, LABELS))
    with pytest.raises(InvalidInput, match=r"^the model refused the rows: Input X contains NaN\."):
        model.answer("predict", Batch(1, np.array([[np.nan, 1, 2]])))


def test_failures_of_a_model_of_another_version_name_both_versions() -> None:
    here = sklearn.__version__
    for version, words in (
        ("0.22.1", rf" \(trained with scikit-learn 0\.22\.1, here is {here}\)$"),
        (here, "infinity|NaN"),
    ):
        model = examine_estimator(LogisticRegression().fit(ROWS, LABELS), trained_with={"scikit-learn": version})
        with pytest.raises(InvalidInput, match=words) as caught:
            model.answer("predict", Batch(1, np.array([[np.nan, 1, 2]])))
        assert ("trained with" in str(caught.value)) is (version != here)


# --- integers ---------------------------------------------------------------------------------------------------------


def test_large_integers_are_not_rounded_in_tables_or_arrays() -> None:
    table = pd.DataFrame({"id": [2**53, 2**53 + 1], "size": [0.5, 1.5]})
    model = examine_estimator(make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table[["id"]], [0, 1]))
    assert_answers_like(model, table[["id"]], [[2**53], [2**53 + 1]])
    array = examine_estimator(
        make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table[["id"]].to_numpy(), [0, 1])
    )
    assert_answers_like(array, table[["id"]].to_numpy(), [[2**53], [2**53 + 1]])


def test_a_float_next_to_a_known_integer_is_another_value() -> None:
    table = pd.DataFrame({"id": [2**53 + 1, 2**53 + 3], "size": [0.5, 1.5]})
    model = examine_estimator(make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table[["id"]], [0, 1]))
    assert_answers_like(model, table[["id"]], [[2**53 + 1], [2**53 + 3]])
    with pytest.raises(InvalidInput, match="unknown categories"):
        model.answer("predict", rows_to_batch(model.signature, [[2**53]]))


def test_an_array_that_would_round_an_integer_beside_a_fraction_is_refused() -> None:
    model = examine_estimator(StandardScaler().fit(ROWS[:, :2]))
    assert_answers_like(model, np.array([[2**53 + 1, 2]]), [[2**53 + 1, 2]])
    with pytest.raises(InvalidInput, match="feature 'x0': the number 9007199254740993 would be rounded"):
        model.answer("transform", rows_to_batch(model.signature, [[2**53 + 1, 0.5]]))
