"""Decisions and their outcomes are values: frozen, and the same after a way through JSON."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from serving.domain.decision import (
    AcceptStateLoss,
    Decision,
    DecisionDone,
    DecisionOutcome,
    DecisionRefused,
    LoadModel,
    PinVersion,
    RefreshStore,
    RefusalCause,
    ReleaseVersion,
    RemoveLabel,
    RollBackModel,
    SetLabel,
    UnloadModel,
    UnpinModel,
)
from serving.domain.errors import OperationRefused, StateUnavailable, UnknownModel, UnknownVersion
from serving.domain.status import ModelSummary
from serving.lifecycle.database import StateDamaged
from serving.lifecycle.snapshots import summary
from tests.fakes import make_model_status

DECISIONS: dict[str, Decision] = {
    '{"model":"iris","version":"2","kind":"pin"}': PinVersion("iris", "2"),
    '{"model":"iris","kind":"unpin"}': UnpinModel("iris"),
    '{"model":"iris","version":null,"kind":"rollback"}': RollBackModel("iris"),
    '{"model":"iris","version":"3","kind":"rollback"}': RollBackModel("iris", "3"),
    '{"model":"iris","version":"2","kind":"release"}': ReleaseVersion("iris", "2"),
    '{"model":"iris","kind":"unload"}': UnloadModel("iris"),
    '{"model":"iris","kind":"load"}': LoadModel("iris"),
    '{"model":"iris","label":"best","version":"2","kind":"label"}': SetLabel("iris", "best", "2"),
    '{"model":"iris","label":"best","kind":"unlabel"}': RemoveLabel("iris", "best"),
    '{"kind":"refresh"}': RefreshStore(),
    '{"kind":"accept-state-loss"}': AcceptStateLoss(),
}
CAUSES = {
    RefusalCause.UNKNOWN_MODEL: UnknownModel,
    RefusalCause.UNKNOWN_VERSION: UnknownVersion,
    RefusalCause.NOT_POSSIBLE: OperationRefused,
    RefusalCause.NOT_DURABLE: StateUnavailable,
}


@pytest.mark.parametrize("text", DECISIONS)
def test_a_decision_is_the_same_after_a_way_through_json(text: str) -> None:
    adapter: TypeAdapter[Decision] = TypeAdapter(Decision)
    decision = DECISIONS[text]
    assert adapter.dump_json(decision).decode() == text
    read = adapter.validate_json(text)
    assert (type(read), read) == (type(decision), decision)


@pytest.mark.parametrize("text", ["{}", '{"kind":"delete","model":"iris"}', '{"kind":"pin","model":"iris"}'])
def test_what_is_no_decision_is_not_read_as_one(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Decision).validate_json(text)


@pytest.mark.parametrize(
    "value", [*DECISIONS.values(), DecisionDone(()), DecisionRefused(RefusalCause.NOT_DURABLE, "")]
)
def test_decisions_and_outcomes_cannot_be_changed(value: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        value.kind = "other"


@pytest.mark.parametrize(
    "outcome",
    [
        DecisionDone((summary(make_model_status()), ModelSummary(name="gone", active=None, unloaded=True))),
        DecisionDone(()),
        *(DecisionRefused(cause, "version '2' is not active") for cause in RefusalCause),
    ],
)
def test_an_outcome_is_the_same_after_a_way_through_json(outcome: DecisionOutcome) -> None:
    adapter: TypeAdapter[DecisionOutcome] = TypeAdapter(DecisionOutcome)
    read = adapter.validate_json(adapter.dump_json(outcome))
    assert (type(read), read) == (type(outcome), outcome)


@pytest.mark.parametrize("cause", RefusalCause)
def test_a_refusal_becomes_the_error_it_was_made_of(cause: RefusalCause) -> None:
    refusal = DecisionRefused.from_error(CAUSES[cause]("why"))
    assert refusal == DecisionRefused(cause, "why")
    error = refusal.to_error()
    assert (type(error), str(error)) == (CAUSES[cause], "why")


def test_a_damaged_database_is_a_decision_that_is_not_durable() -> None:
    assert DecisionRefused.from_error(StateDamaged("torn")) == DecisionRefused(RefusalCause.NOT_DURABLE, "torn")
