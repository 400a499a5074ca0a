"""Models of the user's own package and of category_encoders, in an environment that has these, trusted or signed."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from serving.offline.keys import SigningKey
from serving.store.publishing import Publication, publish
from tests.e2e.harness import MATERIAL, Server, serving

SCRIPT = MATERIAL / "trained_with_packages.py"
NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
OURS = """
from sklearn.base import BaseEstimator, TransformerMixin


class Levels(TransformerMixin, BaseEstimator):
    def __init__(self, cols=()):
        self.cols = cols

    def fit(self, X, y=None):
        self.feature_names_in_, self.n_features_in_ = X.columns, X.shape[1]
        self.levels_ = {name: X[name].value_counts() for name in self.cols}
        return self

    def transform(self, X):
        return X.assign(**{name: X[name].map(self.levels_[name]).fillna(0) for name in self.cols})


class Others(Levels):
    pass
"""
TORCH = """
from our_features import Levels


class Net(Levels):
    pass
"""


@pytest.fixture(scope="module")
def own_python(other_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with a package of the user's own beside the packages of another environment."""
    directory = tmp_path_factory.mktemp("own")
    packages = directory / "packages"
    for name, code in {"our_features": OURS, "torch": TORCH}.items():
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").write_text(code)
    subprocess.run([other_python, "-m", "venv", "--without-pip", directory / "own"], check=True)
    (site,) = (directory / "own").glob("lib/python3*/site-packages")
    (others,) = other_python.parents[1].glob("lib/python3*/site-packages")
    (site / "packages.pth").write_text(f"{packages}\n{others}\n")
    return directory / "own" / "bin" / "python"


def train(python: Path, name: str, store: Path) -> dict[str, Any]:
    """Publish a model that begins with this transformer under the name of its class; return rows with its answers."""
    run = subprocess.run([python, "-I", SCRIPT, name, store], check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(run.stdout)
    return told


def assert_answers(server: Server, model: str, environment: str, told: dict[str, Any]) -> None:
    server.wait_active(model, 1)
    assert server.version(model, 1)["environment"] == environment
    body = {"instances": told["instances"], "method": "predict_proba"}
    answer = server.client.post(f"{server.url}/models/{model}/predict", json=body)
    assert answer.json()["predictions"] == told["predict_proba"]


def test_a_package_of_the_users_own_is_served_where_it_is(own_python: Path, tmp_path: Path) -> None:
    """Its class holds Series of pandas, and gets real ones; a class beside it that is not trusted is refused.

    So is a model of PyTorch, which nobody is told to trust, although the environment has what stands for it here.
    """
    settings = {
        "SERVING_ENVIRONMENTS__OURS__PYTHON": str(own_python),
        "SERVING_SECURITY__PICKLE_TRUSTED": "our_features.Levels",
    }
    with serving(tmp_path, **settings) as server:
        told = train(own_python, "our_features.Levels", server.store)
        assert_answers(server, "Levels", "ours", told)
        train(own_python, "our_features.Others", server.store)
        reason = server.wait_state("Others", 1, "REJECTED")["reason"]
        assert 'security.pickle_trusted = ["our_features.Levels", "our_features.Others"]' in reason
        train(own_python, "torch.Net", server.store)
        reason = server.wait_state("Net", 1, "REJECTED")["reason"]
        assert "the file holds a model of PyTorch: export the model with torch.onnx.export" in reason
        assert "pickle_trusted" not in reason


@pytest.mark.ends
def test_a_signed_model_of_a_package_needs_no_names(field_python: Path, key: SigningKey, tmp_path: Path) -> None:
    settings = {
        "SERVING_ENVIRONMENTS__FIELD__PYTHON": str(field_python),
        "SERVING_SECURITY__TRUST": "signed",
        "SERVING_SECURITY__TRUSTED_KEYS": str(key.public),
        "SERVING_SECURITY__PICKLE_TRUSTED": "",
    }
    with serving(tmp_path, **settings) as server:
        told = train(field_python, "category_encoders.JamesSteinEncoder", server.store)
        assert "not signed" in server.wait_state("JamesSteinEncoder", 1, "REJECTED")["reason"]
        file = server.store / "JamesSteinEncoder" / "1" / "model.joblib"
        signed = Publication("signed", "model.joblib", file, version="1", sign=key.sign)
        publish(server.store, signed, NOW)
        assert_answers(server, "signed", "field", told)
