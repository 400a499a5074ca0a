"""The rows of docs/models.md on code of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tests.e2e.models_page.cases import case
from tests.e2e.models_page.shelf import Shelf
from tests.e2e.models_page.tables import FEW, PROBABILITIES, X, Y

SCRIPT = """
import sys, joblib
from sklearn.naive_bayes import GaussianNB
class Mine(GaussianNB): pass
joblib.dump(Mine().fit([[0.0], [1.0]], [0, 1]), sys.argv[1])
"""


@case("Classes or functions of your own in a module")
def modules(shelf: Shelf) -> None:
    from my_models import Logarithm

    shelf.answers(make_pipeline(GaussianNB()).fit(X, Y), FEW)
    scaled = make_pipeline(Logarithm().fit(X), GaussianNB().fit(X, Y))
    scaled.steps[0][1].n_features_in_ = X.shape[1]
    shelf.answers(scaled, FEW, *PROBABILITIES)


@case("A pipeline that starts with a class")
def first_steps(shelf: Shelf) -> None:
    from my_models import Logarithm

    model = make_pipeline(Logarithm(), GaussianNB()).fit(X, Y)
    shelf.run("a-first-step-of-your-own", model=model, X=X)
    shelf.published("logarithm", model, FEW, *PROBABILITIES)


@case("Classes or functions of a script")
def scripts(shelf: Shelf) -> None:
    def write(script: str, path: Path) -> None:
        subprocess.run([sys.executable, "-c", script, path], check=True)

    shelf.refuses(SCRIPT, write)


@case("Lambdas, anything saved by cloudpickle")
def lambdas(shelf: Shelf) -> None:
    import cloudpickle

    def write(model: Any, path: Path) -> None:
        path.write_bytes(cloudpickle.dumps(model))

    shelf.refuses(make_pipeline(FunctionTransformer(lambda rows: rows * 2), GaussianNB()).fit(X, Y), write, "1.pkl")
