"""Hosts in the oldest environment there may be: Python 3.9, scikit-learn 1.0.2, NumPy 1.22, joblib 1.1, no pandas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serving import sandbox
from serving.domain.recent_rows import AnsweredRows, RecentRows
from serving.domain.report import GateResult
from serving.domain.signature import Container
from serving.hosting.zygote import Zygote
from serving.rows.batch import Batch
from serving.wire.recent_rows_document import encode_recent_rows
from tests.unit.hosting.hosted import ask, evaluate, fit_models, run_zygote

FIT = """
import sys
from pathlib import Path
import joblib
import numpy as np
from sklearn.cluster import KMeans
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.compose import make_column_transformer

place = Path(sys.argv[1])
rng = np.random.default_rng(5)
X = rng.normal(size=(120, 3))
y = np.where(X[:, 0] + X[:, 1] ** 2 > 0.5, "yes", "no")
models = {
    "forest": RandomForestClassifier(15, random_state=0),
    "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
    "boosting": GradientBoostingClassifier(n_estimators=15, random_state=0),
    "histogram": HistGradientBoostingRegressor(max_iter=15),
    "neighbours": KNeighborsClassifier(),
    "imputer": make_pipeline(SimpleImputer(), LogisticRegression()),
    "clusters": KMeans(3, random_state=0),
    "mapped": LogisticRegression(),
}
models["mapped"].note_ = np.zeros(5 << 20)  # of a file that is so large, arrays are mapped
for name, model in models.items():
    model.fit(X, X[:, 2] if name == "histogram" else y)
    joblib.dump(model, place / f"{name}.joblib", compress=name == "forest")
    method = "predict_proba" if hasattr(model, "predict_proba") else "predict"
    np.save(place / f"{name}.npy", getattr(model, method)(X))
np.save(place / "rows.npy", X)
by_name = models["forest"].fit(X, y)
by_name.feature_names_in_ = np.array(["a", "b", "c"], dtype=object)
joblib.dump(by_name, place / "by_name.joblib")
table = make_pipeline(make_column_transformer((StandardScaler(), [0, 1])), LogisticRegression()).fit(X, y)
table.steps[0][1].feature_names_in_ = np.array(["a", "b", "c"], dtype=object)
joblib.dump(table, place / "table.joblib")
"""


@pytest.fixture(scope="module")
def material(oldest_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that this environment fitted and saved, and its own answers to their rows."""
    return fit_models(oldest_python, FIT, tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def zygote(oldest_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with run_zygote(oldest_python, tmp_path_factory.mktemp("zygote") / "scratch") as running:
        yield running


@pytest.mark.parametrize(
    "name", ["forest", "pipeline", "boosting", "histogram", "neighbours", "imputer", "clusters", "mapped"]
)
def test_a_model_of_that_environment_answers_bit_for_bit(zygote: Zygote, material: Path, name: str) -> None:
    """An imputer tries to import pandas whenever it answers, and k-means opens the library of matrix products."""
    host = zygote.spawn()
    report = evaluate(host, material / f"{name}.joblib").report
    assert report.is_ready, report.refusal
    assert report.libraries["scikit-learn"] == "1.0.2"
    assert report.libraries["python"].startswith("3.9.")
    assert "pandas" not in report.libraries
    assert report.sandbox.is_whole, report.sandbox
    rows, expected = np.load(material / "rows.npy"), np.load(material / f"{name}.npy")
    answer = ask(host, "predict" if expected.ndim == 1 else "predict_proba", Batch(len(rows), matrix=rows))
    assert isinstance(answer, np.ndarray)
    assert answer.tobytes() == expected.tobytes()
    host.close()


def test_named_columns_of_numbers_need_no_pandas(zygote: Zygote, material: Path) -> None:
    host = zygote.spawn()
    report = evaluate(host, material / "by_name.joblib").report
    assert report.is_ready, report.refusal
    assert report.signature is not None
    assert report.signature.container is Container.DATAFRAME
    assert [feature.name for feature in report.signature.features] == ["a", "b", "c"]
    host.close()


def test_a_model_that_takes_a_table_is_refused_without_pandas(zygote: Zygote, material: Path) -> None:
    host = zygote.spawn()
    report = evaluate(host, material / "table.joblib").report
    assert report.refusal is not None
    assert report.refusal.gate == "load"
    assert report.refusal.evidence == (
        "the model takes or holds a table, and its environment has no pandas: install pandas there"
    )


def test_recent_rows_are_replayed_there(zygote: Zygote, material: Path) -> None:
    rows, expected = np.load(material / "rows.npy").tolist(), np.load(material / "histogram.npy").tolist()
    first = zygote.spawn()
    signature = evaluate(first, material / "histogram.joblib").report.signature
    first.close()

    def replay(*more: object) -> GateResult:
        recent = RecentRows("1", (AnsweredRows([*rows, *more], {"predict": [*expected, *[0.5] * len(more)]}),))
        fields = {"recent_rows": encode_recent_rows(recent), "active_signature": signature, "active_version": "1"}
        host = zygote.spawn()
        report = evaluate(host, material / "histogram.joblib", **fields).report
        host.close()
        return next(result for result in report.gates if result.gate == "replay")

    assert replay().evidence == ("answers 120 recent rows, as the active version 1 does; predict: the same numbers")
    assert replay([1.0, "secret", 2.0]).evidence == (
        "1 of 121 recent rows, which the active version 1 answers, are not answered as well; "
        "the first: it does not take them, by column 'x1'"
    )


def test_no_bytecode_is_written_into_the_server(zygote: Zygote) -> None:
    """Its directory may be read-only. The module is one that nothing but a zygote imports."""
    zygote.spawn().close()
    package = Path(sandbox.__file__).parent.parent
    assert not list(package.rglob("forkserver.cpython-39*.pyc"))
