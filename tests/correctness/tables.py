"""Pipelines on tables of every kind of column, and files that are no pickles: as practitioners have them."""

from __future__ import annotations

import pickle
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pandas as pd
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier

from tests.correctness.asking import methods_of
from tests.correctness.cases import FORMS, Subject, write_as
from tests.correctness.material import Material, material_like

COUNT = 200
RANDOM = np.random.default_rng(7)
NUMBER = RANDOM.normal(size=COUNT) * 10
GAPS = np.where(RANDOM.random(COUNT) < 0.15, np.nan, NUMBER)
WORDS = RANDOM.choice(np.array(["red", "green", "blue"], dtype=object), COUNT)
LARGE = RANDOM.choice(np.array([2**53 + 1, 2**53 + 3, 2**60 + 7, 5]), COUNT)
LABELS = (NUMBER + (WORDS == "red") * 5 > 0).astype(int)
NAMES = np.array(["no", "yes"])[LABELS]
TEXTS = [f"{word} {'big' if number > 0 else 'small'} car" for word, number in zip(WORDS, NUMBER, strict=True)]


def columns() -> dict[str, Any]:
    """Return a column of every kind."""
    is_gap = RANDOM.random(COUNT) < 0.1
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(RANDOM.integers(0, 30, COUNT), unit="D")
    return {
        "floats": NUMBER,
        "floats with gaps": GAPS,
        "float32": NUMBER.astype(np.float32),
        "integers": RANDOM.integers(0, 9, COUNT),
        "int8": RANDOM.integers(0, 9, COUNT).astype(np.int8),
        "uint8": RANDOM.integers(0, 9, COUNT).astype(np.uint8),
        "large integers": LARGE,
        "uint64": LARGE.astype(np.uint64),
        "bools": LABELS.astype(bool) ^ (RANDOM.random(COUNT) < 0.2),
        "strings": pd.Series(WORDS, dtype="str"),
        "objects": pd.Series(WORDS, dtype=object),
        "strings with gaps": pd.Series(np.where(RANDOM.random(COUNT) < 0.15, None, WORDS), dtype=object),
        "categories": pd.Categorical(WORDS),
        "categories of integers": pd.Categorical(RANDOM.integers(0, 4, COUNT)),
        "ordered categories": pd.Categorical(WORDS, ["red", "green", "blue"], ordered=True),
        "days": pd.Series(days),
        "nullable integers": pd.Series(np.where(is_gap, None, RANDOM.integers(0, 9, COUNT)), dtype="Int64"),
        "nullable floats": pd.Series(GAPS, dtype="Float64"),
        "nullable bools": pd.Series(np.where(is_gap, None, LABELS == 1), dtype="boolean"),
    }  # fmt: skip


def tables(share: int = 0, shares: int = 1, only: Collection[str] = ()) -> Iterator[Subject]:
    """Yield each encoder on each kind of column beside a number, and usual pipelines of several columns.

    With `only`, those of these names.
    """
    for place, (name, fit, table) in enumerate([*_single(), *_usual()]):
        if place % shares != share or (only and name not in only):
            continue
        with warnings.catch_warnings(action="ignore"):
            try:
                estimator = pickle.loads(pickle.dumps(fit()))  # they share parts, which are fitted again
            except (ValueError, TypeError):  # an encoder that does not take this kind of column
                continue
        material = material_like(table)
        if material is not None:
            yield Subject("tables", name, _writer(estimator, FORMS[place % 5]), methods_of(estimator), material)


def _writer(estimator: Any, form: str) -> Callable[[Path], None]:
    return lambda directory: write_as(form, estimator, directory)


def _single() -> Iterator[tuple[str, Callable[[], Any], Any]]:
    last = LogisticRegression()
    makers: dict[str, Callable[[], Any]] = {
        "OneHotEncoder": lambda: OneHotEncoder(handle_unknown="ignore"),
        "OneHotEncoder(strict)": OneHotEncoder,
        "OrdinalEncoder": lambda: OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        "TargetEncoder": lambda: TargetEncoder(random_state=0),
        "SimpleImputer": lambda: SimpleImputer(strategy="most_frequent"),
        "passthrough": lambda: "passthrough",
        "drop": lambda: "drop",
    }
    for kind, column in columns().items():
        table = pd.DataFrame({"size": NUMBER, "column": column})
        for name, make in makers.items():
            after = [OneHotEncoder(handle_unknown="ignore")] if name == "SimpleImputer" else []
            chosen = make_pipeline(make(), *after) if after else make()
            split = make_column_transformer((StandardScaler(), ["size"]), (chosen, ["column"]))
            model = make_pipeline(split, last if name != "passthrough" else DecisionTreeClassifier(max_depth=4))
            yield f"{name} of {kind}", lambda model=model, table=table: model.fit(table, NAMES), table
        boosted = HistGradientBoostingClassifier(max_iter=5)
        yield f"boosting of {kind}", lambda model=boosted, table=table: model.fit(table, NAMES), table


def _usual() -> Iterator[tuple[str, Callable[[], Any], Any]]:
    found = columns()
    mixed = pd.DataFrame(
        {"age": found["floats with gaps"], "rooms": found["integers"], "colour": found["strings with gaps"],
         "new": found["bools"], "note": TEXTS, "id": LARGE, "row": [f"row {place}" for place in range(COUNT)]}
    )  # fmt: skip
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="?"),
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=3),
    )
    for last in (LogisticRegression(), RandomForestClassifier(7, random_state=0), KNeighborsClassifier(), SVC(),
                 HistGradientBoostingClassifier(max_iter=5), GradientBoostingClassifier(n_estimators=5)):  # fmt: skip
        split = make_column_transformer(
            (numbers, ["age", "rooms"]), (words, ["colour"]), ("passthrough", ["new"]),
            (OneHotEncoder(handle_unknown="ignore"), ["id"]), sparse_threshold=0,
        )  # fmt: skip
        whole = make_pipeline(split, last)
        yield f"mixed, {type(last).__name__}", lambda m=whole: m.fit(mixed, NAMES), mixed
        texts = make_column_transformer((TfidfVectorizer(), "note"), (numbers, ["age", "rooms"]), sparse_threshold=0)
        whole = make_pipeline(texts, last)
        yield f"texts, {type(last).__name__}", lambda m=whole: m.fit(mixed, LABELS), mixed
    few = mixed[["age", "rooms", "new"]]
    for last in (RandomForestRegressor(5, random_state=0), HistGradientBoostingRegressor(max_iter=5), Ridge(), SVR()):
        whole = make_pipeline(KNNImputer(), last)
        yield f"numbers, {type(last).__name__}", lambda m=whole: m.fit(few, NUMBER), few
    bins = make_pipeline(
        SimpleImputer(), KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"), LinearRegression()
    )
    yield "numbers, bins", lambda: bins.fit(few, NUMBER), few
    objects = [
        {"colour": word, "size": number, "new": bool(label)}
        for word, number, label in zip(WORDS, NUMBER, LABELS, strict=True)
    ]
    plain = [{"a": float(number), "b": int(label)} for number, label in zip(NUMBER, LABELS, strict=True)]
    for vectorizer, rows in (
        (DictVectorizer(), objects),
        (DictVectorizer(sparse=False), objects),
        (FeatureHasher(16), plain),
    ):
        yield (
            f"{vectorizer!r:.60}",
            lambda v=vectorizer, r=rows: make_pipeline(v, LogisticRegression()).fit(r, NAMES),
            rows,
        )
    for vectorizer in (CountVectorizer(), TfidfVectorizer(ngram_range=(1, 2))):
        yield (
            f"{vectorizer!r:.60}",
            lambda v=vectorizer: make_pipeline(v, SGDClassifier(random_state=0)).fit(TEXTS, NAMES),
            TEXTS,
        )


# --- other files ------------------------------------------------------------------------------------------------------

X = RANDOM.normal(size=(COUNT, 4))
THREE = np.digitize(X[:, 0], [-0.5, 0.5])


def files(share: int = 0, shares: int = 1) -> Iterator[Subject]:
    """Yield ONNX graphs of skl2onnx, compared with onnxruntime, and directories of MLflow."""
    makers: list[Callable[[], Subject | None]] = []
    for place, (estimator, answers) in enumerate(_plain()):
        zipmaps: tuple[Any, ...] = (False, True) if hasattr(estimator, "predict_proba") else (None,)
        makers += [partial(_onnx, estimator, answers, zipmap) for zipmap in zipmaps]
        if place % 2 == 0:
            makers.append(partial(_mlflow, estimator, answers))
    for place, make in enumerate(makers):
        if place % shares == share:
            with warnings.catch_warnings(action="ignore"):
                found = make()
            if found is not None:
                yield found


def _plain() -> Iterator[tuple[Any, Any]]:
    for labels in (THREE, np.array(["a", "b", "c"])[THREE], THREE > 0):
        for kind in (
            LogisticRegression(), RandomForestClassifier(5, random_state=0), GaussianNB(), DecisionTreeClassifier(),
            make_pipeline(MinMaxScaler(), KNeighborsClassifier(3)),
            make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=30, random_state=0)),
            GradientBoostingClassifier(n_estimators=5),
        ):  # fmt: skip
            yield kind, labels
    yield from ((kind, X[:, 1]) for kind in (LinearRegression(), RandomForestRegressor(5), SVR()))


def _onnx(estimator: Any, answers: Any, zipmap: Any) -> Subject | None:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    estimator = clone(estimator).fit(X, answers)
    options = None if zipmap is None else {id(estimator): {"zipmap": zipmap}}
    try:
        graph = convert_sklearn(
            estimator,
            initial_types=[("X", FloatTensorType([None, 4]))],
            options=options,
            target_opset={"": 18, "ai.onnx.ml": 3},
        )
    except Exception:  # noqa: BLE001  (what the exporter cannot draw)
        return None
    raw = graph.SerializeToString()
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]

    def answer(place: int) -> Callable[[Any], Any]:
        def ask(rows: Any) -> Any:
            found = session.run([outputs[place]], {"X": np.asarray(rows, dtype=np.float32)})[0]
            maps = isinstance(found, list) and isinstance(found[0], dict)
            return np.array([list(row.values()) for row in found], np.float32) if maps else _flat(found)

        return ask

    methods = ("predict", "predict_proba")[: len(outputs)]
    label = np.asarray(getattr(estimator, "classes_", ["-"]))[0]
    name = f"ONNX of {type(estimator).__name__}, zipmap {zipmap}, {label!s}"

    def write(directory: Path) -> None:
        directory.mkdir(parents=True)
        (directory / "model.onnx").write_bytes(raw)

    return Subject(
        "ONNX files", name, write, {method: answer(place) for place, method in enumerate(methods)}, _floats()
    )


def _flat(found: Any) -> Any:
    return found.ravel() if found.ndim == 2 and found.shape[1] == 1 else found


def _floats() -> Material:
    made = material_like(X.astype(np.float32))
    assert made is not None
    return made


def _mlflow(estimator: Any, answers: Any) -> Subject:
    import mlflow.sklearn

    estimator = clone(estimator).fit(X, answers)

    kept = Path(tempfile.mkdtemp()) / "saved.joblib"
    joblib.dump(estimator, kept)

    def write(directory: Path) -> None:
        directory.parent.mkdir(parents=True)
        mlflow.sklearn.save_model(joblib.load(kept), str(directory), pip_requirements=["scikit-learn"])

    material = material_like(X)
    assert material is not None
    return Subject(
        "MLflow directories", f"MLflow of {type(estimator).__name__}", write, methods_of(estimator), material
    )
