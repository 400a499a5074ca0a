"""The fast part of ``python -m benchmarks.correctness``: some of each kind, and models that lie, which must be seen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.utils import all_estimators

from tests.correctness.answers import compare, expect
from tests.correctness.asking import Finding, methods_of
from tests.correctness.cases import Subject, boosters, categories, subject
from tests.correctness.material import material_like
from tests.correctness.running import run
from tests.correctness.tables import files, tables
from tests.sound.estimators import Fitted, of_kind

pytest.importorskip("pyarrow", reason="the extra arrow is not installed")
LABELS = {
    "LogisticRegression on text labels": "joblib",
    "KNeighborsClassifier#0": "skops",
    "NMF#0": "pickle 5",
}
X = np.random.default_rng(0).normal(size=(60, 3))


def subjects() -> Iterator[Subject]:
    kinds = dict(all_estimators())
    for label, form in LABELS.items():
        name = re.split(r"\W", label)[0]
        for fitted in of_kind(name, kinds[name], label.__eq__):
            found = subject(name, fitted, form)
            assert found is not None
            yield found
    yield from tables(only=("mixed, LogisticRegression", "DictVectorizer()"))
    yield from boosters(only=("XGBClassifier binary:logistic",))
    yield from categories(only=("texts, LGBMClassifier",))
    yield from islice(files(), 1)


def liar(name: str, estimator: Any, other: Any) -> Subject:
    """Return a subject that says of itself what another model says."""

    def write(directory: Path) -> None:
        directory.mkdir(parents=True)
        joblib.dump(estimator, directory / "model.joblib")

    material = material_like(X)
    assert material is not None
    return Subject("liars", name, write, methods_of(other), material)


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    regression = LinearRegression().fit(X, X[:, 0])
    a_little = LinearRegression().fit(X, X[:, 0])
    a_little.coef_ = a_little.coef_ * (1 + 3e-5)
    liars = [
        liar("a little off", regression, a_little),
        liar("refuses", regression, Fitted("none", LogisticRegression(), X).estimator),
    ]
    return {found.name: found for found in run([*subjects(), *liars], group=100)}


def test_every_answer_is_the_models_own(findings: dict[str, Finding]) -> None:
    honest = [found for found in findings.values() if found.kind != "liars"]
    assert len(honest) == 8
    for found in honest:
        assert not found.refused, found.name
        assert not found.differences, found.name
        assert found.answers > 5000, found.name
    assert {found.engine for found in honest} == {"compiled", "hosted"}
    wires = sum((found.wires for found in honest), Finding("", "").wires)
    assert len(wires) == 13
    assert min(wires.values()) > 800


@pytest.mark.parametrize("name", ["a little off", "refuses"])
def test_the_sceptic_sees_what_differs(findings: dict[str, Finding], name: str) -> None:
    assert findings[name].differences


def test_a_distance_a_type_and_a_missing_number_are_seen() -> None:
    wanted = expect(np.array([[1.0, 2e9]]), 1)
    assert compare(wanted, [[1.0, 2e9]]).exact == 1
    assert compare(wanted, [[1.0, 2e9 + 1e4]]).close == 1
    for wrong in ([[1.0, 2e9 + 3e4]], [[1.0]], [[1.0, None]], [[1.0, float("nan")]], [[1, 2e9]], []):
        assert compare(wanted, wrong).wrong == 1
    assert compare(expect(np.array([np.nan]), 1), [[None]]).exact == 1
    labels = expect(np.array(["a", "1"]), 2)
    assert compare(labels, [["a"], ["1"]]).exact == 2
    assert compare(labels, [["a"], [1]]).wrong == 1
    assert compare(expect(np.array([True]), 1), [[1]]).wrong == 1
