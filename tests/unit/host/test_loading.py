"""Loading models from files: every format, every reason for a refusal, and the changes to a loaded model."""

from __future__ import annotations

import gzip
import mmap
import pickle
import sys
import threading
import types
import warnings
from pathlib import Path
from typing import Any

import joblib
import joblib.numpy_pickle
import numpy as np
import pandas as pd
import pytest
import sklearn
import sklearn.base
import skops.io
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.utils import Bunch

from serving.domain.signature import Feature
from serving.domain.version import Format
from serving.host import loading
from serving.host.foreign_files import HOW_TO_FIND_MODULES
from serving.host.loading import Trust, library_versions, load_model, write_estimator
from serving.host.model import LoadRefused, one_line
from serving.host.nested_estimators import limit_to_one_thread, walk_nested_estimators
from serving.rows.batch import Batch

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(60, 3))
LABELS = np.arange(60) % 2


@pytest.fixture(scope="module")
def line() -> LogisticRegression:
    return LogisticRegression().fit(ROWS, LABELS)


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    return tmp_path / "blob"


KNOWN, ANY = Trust(), Trust(is_restricted=False)


def refusal(path: Path, kind: Format = Format.JOBLIB, trust: Trust = KNOWN) -> str:
    with pytest.raises(LoadRefused) as caught:
        load_model(str(path), kind, trust)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    assert str(path.parent) not in message
    return message


def halve(rows: Any) -> Any:
    return rows / 2


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_joblib_files_load_under_every_compression(line: Any, blob: Path, compress: Any) -> None:
    joblib.dump(line, blob, compress=compress)
    model = load_model(str(blob), Format.JOBLIB)
    assert (model.name, model.engine) == ("LogisticRegression", "sklearn")
    assert model.answer("predict", Batch(3, ROWS[:3])).list_rows() == line.predict(ROWS[:3]).tolist()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_every_protocol_load(line: Any, blob: Path, protocol: int) -> None:
    blob.write_bytes(pickle.dumps(line, protocol))
    assert load_model(str(blob), Format.PICKLE).name == "LogisticRegression"
    joblib.dump(line, blob)  # many .pkl files were written by joblib
    assert load_model(str(blob), Format.PICKLE).name == "LogisticRegression"
    blob.write_bytes(gzip.compress(pickle.dumps(line, protocol)))
    assert load_model(str(blob), Format.PICKLE).name == "LogisticRegression"


def test_a_written_estimator_can_be_loaded(line: Any, blob: Path) -> None:
    write_estimator(line, str(blob))
    assert load_model(str(blob), Format.JOBLIB).signature.classes == ((0, 1),)
    with blob.open("wb") as file:
        write_estimator(line, file)
    assert load_model(str(blob), Format.JOBLIB).signature.classes == ((0, 1),)


def test_skops_files_load_without_trusting_anything(line: Any, blob: Path) -> None:
    skops.io.dump(line, blob)
    assert (
        load_model(str(blob), Format.SKOPS).answer("predict", Batch(1, ROWS[:1])).list_rows()
        == line.predict(ROWS[:1]).tolist()
    )


def test_skops_forests_load_because_a_host_contains_what_a_forged_tree_can_do(blob: Path) -> None:
    skops.io.dump(RandomForestClassifier(2).fit(ROWS, LABELS), blob)
    assert skops.io.get_untrusted_types(file=blob) == ["sklearn.tree._tree.Tree"]
    assert load_model(str(blob), Format.SKOPS).name == "RandomForestClassifier"


def test_untrusted_skops_types_are_named_with_the_setting(blob: Path) -> None:
    skops.io.dump(make_pipeline(FunctionTransformer(halve), LogisticRegression()).fit(ROWS, LABELS), blob)
    [name] = skops.io.get_untrusted_types(file=blob)
    message = refusal(blob, Format.SKOPS)
    assert f'security.skops_trusted = ["{name}"]' in message
    assert load_model(str(blob), Format.SKOPS, Trust(skops_trusted=(name, "unrelated.Type"))).name == "Pipeline"


def test_skops_loads_a_file_only_where_restricted_reading_refuses_it(line: Any, blob: Path) -> None:
    reasons: list[str | None] = []
    skops.io.dump(line, blob)
    load_model(str(blob), Format.SKOPS, ANY, on_read=reasons.append)
    skops.io.dump(make_pipeline(FunctionTransformer(halve), LogisticRegression()).fit(ROWS, LABELS), blob)
    assert load_model(str(blob), Format.SKOPS, ANY, on_read=reasons.append).name == "Pipeline"
    assert reasons == [None, "it was loaded without restrictions"]


# --- what is refused --------------------------------------------------------------------------------------------------

NOT_ESTIMATORS = {
    "dict": ({"model": 1, "scaler": 2}, "the file holds a dict (keys 'model', 'scaler'), not an estimator: save the"),
    "bunch": (Bunch(predict=np.ravel), "the file holds a dict (keys 'predict'), not an estimator: save the"),
    "list": ([1, 2], "the file holds an object of type list, not an estimator"),
    "array": (np.eye(2), "the file holds an object of type ndarray, not an estimator"),
    "table": (pd.DataFrame({"a": [1]}), "the file holds an object of type DataFrame, not an estimator"),
    "class": (LogisticRegression, "the file holds the class LogisticRegression itself, not a fitted estimator"),
    "unfitted": (LogisticRegression(), "LogisticRegression is not fitted: call fit before saving it"),
    "unfitted pipeline": (make_pipeline(StandardScaler(), LogisticRegression()), "Pipeline is not fitted"),
    "search without refit": (
        GridSearchCV(LogisticRegression(), {"C": [1.0]}, refit=False, cv=2).fit(ROWS, LABELS),
        "GridSearchCV offers none of predict",
    ),
}


@pytest.mark.parametrize("name", NOT_ESTIMATORS)
def test_the_refusal_of_an_object_that_is_no_estimator_names_it(name: str, blob: Path) -> None:
    found, words = NOT_ESTIMATORS[name]
    joblib.dump(found, blob)
    assert words in refusal(blob, trust=ANY)


def test_damaged_files_are_reported_as_damaged(line: Any, blob: Path) -> None:
    joblib.dump(line, blob)
    whole = blob.read_bytes()
    blob.write_bytes(whole[: len(whole) // 2])
    assert "cut short or damaged" in refusal(blob)
    joblib.dump(line, blob, compress=3)
    whole = blob.read_bytes()
    blob.write_bytes(whole[: len(whole) // 2])
    assert "cut short or damaged" in refusal(blob)
    blob.write_bytes(b"\x80\x04 no pickle at all")
    assert "cut short or damaged" in refusal(blob)
    skops.io.dump(line, blob)
    blob.write_bytes(blob.read_bytes()[:-50])
    assert "damaged" in refusal(blob, Format.SKOPS)


def test_a_missing_module_is_named(line: Any, blob: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lightgbm_of_theirs")
    kind = type("Booster", (), {"__module__": module.__name__, "predict": lambda self, X: X})
    vars(module)["Booster"] = kind
    monkeypatch.setitem(sys.modules, module.__name__, module)
    joblib.dump(kind(), blob)
    monkeypatch.delitem(sys.modules, module.__name__)
    missing = f"the file needs the module 'lightgbm_of_theirs', which is not installed here ({HOW_TO_FIND_MODULES})"
    assert refusal(blob, trust=ANY) == missing
    assert refusal(blob, trust=Trust(pickle_trusted=("lightgbm_of_theirs.Booster",))) == missing
    assert 'security.pickle_trusted = ["lightgbm_of_theirs.Booster"]' in refusal(blob)


@pytest.mark.parametrize("trust", [Trust(), ANY])
def test_a_class_of_the_script_that_saved_it_is_explained(blob: Path, trust: Trust) -> None:
    blob.write_bytes(b"\x80\x02c__main__\nMyModel\n.")
    message = refusal(blob, trust=trust)
    assert "of the script that saved it" in message
    assert "MyModel" in message
    assert "put it into a module" in message


class Bomb:
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return explode, (self.error,)


def explode(error: type[BaseException]) -> None:
    raise error("first line\nsecond line in /home/somebody/secret/place.py")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError, "the file cannot be loaded (RuntimeError: first line second line in ...)"),
        (MemoryError, "does not fit into the memory a host may take (candidate.memory_mb)"),
        (RecursionError, "RecursionError"),
        (KeyError, "damaged"),
    ],
)
def test_every_exception_of_a_file_becomes_one_line(blob: Path, error: type[BaseException], words: str) -> None:
    blob.write_bytes(pickle.dumps(Bomb(error)))
    assert words in refusal(blob, trust=ANY)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "FileNotFoundError" in refusal(tmp_path / "nothing")


def test_the_initial_estimator_of_boosting_is_checked_and_uses_one_thread(blob: Path) -> None:
    rows, labels = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 2
    first = KNeighborsClassifier(n_jobs=2).fit(rows, labels)
    model = GradientBoostingClassifier(n_estimators=2, init=first).fit(rows, labels)
    joblib.dump(model, blob)
    loaded = load_model(str(blob), Format.JOBLIB, KNOWN)
    assert loaded.estimator.init_.n_jobs == 1  # type: ignore[attr-defined]
    first.fit(rows, np.arange(30) % 3)
    model.init_ = first
    joblib.dump(model, blob)
    assert "the answers of its first estimator have another shape" in refusal(blob)


def test_vectorizers_that_would_open_files_named_by_requests_are_refused(blob: Path) -> None:
    from sklearn.feature_extraction.text import CountVectorizer

    texts = blob.parent / "text"
    texts.write_text("some words")
    vectorizer = CountVectorizer(input="filename").fit([str(texts)])
    joblib.dump(make_pipeline(vectorizer, KMeans(1)).fit([str(texts)]), blob)
    assert "CountVectorizer(input='filename') would open files named by requests" in refusal(blob)


# --- mapped files -----------------------------------------------------------------------------------------------------

LARGE = RANDOM.normal(size=(4000, 20))
KINDS = np.arange(4000) % 3
LEARNERS: dict[str, Any] = {
    "forest": RandomForestClassifier(4, random_state=0),
    "boosting": HistGradientBoostingClassifier(max_iter=4),
    "neighbours": KNeighborsClassifier(),
    "support vectors": SVC(),
    "line": LogisticRegression(),
    "clusters": KMeans(3, n_init=1, random_state=0),
    "process": GaussianProcessRegressor(),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_mapped_large_files_answer_like_read_ones(name: str, blob: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 400 if name == "process" else 4000
    estimator = LEARNERS[name].fit(LARGE[:rows], KINDS[:rows])
    joblib.dump(estimator, blob)
    before = blob.read_bytes()
    monkeypatch.setattr(loading, "MIN_MAPPED_FILE_BYTES", 1)
    monkeypatch.setattr(loading, "_MIN_MAPPED_ARRAY_BYTES", 1)
    model: Any = load_model(str(blob), Format.JOBLIB)
    for method in model.signature.methods:
        answers = np.asarray(model.answer(method, Batch(50, LARGE[:50])).list_rows())
        with np.errstate(divide="ignore"):  # the logarithm of 0
            np.testing.assert_array_equal(answers, getattr(estimator, method)(LARGE[:50]))
    if name == "neighbours":
        assert isinstance(memoryview(model.estimator._fit_X.base).obj, mmap.mmap)
        model.estimator._fit_X[:] = 0  # some estimators write into their arrays
    assert blob.read_bytes() == before
    assert joblib.numpy_pickle.make_memmap is ORIGINAL


ORIGINAL = joblib.numpy_pickle.make_memmap


@pytest.mark.parametrize("what", ["large", "small", "compressed"])
def test_only_large_uncompressed_files_are_mapped(what: str, blob: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joblib.dump(KNeighborsClassifier(algorithm="brute").fit(LARGE, KINDS), blob, compress=3 * (what == "compressed"))
    limit = blob.stat().st_size + (what == "small")
    monkeypatch.setattr(loading, "MIN_MAPPED_FILE_BYTES", limit)
    model: Any = load_model(str(blob), Format.JOBLIB)
    assert model.estimator._fit_X.flags.writeable
    assert (str(blob) in Path("/proc/self/maps").read_text()) == (what == "large")


def test_a_truncated_large_file_is_reported_as_damaged(blob: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joblib.dump(KNeighborsClassifier(algorithm="brute").fit(LARGE, KINDS), blob)
    blob.write_bytes(blob.read_bytes()[:200_000])
    monkeypatch.setattr(loading, "MIN_MAPPED_FILE_BYTES", 1)
    assert "cut short or damaged" in refusal(blob)
    assert joblib.numpy_pickle.make_memmap is ORIGINAL


def test_arrays_of_another_byte_order_are_converted(blob: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = LogisticRegression().fit(ROWS, LABELS)
    expected = line.predict(ROWS).tolist()
    line.coef_ = line.coef_.astype(">f8")
    joblib.dump(line, blob)
    monkeypatch.setattr(loading, "MIN_MAPPED_FILE_BYTES", 1)
    model: Any = load_model(str(blob), Format.JOBLIB)
    assert model.estimator.coef_.dtype.isnative
    assert model.answer("predict", Batch(60, ROWS)).list_rows() == expected


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Format.JOBLIB, Format.SKOPS])
def test_the_version_that_wrote_the_file_is_known_and_nothing_is_printed(
    blob: Path, line: Any, kind: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = joblib.dump if kind is Format.JOBLIB else skops.io.dump
    write(line, blob)
    assert load_model(str(blob), kind).trained_with == {"scikit-learn": sklearn.__version__}
    with monkeypatch.context() as patch:
        patch.setattr(sklearn.base, "__version__", "1.3.2")
        write(line, blob)
    assert load_model(str(blob), kind).trained_with == {"scikit-learn": "1.3.2"}


def test_the_refusal_of_a_file_of_another_version_names_the_versions(
    blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sklearn.base, "__version__", "0.22")
        joblib.dump([LogisticRegression(), Bomb(ValueError)], blob)
    assert f"it was saved by scikit-learn 0.22, this is {sklearn.__version__}" in refusal(blob, trust=ANY)


class Foreign:
    """Not an estimator of scikit-learn, but it has ``predict``."""

    n_features_in_ = 2

    def predict(self, X: Any) -> Any:
        return np.asarray(X)[:, 0]


def test_an_estimator_without_any_part_of_scikit_learn_names_no_version(blob: Path) -> None:
    joblib.dump(Foreign(), blob)
    model = load_model(str(blob), Format.JOBLIB, Trust(pickle_trusted=(f"{Foreign.__module__}.Foreign",)))
    assert model.trained_with == {}
    assert model.answer("predict", Batch(1, np.array([[3.0, 4.0]]))).list_rows() == [3.0]


def test_library_versions_are_those_of_this_process() -> None:
    versions = library_versions()
    assert versions["scikit-learn"] == sklearn.__version__
    assert {"python", "numpy", "scipy", "joblib", "pandas"} <= versions.keys()


# --- one thread, no output --------------------------------------------------------------------------------------------


def nested() -> Any:
    forest = RandomForestClassifier(2, n_jobs=4, verbose=1)
    columns = ColumnTransformer([("scale", StandardScaler(), [0, 1]), ("keep", "passthrough", [2])], n_jobs=3)
    union = FeatureUnion([("columns", columns), ("scale", StandardScaler())], n_jobs=2)
    voting = VotingClassifier([("forest", forest), ("bag", BaggingClassifier(forest, 40, n_jobs=2))], n_jobs=2)
    return GridSearchCV(make_pipeline(union, voting), {"votingclassifier__voting": ["soft"]}, cv=2, n_jobs=2)


@pytest.fixture(scope="module")
def deep() -> Any:
    with warnings.catch_warnings(action="ignore"), joblib.parallel_config(backend="threading"):
        return nested().fit(ROWS, LABELS)


def test_every_part_computes_in_one_thread_and_prints_nothing(
    deep: Any, blob: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    joblib.dump(deep, blob)
    model: Any = load_model(str(blob), Format.JOBLIB)
    jobs = [vars(part)["n_jobs"] for part in walk_nested_estimators(model.estimator) if "n_jobs" in vars(part)]
    assert len(jobs) > 40  # the forests inside the bag too
    assert set(jobs) == {1}
    assert model.estimator.get_params()["estimator__votingclassifier__bag__estimator__n_jobs"] == 1
    before = threading.active_count()
    model.answer("predict", Batch(2, ROWS[:2]))
    assert threading.active_count() == before
    assert capfd.readouterr() == ("", "")


def test_estimators_that_contain_each_other_are_visited_once() -> None:
    first, second = StandardScaler(), LogisticRegression(n_jobs=5)
    first.friend, second.friends = second, [first, {"again": second}, np.array([first, None], dtype=object)]
    assert len(list(walk_nested_estimators(first))) == 2
    limit_to_one_thread(first)
    assert second.n_jobs == 1


def test_not_every_tree_of_a_large_forest_is_visited() -> None:
    forest = RandomForestClassifier(300, max_depth=1).fit(ROWS, LABELS)
    assert len(list(walk_nested_estimators(forest))) < 50


# --- declared signatures ----------------------------------------------------------------------------------------------


def test_a_declared_signature_is_used_where_it_agrees(line: Any, blob: Path) -> None:
    joblib.dump(line, blob)
    own = load_model(str(blob), Format.JOBLIB).signature
    names = tuple(Feature(name=name, nullable=True) for name in "abc")
    declared = own.model_copy(update={"features": names, "methods": ("predict_proba", "predict")})
    assert load_model(str(blob), Format.JOBLIB, declared=declared).signature is declared


@pytest.mark.parametrize("field", ["outputs", "features", "methods", "classes", "kind", "container"])
def test_a_declared_signature_that_contradicts_the_model_is_not_used(line: Any, blob: Path, field: str) -> None:
    joblib.dump(line, blob)
    own = load_model(str(blob), Format.JOBLIB).signature
    wrong = {
        "outputs": 2,
        "features": own.features[:2],
        "methods": ("predict", "transform"),
        "classes": (("a", "b"),),
        "kind": "regressor",
        "container": "dataframe",
    }[field]
    declared = type(own).model_validate({**own.model_dump(), field: wrong})
    assert load_model(str(blob), Format.JOBLIB, declared=declared).signature == own


def test_a_line_for_a_user_is_short_and_printable_and_shows_no_path() -> None:
    assert one_line("a\tb\n\n c \x1b[31m") == "a b c ?[31m"
    assert one_line("in /usr/lib/python3/x.py: no") == "in ...: no"
    assert one_line("5/3 and 1/2 of it") == "5/3 and 1/2 of it"
    assert len(one_line("word " * 200)) <= 300
