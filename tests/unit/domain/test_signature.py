"""Signatures: the default method, strict parsing, and when a client of the old one could break on the new one."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serving.domain.signature import METHODS, Container, Dtype, Feature, ModelKind, Signature, incompatibilities

BASE = Signature(
    features=(Feature(name="age"), Feature(name="city", dtype=Dtype.STRING, nullable=True)),
    methods=("predict", "predict_proba"),
    container=Container.DATAFRAME,
    kind=ModelKind.CLASSIFIER,
    is_named=True,
    classes=(("no", "yes"),),
)


def changed(**fields: Any) -> Signature:
    return BASE.model_copy(update=fields)


def test_the_first_method_is_the_default() -> None:
    assert BASE.default_method == "predict"
    assert changed(methods=("transform",)).default_method == "transform"


def test_it_survives_json_without_change() -> None:
    labels = changed(classes=((1, 2), ("a", None), (True, 0.5)))
    again = Signature.model_validate_json(labels.model_dump_json())
    assert again == labels
    assert again.classes is not None
    assert [type(label) for row in again.classes for label in row] == [int, int, str, type(None), bool, float]


@pytest.mark.parametrize(
    "document",
    [
        '{"features": []}',
        '{"features": [], "methods": []}',
        '{"features": [], "methods": ["fit"]}',
        '{"features": [{"name": "a", "type": "number"}], "methods": ["predict"]}',
    ],
)
def test_what_does_not_belong_is_refused(document: str) -> None:
    with pytest.raises(ValidationError):
        Signature.model_validate_json(document)


def test_the_order_of_methods_begins_with_predict() -> None:
    assert METHODS[0] == "predict"
    assert len(set(METHODS)) == len(METHODS)


COMPATIBLE = {
    "the same": BASE,
    "takes anything": changed(features=(Feature(name="age", dtype=Dtype.ANY), BASE.features[1])),
    "takes null": changed(features=(Feature(name="age", nullable=True), BASE.features[1])),
    "one method more": changed(methods=("predict", "predict_proba", "decision_function")),
    "another container": changed(container=Container.ARRAY),
}


@pytest.mark.parametrize("name", COMPATIBLE)
def test_taking_more_breaks_nobody(name: str) -> None:
    assert incompatibilities(BASE, COMPATIBLE[name]) == []


BREAKING: dict[str, tuple[Signature, str]] = {
    "fewer features": (
        changed(features=BASE.features[:1]),
        "takes 1 features, the active version takes 2 (gone: city)",
    ),
    "more features": (
        changed(features=(*BASE.features, Feature(name="x"))),
        "takes 3 features, the active version takes",
    ),
    "another order": (changed(features=BASE.features[::-1]), "the same features in another order"),
    "another name": (
        changed(features=(Feature(name="years"), BASE.features[1])),
        "feature names differ (new: years; gone: age)",
    ),
    "another dtype": (
        changed(features=(Feature(name="age", dtype=Dtype.STRING), BASE.features[1])),
        "feature 'age' was number and is string",
    ),
    "no null": (
        changed(features=(BASE.features[0], Feature(name="city", dtype=Dtype.STRING))),
        "feature 'city' no longer takes null",
    ),
    "a method less": (changed(methods=("predict",)), "no longer offers predict_proba"),
    "another default": (
        changed(methods=("predict_proba", "predict")),
        "default method was predict and is predict_proba",
    ),
    "another kind": (changed(kind=ModelKind.REGRESSOR), "was a classifier and is a regressor"),
    "more outputs": (changed(outputs=2), "gave 1 outputs per row and gives 2"),
    "other classes": (changed(classes=(("no", "maybe"),)), "the class labels or their order differ"),
    "classes in another order": (changed(classes=(("yes", "no"),)), "the class labels or their order differ"),
}


@pytest.mark.parametrize("name", BREAKING)
def test_a_change_a_client_would_notice_is_said_in_one_sentence(name: str) -> None:
    new, sentence = BREAKING[name]
    found = incompatibilities(BASE, new)
    assert len(found) == 1
    assert sentence in found[0]


def test_every_change_is_said() -> None:
    new = changed(features=BASE.features[:1], methods=("predict",), outputs=3)
    assert len(incompatibilities(BASE, new)) == 3
