"""The contract gate: the declared signature agrees with the model, and clients of the active version are not broken."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.linear_model import LogisticRegression

from serving.domain.report import Verdict
from serving.domain.signature import Signature
from serving.host.signature_of_estimator import signature_of
from serving.wire.compatibility import find_disagreements
from tests.unit.host.candidates import ROWS, WORDS, Candidate, MakeCandidate


@pytest.fixture
def own(yes_or_no: Any) -> Signature:
    return signature_of(yes_or_no)


@pytest.fixture
def made(candidate: MakeCandidate, yes_or_no: Any) -> Candidate:
    return candidate(yes_or_no)


def declare(made: Candidate, own: Signature, **fields: Any) -> None:
    made.write_manifest(signature={**own.model_dump(mode="json"), **fields})


def test_the_gate_is_skipped_with_nothing_to_compare(made: Candidate) -> None:
    result = made.evaluate()["contract"]
    assert result.verdict is Verdict.SKIPPED
    assert result.evidence.startswith("3 features, predict, predict_proba")


def test_the_declared_signature_is_used_where_it_agrees(made: Candidate, own: Signature) -> None:
    features = [{"name": name, "dtype": "number", "nullable": False} for name in "abc"]
    declare(made, own, features=features, methods=["predict"])
    outcome = made.evaluate()
    assert outcome["contract"].verdict is Verdict.PASSED
    assert outcome["contract"].evidence == "3 features, predict; as declared in manifest.json"
    assert outcome.report.signature is not None
    assert [feature.name for feature in outcome.report.signature.features] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"features": [{"name": "a"}]}, "declares 1 features, the model takes 3"),
        ({"methods": ["predict", "transform"]}, "declares transform, the model offers predict, predict_proba"),
        ({"kind": "regressor"}, "declares a regressor, the model is a classifier"),
        ({"container": "texts"}, "declares the container texts, the model takes array"),
        ({"outputs": 2}, "declares 2 outputs per row, the model gives 1"),
        ({"classes": [["yes", "no"]]}, "declares other classes, or in another order"),
    ],
)
def test_a_declaration_that_contradicts_the_model_is_refused(
    made: Candidate, own: Signature, fields: dict[str, Any], words: str
) -> None:
    declare(made, own, **fields)
    result = made.evaluate()["contract"]
    assert result.verdict is Verdict.REFUSED
    assert result.evidence.startswith("manifest.json declares")
    assert words in result.evidence
    assert result.evidence.endswith("correct its signature or leave it out")


def test_a_model_fitted_with_names_requires_their_order(people: Any, older: Any) -> None:
    own = signature_of(LogisticRegression().fit(people[["age", "level"]], older))
    swapped = own.model_copy(update={"features": own.features[::-1]})
    assert find_disagreements(swapped, own) == ["declares feature 0 as 'level', the model was fitted with 'age' there"]


def test_breaking_clients_of_the_active_version_is_refused(made: Candidate, own: Signature) -> None:
    assert made.evaluate(active_signature=own, active_version="7")["contract"].evidence.endswith(
        "compatible with the active version 7"
    )
    narrower = own.model_copy(update={"features": own.features[:2], "outputs": 2, "classes": None})
    result = made.evaluate(active_signature=narrower, active_version="7")["contract"]
    assert result.verdict is Verdict.REFUSED
    assert result.evidence.startswith("not compatible with the active version 7: takes 3 features, the active version")
    assert 'publish it with "breaking": true' in result.evidence


def test_a_breaking_change_that_is_declared_is_a_warning(made: Candidate, own: Signature) -> None:
    made.write_manifest(breaking=True)
    narrower = own.model_copy(update={"features": own.features[:2]})
    result = made.evaluate(active_signature=narrower)["contract"]
    assert result.verdict is Verdict.WARNED
    assert result.evidence.startswith("declared breaking, differs from the active version: takes 3 features")
    assert made.evaluate(active_signature=own)["contract"].verdict is Verdict.PASSED


def test_many_differences_are_counted(made: Candidate, own: Signature) -> None:
    other = signature_of(LogisticRegression().fit(ROWS[:, :2], WORDS == "yes")).model_copy(
        update={"outputs": 3, "kind": "regressor", "methods": ("transform",)}
    )
    assert "; and 3 more;" in made.evaluate(active_signature=other)["contract"].evidence
