"""Every estimator of scikit-learn: fitted, written, loaded and described, and its answers compared."""

from __future__ import annotations

import warnings
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.utils import all_estimators
from sklearn.utils._test_common.instance_generator import _construct_instances
from sklearn.utils.estimator_checks import _enforce_estimator_tags_X, _enforce_estimator_tags_y

from serving.domain.signature import METHODS, Container
from serving.domain.version import Format
from serving.host.loading import load_model
from serving.host.model import LoadRefused
from serving.host.output_tensors import is_finite, to_prediction
from serving.rows.parsing import rows_to_batch

ROWS = 4
ESTIMATORS: dict[str, Any] = dict(all_estimators())  # which looks through all modules of scikit-learn each time

# these do not take a table of rows, or need seconds to fit and test nothing that others do not
LEFT_OUT = {
    "CountVectorizer": "texts; see test_signature_of_estimator",
    "TfidfVectorizer": "texts; see test_signature_of_estimator",
    "DictVectorizer": "mappings",
    "LabelBinarizer": "labels",
    "LabelEncoder": "labels",
    "MultiLabelBinarizer": "labels",
    "FrozenEstimator": "cannot be constructed alone; see test_signature_of_estimator",
    "SparseCoder": "cannot be fitted to other data than its dictionary",
    "SequentialFeatureSelector": "slow",
    "TSNE": "slow",
}
NOTHING_TO_OFFER = {
    "AgglomerativeClustering",
    "ClassicalMDS",
    "DBSCAN",
    "EmpiricalCovariance",
    "GraphicalLasso",
    "GraphicalLassoCV",
    "HDBSCAN",
    "LedoitWolf",
    "LocalOutlierFactor",  # with novelty=False
    "MDS",
    "MinCovDet",
    "NearestNeighbors",
    "OAS",
    "OPTICS",
    "ShrunkCovariance",
    "SpectralBiclustering",
    "SpectralClustering",
    "SpectralCoclustering",
    "SpectralEmbedding",
}
NO_FEATURES = {"FeatureHasher", "PatchExtractor"}
UNREPEATABLE = {"DummyClassifier"}
FAILING_METHODS = {"ClassifierChain": ("predict_proba", "predict_log_proba", "decision_function")}  # of three classes
SERVED = sorted(ESTIMATORS.keys() - LEFT_OUT.keys() - NOTHING_TO_OFFER - NO_FEATURES - {"HashingVectorizer"})


def fit_estimator(name: str) -> tuple[Any, Any]:
    """Return a fitted estimator, with the settings of scikit-learn's own tests, and the rows it was fitted on."""
    rows, answers = make_blobs(n_samples=60, centers=3, n_features=6, random_state=0)
    rows = rows - rows.min() + 0.5
    kind = ESTIMATORS[name]
    with warnings.catch_warnings(action="ignore"):  # settings for fast tests do not converge or do not suit the data
        estimator = next(iter(_construct_instances(kind)))
        if name == "GraphicalLasso":
            rows = np.random.default_rng(0).normal(size=(60, 3))
        rows = _enforce_estimator_tags_X(estimator, rows)
        return estimator.fit(rows, _enforce_estimator_tags_y(estimator, answers)), rows


@pytest.mark.parametrize("name", SERVED)
def test_rows_from_json_are_answered_like_the_estimator(name: str, tmp_path: Any) -> None:
    estimator, rows = fit_estimator(name)
    joblib.dump(estimator, tmp_path / "blob")
    model = load_model(str(tmp_path / "blob"), Format.JOBLIB)
    signature = model.signature

    offered = [method for method in METHODS if hasattr(estimator, method)]
    assert list(signature.methods) == [method for method in offered if method not in FAILING_METHODS.get(name, ())]
    assert len(signature.features) == (1 if rows.ndim == 1 else rows.shape[1])
    assert signature.container is Container.ARRAY

    instances = np.asarray(rows[:ROWS]).reshape(ROWS, -1).tolist()
    batch = rows_to_batch(signature, instances)
    if batch.matrix is not None:
        batch.matrix.flags.writeable = False
    for method in signature.methods:
        got = model.answer(method, batch)
        if name in UNREPEATABLE:
            continue
        with warnings.catch_warnings(action="ignore"):
            expected = to_prediction(getattr(estimator, method)(rows[:ROWS]), ROWS)
        assert len(got.tensors) == len(expected.tensors)
        for mine, its in zip(got.tensors, expected.tensors, strict=True):
            np.testing.assert_allclose(np.asarray(mine), np.asarray(its), rtol=1e-9, atol=1e-12)
    assert_made_up_rows_are_answered(model)


def assert_made_up_rows_are_answered(model: Any) -> None:
    """Made-up rows, one and several, are so similar to real rows that the answers are finite."""
    for method in model.signature.methods:
        for rows in (1, 8):
            tensors = model.answer(method, model.make_rows(rows)).tensors
            assert all(len(tensor) == rows for tensor in tensors)
            if method != "predict_log_proba":
                assert all(is_finite(tensor).all() for tensor in tensors), method


@pytest.mark.parametrize("name", sorted(NOTHING_TO_OFFER))
def test_an_estimator_that_cannot_answer_new_rows_is_refused(name: str, tmp_path: Any) -> None:
    joblib.dump(fit_estimator(name)[0], tmp_path / "blob")
    with pytest.raises(LoadRefused, match=f"^{name} offers none of predict, predict_proba"):
        load_model(str(tmp_path / "blob"), Format.JOBLIB)


@pytest.mark.parametrize("name", sorted(NO_FEATURES))
def test_an_estimator_that_does_not_know_its_features_needs_a_signature(name: str, tmp_path: Any) -> None:
    kind = ESTIMATORS[name]
    joblib.dump(kind(), tmp_path / "blob")
    with pytest.raises(LoadRefused, match="does not say how many features it takes"):
        load_model(str(tmp_path / "blob"), Format.JOBLIB)
