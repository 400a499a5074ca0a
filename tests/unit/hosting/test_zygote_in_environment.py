"""Hosts in a real second environment: other libraries, no package of the server, the same code and the same rules."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
import pytest
from sklearn.preprocessing import StandardScaler

from serving import sandbox
from serving.domain.errors import HostFailed
from serving.domain.report import Evaluation, GateResult
from serving.domain.signature import Container
from serving.hosting import zygote_process
from serving.hosting.zygote import Zygote
from serving.rows.batch import Batch
from serving.wire.evaluation import CompileRequest
from tests.e2e.harness import until
from tests.unit.hosting.hosted import ask, evaluate, fit_models, run_zygote

FIT = """
import sys, warnings
from pathlib import Path
import joblib
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

place = Path(sys.argv[1])
rng = np.random.default_rng(5)
X = rng.normal(size=(120, 3))
y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
frame = pd.DataFrame({"size": X[:, 0], "colour": np.where(X[:, 1] > 0, "red", "blue")})
texts = ["red apple" if flag else "blue plum" for flag in y]
columns = make_column_transformer((StandardScaler(), ["size"]), (OneHotEncoder(), ["colour"]))
models = {
    "forest": (RandomForestClassifier(15, random_state=0), X),
    "pipeline": (make_pipeline(StandardScaler(), LogisticRegression()), X),
    "boosting": (GradientBoostingClassifier(n_estimators=15, random_state=0), X),
    "histogram": (HistGradientBoostingRegressor(max_iter=15), X),
    "table": (make_pipeline(columns, LogisticRegression()), frame),
    "texts": (make_pipeline(TfidfVectorizer(), LogisticRegression()), texts),
}
for name, (model, rows) in models.items():
    model.fit(rows, y)
    joblib.dump(model, place / f"{name}.joblib")
    method = "predict_proba" if hasattr(model, "predict_proba") else "predict"
    np.save(place / f"{name}.npy", getattr(model, method)(rows))
np.save(place / "rows.npy", X)
"""


@pytest.fixture(scope="module")
def material(other_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that the other environment fitted and saved, and its own answers to their rows."""
    return fit_models(other_python, FIT, tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def zygote(other_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with run_zygote(other_python, tmp_path_factory.mktemp("zygote") / "scratch") as running:
        yield running


def get_gate(evaluation: Evaluation, gate: str) -> GateResult:
    return next(result for result in evaluation.report.gates if result.gate == gate)


@pytest.mark.parametrize("name", ["forest", "pipeline", "boosting", "histogram"])
def test_a_model_of_that_environment_answers_bit_for_bit(zygote: Zygote, material: Path, name: str) -> None:
    host = zygote.spawn()
    evaluation = evaluate(host, material / f"{name}.joblib")
    report = evaluation.report
    assert report.is_ready, report.refusal
    assert report.libraries["scikit-learn"] == "1.5.2"
    assert report.libraries["numpy"] == "1.26.4"
    assert report.sandbox.is_whole, report.sandbox
    rows, expected = np.load(material / "rows.npy"), np.load(material / f"{name}.npy")
    answer = ask(host, "predict" if expected.ndim == 1 else "predict_proba", Batch(len(rows), matrix=rows))
    assert isinstance(answer, np.ndarray)
    assert answer.tobytes() == expected.tobytes()
    host.close()


def test_named_columns_go_into_a_table_there(zygote: Zygote, material: Path) -> None:
    host = zygote.spawn()
    report = evaluate(host, material / "table.joblib").report
    assert report.is_ready, report.refusal
    assert report.signature is not None
    assert report.signature.container is Container.DATAFRAME
    assert [feature.name for feature in report.signature.features] == ["size", "colour"]
    rows, expected = np.load(material / "rows.npy"), np.load(material / "table.npy")
    colours = np.where(rows[:, 1] > 0, "red", "blue").tolist()
    answer = ask(host, "predict_proba", Batch(len(rows), columns=(rows[:, 0].copy(), colours)))
    assert isinstance(answer, np.ndarray)
    assert answer.tobytes() == expected.tobytes()
    host.close()


def test_texts_are_answered_there(zygote: Zygote, material: Path) -> None:
    host = zygote.spawn()
    report = evaluate(host, material / "texts.joblib").report
    assert report.is_ready, report.refusal
    answer = ask(host, "predict", Batch(2, columns=(["red apple", "blue plum"],)))
    assert np.asarray(answer).tolist() == [1, 0]
    host.close()


def test_without_compilers_the_model_stays_hosted_and_the_gate_says_so(zygote: Zygote, material: Path) -> None:
    host = zygote.spawn()
    evaluation = evaluate(host, material / "forest.joblib", compile=CompileRequest(mode="auto"))
    assert "this environment lacks onnx, skl2onnx, onnxruntime" in get_gate(evaluation, "compile").evidence
    assert not evaluation.report.is_compiled
    assert psutil.Process(host.pid).children() == [], "no process to compile in was forked"
    host.close()


def test_a_hostile_pickle_is_refused_there(zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zygote_process, "EXIT_SECONDS", 60.0)  # the zygote has its time to say how the host ended
    seen = tmp_path / "seen"

    class Hostile:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {seen}",)

    path = tmp_path / "hostile.joblib"
    path.write_bytes(pickle.dumps(Hostile()))
    host = zygote.spawn()
    report = evaluate(host, path).report
    assert report.refusal is not None
    assert report.refusal.gate == "load"
    assert "posix.system, which no model needs and an attack would" in report.refusal.evidence
    assert not seen.exists()
    assert host.exited.result(20) is not None


READ = """
import os
from pathlib import Path

class Reader:
    def __init__(self, *paths):
        self.paths = paths
        self.n_features_in_ = 1

    def predict(self, rows):
        return [[self._try(path) for path in self.paths] for _ in rows]

    def _try(self, path):
        try:
            if path.endswith("?"):
                Path(path[:-1]).write_text("")
            else:
                Path(path).read_bytes()[:1] if Path(path).is_file() else os.listdir(path)
            return 1.0
        except OSError:
            return 0.0
"""


class Maker:
    """Is unpickled as an object of the class `Reader` in `source`, made with these paths."""

    def __init__(self, source: str, paths: list[str]) -> None:
        self.source, self.paths = source, paths

    def __reduce__(self) -> Any:
        return eval, (f"(names := {{}}, exec({self.source!r}, names), names['Reader'](*{self.paths!r}))[2]",)


def test_the_sandbox_there_reads_that_environment_and_nothing_else(
    zygote: Zygote, other_python: Path, tmp_path: Path
) -> None:
    """Trusted code in a file looks around: libraries can be read, nothing can be written, the server's files not."""
    site = next((other_python.parent.parent / "lib").glob("python*/site-packages"))
    package = Path(sandbox.__file__).parent.parent
    can, cannot = [str(site), str(package / "host" / "child.py")], [
        *(str(site / "made?"), str(package / "made?"), str(tmp_path / "model.joblib?")),
        *(str(package.parent), str(package.parent / "pyproject.toml"), str(Path(__file__).parent)),
        *("/root", str(Path(np.__file__).parent / "__init__.py")),
    ]  # fmt: skip
    path = tmp_path / "model.joblib"
    path.write_bytes(pickle.dumps(Maker(READ, [*can, *cannot])))
    host = zygote.spawn()
    report = evaluate(host, path, trust="any").report
    assert report.is_ready, report.refusal
    answer = ask(host, "predict", Batch(1, matrix=np.zeros((1, 1))))
    assert np.asarray(answer).ravel().tolist() == [1.0] * len(can) + [0.0] * len(cannot)
    host.close()


def test_no_host_there_imports_a_package_of_the_server(zygote: Zygote) -> None:
    """The zygote has the package `serving` and the libraries of its own environment; its files say which."""
    host = zygote.spawn()
    parent = psutil.Process(host.pid).parent()
    assert parent is not None
    mapped = {Path(each.path) for each in parent.memory_maps() if each.path.endswith(".so")}
    own = Path(np.__file__).parent.parent
    assert not [path for path in mapped if path.is_relative_to(own)]
    assert parent.num_threads() == 1
    host.close()


def test_an_interpreter_that_is_none_is_said(tmp_path: Path) -> None:
    zygote = Zygote(sandbox.scrub_environment(os.environ), tmp_path / "scratch", str(tmp_path / "python"))
    with pytest.raises(HostFailed, match="the zygote cannot be started"):
        zygote.start()
    zygote.stop()


def test_a_killed_zygote_there_is_replaced(zygote: Zygote, material: Path) -> None:
    first = zygote.spawn()
    parent = psutil.Process(first.pid).parent()
    assert parent is not None
    parent.kill()
    until(first.exited.done, "the end of the host of a killed zygote")
    second = zygote.spawn()
    assert evaluate(second, material / "pipeline.joblib").report.is_ready
    first.close()
    second.close()


def test_names_of_numpy_2_are_found_in_numpy_1(zygote: Zygote, tmp_path: Path) -> None:
    """A file that was written here names ``numpy._core``, and the environment has ``numpy.core``."""
    rows = np.random.default_rng(0).normal(size=(30, 2))
    scaler = StandardScaler().fit(rows)
    path = tmp_path / "scaler.joblib"
    joblib.dump(scaler, path)
    assert b"numpy._core" in path.read_bytes()
    host = zygote.spawn()
    report = evaluate(host, path, environment="warn").report
    assert report.is_ready, report.refusal
    answer = ask(host, "transform", Batch(len(rows), matrix=rows))
    assert isinstance(answer, np.ndarray)
    assert answer.tobytes() == scaler.transform(rows).tobytes()
    host.close()
