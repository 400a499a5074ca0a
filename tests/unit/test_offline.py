"""Publishing and checking without a server."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import serving
from serving import sandbox
from serving.domain.errors import NotPublished, PublishRefused, ServingError
from serving.domain.manifest import parse_golden, parse_manifest
from serving.domain.report import CandidateReport
from serving.domain.signature import Container, Feature, Signature
from serving.hosting import environment_hosts
from serving.hosting.zygote import Zygote
from serving.offline import check, publish_file, verify
from serving.offline.find_version import find_entry
from serving.offline.instances import to_instances
from serving.offline.keys import KeyRefused, create_key
from serving.settings import Settings, StoreSettings

# the gates' road is tested in offline/test_publish_estimator.py; here they would take a second each
publish = partial(serving.publish, check=False)

ROWS, SPECIES = load_iris(return_X_y=True)
FRAME = pd.DataFrame({"colour": ["red", "blue", None, "red"], "size": [1.0, 2.0, 3.0, np.nan]})
ROOT = Path(__file__).parents[2]
MATERIAL = ROOT / "tests" / "e2e" / "material"
ELSEWHERE = ROOT / "tests" / "unit" / "host" / "written_elsewhere"


class KeptZygote(Zygote):
    """Is not stopped by the workshops that use it one after another: what it imports takes seconds each time."""

    def stop(self) -> None:
        pass


@pytest.fixture(scope="module", autouse=True)
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One zygote for all workshops of this process; commands have their own. It begins when the first one needs it."""
    environment = {**os.environ, "PYTHONPATH": str(MATERIAL)}
    kept = KeptZygote(sandbox.scrub_environment(environment), tmp_path_factory.mktemp("zygote") / "scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment_hosts, "Zygote", lambda *_: kept)
        yield
    Zygote.stop(kept)


@pytest.fixture(scope="module")
def iris() -> LogisticRegression:
    return LogisticRegression(max_iter=500).fit(ROWS, SPECIES)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def settings(store: Path) -> Settings:
    return Settings(store=StoreSettings(path=store))


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def save_file(estimator: Any, name: str = "some.joblib") -> Path:
        joblib.dump(estimator, tmp_path / name)
        return tmp_path / name

    return save_file


def verdicts(report: CandidateReport) -> dict[str, str]:
    return {result.gate: str(result.verdict) for result in report.gates}


def refused_by(report: CandidateReport) -> str | None:
    return report.refusal.gate if report.refusal is not None else None


def visible(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file())


# --- publishing an estimator ------------------------------------------------------------------------------------------


def test_an_estimator_becomes_the_next_version(iris: Any, store: Path) -> None:
    first, second = (publish(iris, "iris", store=store) for _ in range(2))
    assert (first.version, second.version) == ("1", "2")
    assert second.path == store / "iris" / "2"
    assert visible(second.path) == ["manifest.json", "model.joblib"]
    assert joblib.load(second.path / "model.joblib").predict(ROWS).tolist() == iris.predict(ROWS).tolist()


def test_the_manifest_says_what_the_model_is(iris: Any, store: Path) -> None:
    metrics = {"accuracy": np.float64(0.5), "rows": np.int64(3), "note": "fine", "confusion": np.eye(2, dtype=int)}
    published = publish(iris, "iris", version="2026-11", store=str(store), metrics=metrics, breaking=True)
    manifest = parse_manifest((published.path / "manifest.json").read_bytes())
    assert (manifest.model, manifest.version, manifest.breaking) == ("iris", "2026-11", True)
    assert manifest.metrics == {"accuracy": 0.5, "rows": 3, "note": "fine", "confusion": [[1, 0], [0, 1]]}
    assert manifest.signature is not None
    assert manifest.signature.classes == ((0, 1, 2),)
    assert {"python", "scikit-learn", "numpy"} <= manifest.libraries.keys()


def test_golden_rows_are_published_with_the_models_own_answers(iris: Any, store: Path) -> None:
    published = publish(iris, "iris", store=store, golden=ROWS[::50])
    golden = parse_golden((published.path / "golden.json").read_bytes())
    assert golden.instances == ROWS[::50].tolist()
    assert golden.expected["predict"] == [0, 1, 2]
    assert golden.expected["predict_proba"] == pytest.approx(iris.predict_proba(ROWS[::50]))


def test_golden_rows_of_a_table_are_objects_and_what_is_missing_is_null(store: Path) -> None:
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(FRAME, [0, 1, 1, 0])
    published = publish(model, "m", store=store, golden=FRAME, X=FRAME)
    golden = parse_golden((published.path / "golden.json").read_bytes())
    assert golden.instances[2:] == [{"colour": None, "size": 3.0}, {"colour": "red", "size": None}]
    assert golden.expected["predict"] == model.predict(FRAME).tolist()


def test_a_model_that_answers_differently_each_time_is_not_held_to_its_answers(store: Path) -> None:
    model = DummyClassifier(strategy="uniform").fit(ROWS, SPECIES)
    published = publish(model, "dice", store=store, golden=ROWS)
    assert not parse_golden((published.path / "golden.json").read_bytes()).deterministic


@pytest.mark.parametrize(
    ("golden", "line"),
    [
        ([[1, 2, 3]], "row 0"),
        ([[5.1, 3.5, 1.4, float("nan")]], "row 0"),
        ([[5.1, 3.5, "1.4", 0.2]], "row 0"),
        ([], "no rows"),
        (7, "row 0"),
    ],
)
def test_golden_rows_that_cannot_be_answered_are_refused_and_nothing_is_published(
    golden: Any, line: str, iris: Any, store: Path
) -> None:
    with pytest.raises(PublishRefused, match=f"^the golden rows cannot be answered: .*{line}"):
        publish(iris, "iris", store=store, golden=golden)
    assert not store.exists()


def test_what_cannot_be_served_is_not_published(store: Path) -> None:
    with pytest.raises(ServingError, match="LogisticRegression is not fitted"):
        publish(LogisticRegression(), "m", store=store)
    assert not store.exists()


def test_a_version_is_never_overwritten(iris: Any, store: Path) -> None:
    publish(iris, "iris", version="1", store=store)
    with pytest.raises(PublishRefused, match="exists already"):
        publish(iris, "iris", version="v1", store=store)


def test_an_estimator_is_published_signed(iris: Any, store: Path, tmp_path: Path) -> None:
    public = create_key(tmp_path / "key")
    published = publish(iris, "iris", store=store, sign=str(tmp_path / "key"))
    assert verify(published.path, [public], StoreSettings(path=store))[-1].evidence == f"by {public}"
    (tmp_path / "key").chmod(0o644)
    with pytest.warns(UserWarning, match="can be read by others"):
        publish(iris, "iris", store=store, sign=tmp_path / "key")
    with pytest.raises(KeyRefused, match="cannot be read: No such file"):
        publish(iris, "iris", store=store, sign=tmp_path / "gone")
    assert sorted(path.name for path in (store / "iris").iterdir()) == ["1", "2"]


# --- rows as data scientists hold them --------------------------------------------------------------------------------


def signature(*names: str, is_named: bool = False, container: Container = Container.ARRAY) -> Signature:
    features = tuple(Feature(name=name) for name in names)
    return Signature(features=features, methods=("predict",), is_named=is_named, container=container)


ARRAY, TABLE = signature("x0", "x1"), signature("a", "b", is_named=True, container=Container.DATAFRAME)
TEXTS = signature("text", container=Container.TEXTS)


@pytest.mark.parametrize(
    ("rows", "like", "instances"),
    [
        (np.array([[1, 2], [3, 4]]), ARRAY, [[1, 2], [3, 4]]),
        (np.array([[1, np.nan]], dtype=np.float32), ARRAY, [[1.0, None]]),
        (np.array([[True, "x"]], dtype=object), ARRAY, [[True, "x"]]),
        (csr_array([[0.0, 2.0]]), ARRAY, [[0.0, 2.0]]),
        (pd.DataFrame({"p": [1], "q": [2.0]}), ARRAY, [[1, 2.0]]),
        ([(1, np.int64(2)), np.array([3.0, np.nan])], ARRAY, [[1, 2], [3.0, None]]),
        (np.array([[1.0, 2.0]]), TABLE, [{"a": 1.0, "b": 2.0}]),
        ([[1, 2]], TABLE, [{"a": 1, "b": 2}]),
        ([[1, 2, 3]], TABLE, [[1, 2, 3]]),
        ([{"b": np.float64(2), "a": float("nan")}], TABLE, [{"b": 2.0, "a": None}]),
        (pd.DataFrame({"b": pd.array([1, None], "Int64"), "a": ["x", None]}), TABLE,
         [{"b": 1, "a": "x"}, {"b": None, "a": None}]),
        (pd.DataFrame({"a": pd.Categorical(["u", None]), "b": [True, False]}), TABLE,
         [{"a": "u", "b": True}, {"a": None, "b": False}]),
        (pyarrow.table({"b": [1, None], "a": ["x", "y"]}), TABLE, [{"b": 1, "a": "x"}, {"b": None, "a": "y"}]),
        (pyarrow.table({"p": [1], "q": [2.0]}), ARRAY, [[1, 2.0]]),
        (["one", "two"], TEXTS, ["one", "two"]),
        (pd.DataFrame({"a": [pd.Timestamp("2026-11-20")], "b": [1]}), TABLE, [{"a": "2026-11-20T00:00:00", "b": 1}]),
        (pd.Series(["one", "two"]), TEXTS, ["one", "two"]),
        (np.array(["one"]), TEXTS, ["one"]),
    ],
)  # fmt: skip
def test_rows_become_json(rows: Any, like: Signature, instances: list[Any]) -> None:
    found = to_instances(rows, like)
    assert found == instances
    assert json.loads(json.dumps(found, allow_nan=False)) == found


# --- finding one version ----------------------------------------------------------------------------------------------


def test_names_are_those_of_the_place_in_a_store(iris: Any, store: Path) -> None:
    published = publish(iris, "iris", store=store)
    renamed = published.path.rename(store / "iris" / "7")
    root, entry = find_entry(renamed, StoreSettings())
    assert (root, entry.path, entry.model, entry.version) == (store.resolve(), "iris/7", "iris", "7")


def test_names_are_those_of_the_manifest_outside_of_a_store(iris: Any, store: Path, tmp_path: Path) -> None:
    shutil.copytree(publish(iris, "iris", store=store).path, tmp_path / "dist" / "build-4711")
    _, entry = find_entry(tmp_path / "dist" / "build-4711", StoreSettings())
    assert (entry.model, entry.version) == ("iris", "1")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("gone", None, "'PATH' cannot be read: No such file or directory; give a model file or a version directory"),
        ("notes.txt", b"x", "'PATH' is not an artefact: its name must end in one of .joblib, "),
        ("x.bst", b"x", "or be model.json or model.txt, or it must begin as a model does"),
        ("empty/.keep", b"", "'PATH' is empty; give a model file or a version directory"),
        ("half/manifest.json", b"{}", "holds no artefact yet"),
    ],
)
def test_what_is_no_version_is_one_line(name: str, content: bytes | None, line: str, tmp_path: Path) -> None:
    file = tmp_path / name
    path = file if "/" not in name else file.parent
    if content is not None:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    with pytest.raises(NotPublished) as caught:
        find_entry(path, StoreSettings())
    assert line.replace("PATH", str(path)) in str(caught.value)


# --- checking ---------------------------------------------------------------------------------------------------------


def test_a_published_version_passes_every_gate(iris: Any, store: Path, settings: Settings) -> None:
    published = publish(iris, "iris", store=store, golden=ROWS[::50])
    started: list[str] = []
    report = check(published.path, settings, started.append)
    assert report.is_ready, report
    assert set(verdicts(report)) >= {"published", "integrity", "load", "golden", "warm-up"}
    assert verdicts(report)["golden"] == "passed"
    assert set(started) >= {"load", "warm-up"}
    assert visible(store) == ["iris/1/golden.json", "iris/1/manifest.json", "iris/1/model.joblib"]


def test_a_file_that_is_cut_short_is_refused_by_load(iris: Any, save: Callable[..., Path], settings: Settings) -> None:
    path = save(iris)
    path.write_bytes(path.read_bytes()[:-40])
    report = check(path, settings)
    assert report.refusal is not None
    assert report.refusal.gate == "load"


def test_golden_examples_that_are_not_met_are_refused(iris: Any, tmp_path: Path, settings: Settings) -> None:
    version = tmp_path / "iris" / "1"
    version.mkdir(parents=True)
    joblib.dump(iris, version / "model.joblib")
    examples = {"instances": ROWS[:2].tolist(), "expected": {"predict": [0, 2]}}
    (version / "golden.json").write_text(json.dumps(examples))
    report = check(version, settings)
    assert report.refusal is not None
    assert report.refusal.gate == "golden"


def test_nothing_is_unpickled_in_this_process(iris: Any, save: Callable[..., Path], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from serving.offline import check;"
        "from serving.settings import load_settings; settings = load_settings({'store.path': 'store'});"
        "assert check(Path(sys.argv[1]), settings).is_ready;"
        "sys.exit(', '.join({'joblib', 'sklearn', 'skops'} & sys.modules.keys()) or 0)"
    )
    command = [sys.executable, "-c", code, str(save(iris))]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- publishing a file ------------------------------------------------------------------------------------------------


def test_a_file_is_published_with_what_the_host_found_out(
    iris: Any, save: Callable[..., Path], settings: Settings, tmp_path: Path
) -> None:
    golden = tmp_path / "examples.json"
    golden.write_text(json.dumps({"instances": ROWS[:2].tolist(), "expected": {"predict": [0, 0]}}))
    path = save(iris, "trained today.joblib")
    published = publish_file(path, "iris", settings, golden=golden, metrics={"accuracy": 0.9})
    report = published.report
    assert report is not None
    assert report.is_ready
    assert published.version == "1"
    assert visible(published.path) == ["golden.json", "manifest.json", "model.joblib"]
    assert (published.path / "model.joblib").read_bytes() == path.read_bytes()
    manifest = parse_manifest((published.path / "manifest.json").read_bytes())
    assert manifest.signature == report.signature
    assert manifest.libraries == report.libraries
    assert manifest.metrics == {"accuracy": 0.9}


def test_a_published_file_says_what_it_was_trained_with_not_what_checked_it(settings: Settings) -> None:
    """The version that the file keeps counts: another XGBoost reads it."""
    published = publish_file(ELSEWHERE / "xgboost_2.1.3.ubj", "trees", settings)
    libraries = parse_manifest((published.path / "manifest.json").read_bytes()).libraries
    assert libraries["xgboost"] == "2.1.3"
    assert libraries["numpy"] == np.__version__


def test_a_file_whose_name_does_not_tell_is_published_under_one_that_does(
    iris: Any, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "final.sav"
    path.write_bytes(pickle.dumps(iris))
    published = publish_file(path, "iris", settings)
    assert visible(published.path) == ["manifest.json", "model.pkl"]
    assert (published.path / "model.pkl").read_bytes() == path.read_bytes()


def test_a_file_is_compared_with_the_newest_version_unless_it_is_breaking(
    iris: Any, save: Callable[..., Path], settings: Settings, store: Path
) -> None:
    publish(iris, "m", store=store)
    other = save(LinearRegression().fit(ROWS[:, :2], SPECIES))
    with pytest.raises(PublishRefused, match=r"^refused by contract: not compatible") as caught:
        publish_file(other, "m", settings)
    assert caught.value.report is not None
    assert (refused_by(caught.value.report), caught.value.argument) == ("contract", "breaking")
    assert visible(store) == ["m/1/manifest.json", "m/1/model.joblib"]
    published = publish_file(other, "m", settings, breaking=True)
    assert parse_manifest((published.path / "manifest.json").read_bytes()).breaking


def test_a_name_that_is_taken_is_refused_before_anything_is_evaluated(iris: Any, settings: Settings) -> None:
    publish(iris, "iris", version="1", store=settings.store.path)
    with pytest.raises(PublishRefused, match="exists already"):
        publish_file(Path("no-such-file.joblib"), "iris", settings, version="01")
    with pytest.raises(PublishRefused, match="upper and lower case"):
        publish_file(Path("no-such-file.joblib"), "IRIS", settings)


def test_golden_examples_are_read_before_anything_is_evaluated(settings: Settings, tmp_path: Path) -> None:
    golden = tmp_path / "golden.json"
    with pytest.raises(PublishRefused, match=r"the golden examples cannot be read: .*: No such file or directory"):
        publish_file(Path("no-such-file.joblib"), "iris", settings, golden=golden)
    golden.write_text('{"instances": []}')
    with pytest.raises(PublishRefused, match=r"golden.json' holds no golden examples: golden.json: instances: "):
        publish_file(Path("no-such-file.joblib"), "iris", settings, golden=golden)
