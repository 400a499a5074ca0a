"""The rows of docs/models.md on files: how they were written, and what is in them."""

from __future__ import annotations

import gzip
import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import joblib
import numpy as np
import skops.io
import xgboost
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.e2e.models_page.cases import case
from tests.e2e.models_page.shelf import Shelf
from tests.e2e.models_page.sklearn_rows import mixed
from tests.e2e.models_page.tables import BOUGHT, FEW, GAPS, PEOPLE, PROBABILITIES, X, Y

MODEL = GaussianNB().fit(X, Y)
# what Python 2 wrote of an object, and what scikit-learn 0.x named
PYTHON_2 = (
    b"ccopy_reg\n_reconstructor\np0\n(csklearn.naive_bayes\nGaussianNB\np1\nc__builtin__\nobject\np2\nNtp3\nRp4\n."
)
SKLEARN_0 = b"\x80\x03csklearn.svm.classes\nSVC\nq\x00)\x81q\x01}q\x02b."


def write_pickle(found: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(found))


def write_gzip(found: Any, path: Path) -> None:
    path.write_bytes(gzip.compress(pickle.dumps(found)))


def write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


@case(".joblib, .pkl")
def pickles(shelf: Shelf) -> None:
    shelf.answers(MODEL, FEW, write=partial(joblib.dump, compress=3))
    for file, write in (
        ("1.pkl", write_pickle),
        ("1.pickle", write_pickle),
        ("1/final.sav", write_pickle),
        ("1.pkl", write_gzip),
    ):
        shelf.answers(MODEL, FEW, write=write, file=file)


@case(".pkl.gz, .joblib.gz")
def other_endings(shelf: Shelf) -> None:
    for file in ("model.pkl.gz", "model.joblib.gz", "model.sav"):
        shelf.ignores(gzip.compress(pickle.dumps(MODEL)), file)
    Path("model_store/old").mkdir()
    write_gzip(MODEL, Path("model_store/old/model.pkl.gz"))
    shelf.run("other-endings")
    shelf.published("old", MODEL, FEW)


@case(".skops")
def skops_files(shelf: Shelf) -> None:
    shelf.answers(mixed().fit(GAPS, BOUGHT), GAPS[:9], *PROBABILITIES, write=skops.io.dump, file="1.skops")


@case(".onnx")
def onnx_files(shelf: Shelf) -> None:
    graph = to_onnx(MODEL, X[:1], options={"zipmap": False}).SerializeToString()
    own = {method: getattr(MODEL, method)(FEW) for method in PROBABILITIES}
    shelf.answers(graph, FEW, write=write_bytes, file="1.onnx", **own)


@case("A directory that mlflow")
def mlflow_directories(shelf: Shelf) -> None:
    import mlflow.sklearn
    import mlflow.xgboost

    def save(flavour: Any) -> Any:
        return partial(flavour.save_model, pip_requirements=["scikit-learn"])

    shelf.answers(MODEL, FEW, *PROBABILITIES, write=save(mlflow.sklearn), file="1")
    shelf.answers(xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(X, Y), FEW, write=save(mlflow.xgboost), file="1")


@case("MLflow's PythonModel")
def mlflow_python(shelf: Shelf) -> None:
    import mlflow.pyfunc

    class Mine(mlflow.pyfunc.PythonModel):
        def predict(self, model_input: list[str]) -> list[str]:
            return model_input

    def write(model: Any, path: Path) -> None:
        mlflow.pyfunc.save_model(str(path), python_model=model, pip_requirements=["scikit-learn"])

    shelf.refuses(Mine(), write, "1")


@case("A dict or a tuple")
def parts(shelf: Shelf) -> None:
    scaler = StandardScaler().fit(X)
    model = LogisticRegression().fit(scaler.transform(X), Y)
    shelf.refuses({"scaler": scaler, "model": model})
    shelf.refuses((scaler, model))
    shelf.run("parts", parts={"scaler": scaler, "model": model})
    shelf.published("whole", make_pipeline(scaler, model), FEW, *PROBABILITIES)


@case("A NumPy array, a list")
def arrays(shelf: Shelf) -> None:
    shelf.refuses(np.arange(3.0))
    shelf.refuses([MODEL, MODEL])


@case("A function")
def functions(shelf: Shelf) -> None:
    shelf.refuses(np.sum)
    shelf.refuses(write_bytes)


@case("An estimator that is not fitted")
def unfitted(shelf: Shelf) -> None:
    shelf.refuses(LogisticRegression())


@case("A model trained with another")
def other_versions(shelf: Shelf) -> None:
    with patch("sklearn.base.__version__", "1.2.2"):
        content = pickle.dumps(mixed().fit(PEOPLE, BOUGHT))
    shelf.refuses(content, write_bytes)


@case("A model of Python 2")
def old_pickles(shelf: Shelf) -> None:
    shelf.refuses(PYTHON_2, write_bytes, "1.pkl")
    shelf.refuses(SKLEARN_0, write_bytes, "1.pkl")


@case("A file of more than 8 GB")
def large_files(shelf: Shelf) -> None:
    def write(size: int, path: Path) -> None:
        path.touch()
        os.truncate(path, size)  # a hole takes no room

    shelf.refuses(9 << 30, write)
