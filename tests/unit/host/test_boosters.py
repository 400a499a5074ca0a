"""XGBoost and LightGBM: estimators answer like estimators, boosters like ``Booster.predict``, in one thread."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import serving
from serving.compiling.compile_model import why_not_compilable
from serving.domain.errors import InvalidInput
from serving.domain.report import Verdict
from serving.domain.signature import Container, Dtype, ModelKind
from serving.domain.version import Format
from serving.host import boosters
from serving.host.loading import library_versions, load_model
from serving.host.model import LoadedModel, LoadRefused
from serving.host.signature_of_estimator import examine_estimator
from serving.rows.batch import Batch
from serving.rows.parsing import rows_to_batch
from tests.unit.host import booster_cases
from tests.unit.host.candidates import MakeCandidate
from tests.unit.host.gates.conftest import candidate  # noqa: F401  (a fixture)

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(120, 3))
ROWS[::7, 1] = np.nan
TABLE = pd.DataFrame(ROWS, columns=["age", "income", "height"])
TWO = (RANDOM.random(120) + (ROWS[:, 0] > 0) > 1).astype(int)
THREE = np.arange(120) % 3
NUMBERS = np.nan_to_num(ROWS[:, 0] * 2 + ROWS[:, 1])
QUERIES = np.arange(120) // 10

FEW = {"n_estimators": 4, "max_depth": 3}
QUIET = {**FEW, "verbose": -1, "min_child_samples": 5, "n_jobs": 1}

FITTED: dict[str, Any] = {
    "xgboost two classes": lambda X: xgboost.XGBClassifier(**FEW).fit(X, TWO),
    "xgboost three classes": lambda X: xgboost.XGBClassifier(**FEW).fit(X, THREE),
    "xgboost numbers": lambda X: xgboost.XGBRegressor(**FEW).fit(X, NUMBERS),
    "xgboost two outputs": lambda X: xgboost.XGBRegressor(**FEW).fit(X, np.c_[NUMBERS, -NUMBERS]),
    "xgboost counts": lambda X: xgboost.XGBRegressor(objective="count:poisson", **FEW).fit(X, THREE),
    "xgboost forest": lambda X: xgboost.XGBRFClassifier(**FEW).fit(X, TWO),
    "xgboost ranks": lambda X: xgboost.XGBRanker(**FEW).fit(X, THREE, qid=QUERIES),
    "xgboost linear": lambda X: xgboost.XGBRegressor(booster="gblinear", n_estimators=4).fit(X, NUMBERS),
    "xgboost stopped": lambda X: xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=2).fit(
        X[:80], RANDOM.integers(0, 2, 80), eval_set=[(X[80:], TWO[80:])], verbose=False
    ),
    "lightgbm two classes": lambda X: lightgbm.LGBMClassifier(**QUIET).fit(X, TWO),
    "lightgbm three classes": lambda X: lightgbm.LGBMClassifier(**QUIET).fit(X, THREE),
    "lightgbm one against all": lambda X: lightgbm.LGBMClassifier(objective="multiclassova", **QUIET).fit(X, THREE),
    "lightgbm numbers": lambda X: lightgbm.LGBMRegressor(**QUIET).fit(X, NUMBERS),
    "lightgbm ranks": lambda X: lightgbm.LGBMRanker(**QUIET).fit(X, THREE, group=[10] * 12),
    "lightgbm stopped": lambda X: lightgbm.LGBMClassifier(**{**QUIET, "n_estimators": 60}).fit(
        X[:80],
        RANDOM.integers(0, 2, 80),
        eval_set=[(X[80:], TWO[80:])],
        callbacks=[lightgbm.early_stopping(2, verbose=False)],
    ),
}


# cases in which the estimator and the booster of one model answer differently, or its saved forms might
COMPARED = [
    "XGBClassifier stopped",
    "XGBClassifier multi:softmax",
    "XGBRegressor missing -999",
    "xgboost quantiles [0.1, 0.5, 0.9]",
    "xgboost outputs at once",
    "xgboost gblinear two classes",
    "xgboost slice",
    "xgboost binary:hinge",
    "lightgbm binary stopped",
    "LGBMClassifier three stopped",
    "LGBMClassifier multiclass words",
    "lightgbm rf three",
    "lightgbm dart",
    "lightgbm cross_entropy_lambda",
    "LGBMRegressor linear",
    "LGBMRegressor own objective",
]


def save_model(estimator: Any, path: Path, suffix: str) -> Format:
    """Save as users do: an XGBoost estimator is saved with the data that marks it as an estimator."""
    if suffix == ".joblib":
        joblib.dump(estimator, path)
        return Format.JOBLIB
    if boosters.library_of(estimator) == "lightgbm":
        estimator.booster_.save_model(path)
        return Format.LIGHTGBM
    estimator.save_model(path.with_suffix(suffix))
    path.write_bytes(path.with_suffix(suffix).read_bytes())
    return Format.XGBOOST


@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated", "ignore:.*gblinear")
@pytest.mark.parametrize("container", [Container.ARRAY, Container.DATAFRAME])
@pytest.mark.parametrize("suffix", [".joblib", ".ubj", ".json"])
@pytest.mark.parametrize("name", FITTED)
def test_every_kind_answers_as_its_library_does(tmp_path: Path, name: str, suffix: str, container: Container) -> None:
    data: Any = TABLE if container is Container.DATAFRAME else ROWS
    estimator = FITTED[name](data)
    model = load_model(str(tmp_path / "blob"), save_model(estimator, tmp_path / "blob", suffix))
    signature = model.signature
    assert model.engine == name.split(maxsplit=1)[0]
    assert signature.container is container
    assert len(signature.features) == 3
    if container is Container.DATAFRAME:
        assert [feature.name for feature in signature.features] == list(TABLE)
    assert {feature.dtype for feature in signature.features} == {Dtype.NUMBER}
    assert all(feature.nullable for feature in signature.features)
    if name.startswith("lightgbm") and suffix != ".joblib":
        assert_answers_like_booster(model, estimator.booster_.predict(data))
        return
    if hasattr(estimator, "classes_"):
        assert signature.kind is ModelKind.CLASSIFIER
        assert signature.classes == (tuple(estimator.classes_.tolist()),)
    for method in signature.methods:
        answers = np.asarray(model.answer(method, Batch(120, ROWS)).list_rows())
        np.testing.assert_array_equal(answers, getattr(estimator, method)(data))
    assert ("predict_proba" in signature.methods) == hasattr(estimator, "predict_proba")


def assert_answers_like_booster(model: LoadedModel, predicted: Any) -> None:
    """``predict`` gives the numbers of the booster; if these are shares, ``predict_proba`` gives the same numbers."""
    given = np.asarray(model.answer("predict", Batch(120, ROWS)).tensors[0])
    np.testing.assert_array_equal(given, predicted)
    assert (model.signature.kind is ModelKind.CLASSIFIER, model.signature.classes) == (False, None)
    if "predict_proba" in model.signature.methods:
        shares = np.asarray(model.answer("predict_proba", Batch(120, ROWS)).tensors[0])
        np.testing.assert_array_equal(shares if predicted.ndim == 2 else shares[:, 1], predicted)


def test_text_labels_are_answered_as_text(tmp_path: Path) -> None:
    words = np.array(["no", "yes"])[TWO]
    joblib.dump(lightgbm.LGBMClassifier(**QUIET).fit(TABLE, words), tmp_path / "blob")
    model = load_model(str(tmp_path / "blob"), Format.JOBLIB)
    assert model.signature.classes == (("no", "yes"),)
    assert set(model.answer("predict", Batch(120, ROWS)).list_rows()) == {"no", "yes"}


@pytest.mark.parametrize(
    "last", [xgboost.XGBClassifier(n_jobs=3, **FEW), lightgbm.LGBMClassifier(**{**QUIET, "n_jobs": 3})]
)
def test_the_engine_of_a_pipeline_that_ends_in_a_booster_is_scikit_learn(tmp_path: Path, last: Any) -> None:
    table = TABLE.assign(city=np.array(["Lima", "Oslo", "Rome"])[THREE])
    columns = [("city", OneHotEncoder(sparse_output=False), ["city"]), ("rest", StandardScaler(), list(TABLE))]
    pipeline = make_pipeline(ColumnTransformer(columns), last).fit(table, TWO)
    joblib.dump(pipeline, tmp_path / "blob")
    model: Any = load_model(str(tmp_path / "blob"), Format.JOBLIB)
    assert (model.engine, model.estimator[-1].n_jobs) == ("sklearn", 1)
    features = {feature.name: feature for feature in model.signature.features}
    assert (features["city"].dtype, features["city"].nullable) == (Dtype.STRING, False)
    assert (features["age"].dtype, features["age"].nullable) == (Dtype.NUMBER, True)
    batch = Batch(120, columns=(*(ROWS[:, i] for i in range(3)), table["city"].tolist()))
    answers = model.answer("predict_proba", batch).list_rows()
    np.testing.assert_array_equal(answers, pipeline.predict_proba(table))


def test_objectives_that_give_only_labels_also_give_probabilities(tmp_path: Path) -> None:
    data = xgboost.DMatrix(ROWS, THREE)
    booster = xgboost.train({"objective": "multi:softmax", "num_class": 3, "max_depth": 3}, data, 4)
    booster.save_model(tmp_path / "m.ubj")
    model = load_model(str(tmp_path / "m.ubj"), Format.XGBOOST)
    assert model.answer("predict", Batch(120, ROWS)).list_rows() == booster.predict(data).tolist()
    shares = np.asarray(model.answer("predict_proba", Batch(120, ROWS)).list_rows())
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    assert (shares.argmax(axis=1) == booster.predict(data)).all()


@pytest.mark.parametrize("name", ["xgboost stopped", "xgboost stopped dart", "xgboost multi:softprob stopped"])
def test_a_booster_of_xgboost_answers_with_all_its_rounds(tmp_path: Path, name: str) -> None:
    booster = booster_cases.list_cases()[name]()
    assert booster.best_iteration < booster.num_boosted_rounds() - 1
    forms = list(booster_cases.save_forms(name, booster, tmp_path))
    assert {form.path.suffix for form in forms} == {".joblib", ".ubj", ".json"}
    for form in forms:
        outcome = booster_cases.compare_with_library(form)
        assert (outcome.differences, outcome.compared > 500) == ((), True)


@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated")
@pytest.mark.parametrize("name", COMPARED)
def test_every_saved_form_of_a_model_answers_like_its_library(tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings(action="ignore"):
        fitted = booster_cases.list_cases()[name]()
    for form in booster_cases.save_forms(name, fitted, tmp_path):
        outcome = booster_cases.compare_with_library(form)
        assert (outcome.differences, outcome.compared > 500) == ((), True)


def test_rows_that_the_library_refuses_are_refused(tmp_path: Path) -> None:
    xgboost.train({}, xgboost.DMatrix(ROWS, NUMBERS), 2).save_model(tmp_path / "m.ubj")
    model = load_model(str(tmp_path / "m.ubj"), Format.XGBOOST)
    with pytest.raises(
        InvalidInput, match=r"^the model refused the rows: Input data contains `inf` or a value too large"
    ):
        model.answer("predict", Batch(1, np.full((1, 3), 1e39)))


def test_bare_boosters_are_published_unchanged(tmp_path: Path) -> None:
    first = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(ROWS, TWO), 4)
    second = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(ROWS, TWO), 4)
    parameters = dict(second.params)
    for booster in (first, second):
        published = serving.publish(booster, "model", store=tmp_path, golden=ROWS[:5], check=False)
        manifest = json.loads((published.path / "manifest.json").read_text())
        assert manifest["signature"]["methods"][:2] == ["predict", "predict_proba"]
        model = load_model(str(published.path / "model.joblib"), Format.JOBLIB)
        golden = json.loads((published.path / "golden.json").read_text())
        assert model.answer("predict", Batch(5, ROWS[:5])).list_rows() == golden["expected"]["predict"]
    assert second.params == parameters  # publishing did not change the caller's object


def test_boosters_do_not_count_as_own_code_of_users(tmp_path: Path) -> None:
    """They get whole numbers as float64, like all others: otherwise no graph could replace them."""
    fitted = [
        xgboost.XGBRegressor(**FEW).fit(TABLE, NUMBERS),
        lightgbm.LGBMRegressor(**QUIET).fit(TABLE, NUMBERS),
        make_pipeline(FunctionTransformer(np.expm1), LinearRegression()).fit(TABLE.fillna(0), NUMBERS),
        xgboost.train({}, xgboost.DMatrix(TABLE, NUMBERS), 2),
    ]
    for estimator in fitted:
        joblib.dump(estimator, tmp_path / "blob")
        signature = load_model(str(tmp_path / "blob"), Format.JOBLIB).signature
        assert rows_to_batch(signature, [{"age": 1, "income": 2, "height": 3}]).matrix is not None
    own = make_pipeline(FunctionTransformer(count_rows), LinearRegression()).fit(TABLE.fillna(0), NUMBERS)
    assert "gets integers as they are sent" in str(why_not_compilable(examine_estimator(own)))


def count_rows(table: Any) -> Any:
    return np.full((len(table), 1), len(table))


# --- one thread, no files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter", ["n_jobs", "nthread"])
def test_xgboost_computes_in_one_thread(tmp_path: Path, parameter: str) -> None:
    estimator = xgboost.XGBClassifier(**FEW, **{parameter: 3}).fit(ROWS, TWO)
    joblib.dump(estimator, tmp_path / "blob")
    model: Any = load_model(str(tmp_path / "blob"), Format.JOBLIB)
    config = json.loads(model.estimator.get_booster().save_config())
    assert config["learner"]["generic_param"]["nthread"] == "1"
    assert {model.estimator.get_params().get(name, 1) for name in ("n_jobs", "nthread")} <= {1, None}


@pytest.mark.parametrize("parameter", ["n_jobs", "nthread", "num_threads"])
def test_lightgbm_computes_in_one_thread(tmp_path: Path, parameter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    joblib.dump(lightgbm.LGBMClassifier(**{**QUIET, parameter: 3}).fit(ROWS, TWO), tmp_path / "blob")
    model: Any = load_model(str(tmp_path / "blob"), Format.JOBLIB)
    asked: list[Any] = []
    predict = lightgbm.Booster.predict

    def record_prediction(self: Any, data: Any, **options: Any) -> Any:
        asked.append({value for name, value in options.items() if "thread" in name or name == "n_jobs"})
        return predict(self, data, **options)

    monkeypatch.setattr(lightgbm.Booster, "predict", record_prediction)
    model.answer("predict", Batch(1, ROWS[:1]))
    assert asked == [{1}]


def test_files_named_in_a_lightgbm_model_are_never_opened(tmp_path: Path) -> None:
    """Opening the FIFO would block for ever."""
    lightgbm.LGBMRegressor(**QUIET).fit(ROWS, NUMBERS).booster_.save_model(tmp_path / "m.txt")
    text = (tmp_path / "m.txt").read_text()
    os.mkfifo(tmp_path / "fifo")
    for name in ("forcedsplits_filename", "forcedbins_filename", "machine_list_filename", "parser_config_file"):
        assert f"[{name}: ]" in text
        text = text.replace(f"[{name}: ]", f"[{name}: {tmp_path / 'fifo'}]")
    (tmp_path / "m.txt").write_text(text)
    model: Any = load_model(str(tmp_path / "m.txt"), Format.LIGHTGBM)
    model.answer("predict", Batch(3, ROWS[:3]))
    assert "fifo" not in str(model.estimator.booster_.params)


def test_made_up_rows_are_in_the_range_of_the_splits(tmp_path: Path) -> None:
    far = np.nan_to_num(ROWS) + 1000
    for estimator in (xgboost.XGBRegressor(**FEW).fit(far, NUMBERS), lightgbm.LGBMRegressor(**QUIET).fit(far, NUMBERS)):
        joblib.dump(estimator, tmp_path / "blob")
        batch = load_model(str(tmp_path / "blob"), Format.JOBLIB).make_rows(5)
        assert batch.matrix is not None
        assert (np.abs(batch.matrix[:, 0] - 1000) < 200).all()


# --- versions and refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ubj", ".json"])
def test_the_version_in_an_xgboost_file_is_reported(tmp_path: Path, suffix: str) -> None:
    estimator = xgboost.XGBRegressor(**FEW).fit(ROWS, NUMBERS)
    kind = save_model(estimator, tmp_path / "blob", suffix)
    assert load_model(str(tmp_path / "blob"), kind).trained_with == {"xgboost": xgboost.__version__}
    assert library_versions()["xgboost"] == xgboost.__version__
    assert library_versions()["lightgbm"] == lightgbm.__version__


def test_a_file_for_a_newer_xgboost_is_refused_with_that_reason(tmp_path: Path) -> None:
    model = json.loads(bytes(xgboost.XGBRegressor(**FEW).fit(ROWS, NUMBERS).get_booster().save_raw("json")))
    model["learner"]["objective"] = {"name": "reg:of_tomorrow"}
    for version, message in (
        ([99, 1, 0], "was saved by XGBoost 99.1.0, and the one here, .*, cannot read it .*: install a newer one"),
        ([1, 7, 0], "is no XGBoost model, or it is cut short or damaged .*of_tomorrow"),
    ):
        (tmp_path / "blob").write_text(json.dumps(model | {"version": version}))
        with pytest.raises(LoadRefused, match=message):
            load_model(str(tmp_path / "blob"), Format.XGBOOST)


@pytest.mark.parametrize(("library", "kind"), [("xgboost", Format.XGBOOST), ("lightgbm", Format.LIGHTGBM)])
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, library: str, kind: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = {"xgboost": xgboost.XGBRegressor(**FEW), "lightgbm": lightgbm.LGBMRegressor(**QUIET)}
    joblib.dump(fit[library].fit(ROWS, NUMBERS), tmp_path / "pickled")
    (tmp_path / "native").write_bytes(b"tree\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [MissingPackageFinder(library), *sys.meta_path])
    expected = f"the file needs {library}, which is not installed here: pip install 'serving[{library}]'"
    for name, format_ in (("pickled", Format.JOBLIB), ("native", kind)):
        with pytest.raises(LoadRefused) as caught:
            load_model(str(tmp_path / name), format_)
        assert str(caught.value) == expected


class MissingPackageFinder:
    """An import finder that reports a package as not installed."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


@pytest.mark.parametrize("suffix", [".ubj", ".json", ".txt"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.9999])
def test_files_that_are_cut_short_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    estimator: Any = lightgbm.LGBMRegressor(**QUIET) if suffix == ".txt" else xgboost.XGBRegressor(**FEW)
    kind = save_model(estimator.fit(ROWS, NUMBERS), tmp_path / "blob", suffix)
    whole = (tmp_path / "blob").read_bytes().rstrip()
    (tmp_path / "blob").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(LoadRefused, match="cut short or damaged") as caught:
        load_model(str(tmp_path / "blob"), kind)
    assert "\n" not in str(caught.value)
    assert "Stack trace" not in str(caught.value)


@pytest.mark.parametrize("table", [TABLE, TABLE.assign(income=pd.Categorical(np.array(["a]", "\n", "\u00e9"])[THREE]))])
def test_a_text_file_may_lack_its_last_line_break(tmp_path: Path, table: pd.DataFrame) -> None:
    lightgbm.LGBMRegressor(**QUIET).fit(table, NUMBERS).booster_.save_model(tmp_path / "blob")
    whole = (tmp_path / "blob").read_bytes()
    assert whole.rpartition(b"\n\n")[2].startswith(b"pandas_categorical:")
    for content in (whole.rstrip(b"\n"), whole.rpartition(b"\n\n")[0]):
        (tmp_path / "blob").write_bytes(content)
        load_model(str(tmp_path / "blob"), Format.LIGHTGBM).make_rows(3)
    for content in (whole.rstrip(b"\n")[:-1], whole.rpartition(b"\n\n")[0][:-1]):
        (tmp_path / "blob").write_bytes(content)
        with pytest.raises(LoadRefused, match="cut short or damaged"):
            load_model(str(tmp_path / "blob"), Format.LIGHTGBM)


def test_a_text_file_may_have_windows_line_breaks(tmp_path: Path) -> None:
    lightgbm.LGBMRegressor(**QUIET).fit(ROWS, NUMBERS).booster_.save_model(tmp_path / "unix")
    whole = (tmp_path / "unix").read_bytes()
    answers = []
    for content in (whole, whole.replace(b"\n", b"\r\n"), whole.rstrip(b"\n").replace(b"\n", b"\r\n")):
        (tmp_path / "blob").write_bytes(content)
        model = load_model(str(tmp_path / "blob"), Format.LIGHTGBM)
        answers.append(model.answer("predict", model.make_rows(9)).list_rows())
    assert answers[0] == answers[1] == answers[2]
    (tmp_path / "blob").write_bytes(whole.replace(b"\n", b"\r\n")[:-20])
    with pytest.raises(LoadRefused, match="cut short or damaged"):
        load_model(str(tmp_path / "blob"), Format.LIGHTGBM)


@pytest.mark.parametrize("line_break", [b"\n", b"\r\n"])
def test_a_text_file_of_lightgbm_3_is_read_with_its_categories(tmp_path: Path, line_break: bytes) -> None:
    """LightGBM 3.3.5 wrote the file and gave these answers; a category is a position in the list of the file."""
    content = (Path(__file__).parent / "lightgbm_3_3.txt").read_bytes()
    (tmp_path / "blob").write_bytes(content.replace(b"\n", line_break))
    booster, _ = boosters.load_native_file(str(tmp_path / "blob"), Format.LIGHTGBM)
    rows = np.array([[0.5, 3.0], [2.0, 1.0], [-1.0, 2.0], [0.0, np.nan]])
    expected = [0.4295284139555563, 0.6182801228826056, 0.6182801228826055, 0.4295284139555563]
    assert booster.library_booster.predict(rows).tolist() == expected
    assert booster.library_booster.pandas_categorical == [["blue", "green", "gr\u00fcn", "red", "x y"]]


def test_formats_are_recognised_by_their_first_bytes(
    candidate: MakeCandidate,  # noqa: F811
    tmp_path: Path,
) -> None:
    trees = xgboost.XGBRegressor(**FEW).fit(ROWS, NUMBERS)
    more = lightgbm.LGBMRegressor(**QUIET).fit(ROWS, NUMBERS)
    files: dict[str, tuple[Format, bytes]] = {}
    for name, estimator, suffix in (("m.ubj", trees, ".ubj"), ("model.json", trees, ".json"), ("model.txt", more, "")):
        kind = save_model(estimator, tmp_path / "blob", suffix)
        files[name] = kind, (tmp_path / "blob").read_bytes()
    for name, (kind, raw) in files.items():
        outcome = candidate(raw, name, kind).evaluate()
        assert outcome["format"].verdict is Verdict.PASSED
        assert outcome.report.refusal is None
        assert outcome.report.engine == kind.value

    def get_refusal(raw: bytes, kind: Format) -> str:
        return candidate(raw, "model", kind).evaluate()["format"].evidence

    assert "should be a joblib file but is an XGBoost model: name it .ubj" in get_refusal(
        files["m.ubj"][1], Format.JOBLIB
    )
    assert "is a LightGBM model: name it model.txt" in get_refusal(files["model.txt"][1], Format.XGBOOST)
    assert "is a LightGBM model" in get_refusal(files["model.txt"][1], Format.PICKLE)
    assert 'is text, beginning with \'{"class_name"' in get_refusal(b'{"class_name": "Model"}', Format.XGBOOST)
    assert "is text, beginning with 'Notes" in get_refusal(b"Notes on training", Format.LIGHTGBM)
    assert "a UBJSON document" in get_refusal(b"{U\x01aU\x01}", Format.XGBOOST)
