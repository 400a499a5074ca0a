"""The transition table."""

from __future__ import annotations

import pytest

from serving.domain.state import TRANSITIONS, IllegalTransition, State, require_transition


def test_every_state_has_a_row_and_can_be_left_again() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(TRANSITIONS.values())


def test_only_a_ready_version_becomes_active() -> None:
    """Invariant 2: nothing is activated that has not been validated and warmed."""
    assert [state for state in State if State.ACTIVE in TRANSITIONS[state]] == [
        *(State.READY, State.SHADOW, State.CANARY)
    ]
    assert [state for state in State if State.READY in TRANSITIONS[state]] == [
        *(State.WARMING, State.SHADOW, State.CANARY, State.ACTIVE)
    ]
    assert [state for state in State if State.CANARY in TRANSITIONS[state]] == [State.READY]
    assert [state for state in State if State.SHADOW in TRANSITIONS[state]] == [State.READY]


def test_a_loaded_version_is_drained_before_it_is_gone() -> None:
    """Invariant 4: the only way out of memory is through DRAINING."""
    assert [state for state in State if State.RETIRED in TRANSITIONS[state]] == [State.DRAINING]


def test_an_illegal_transition_is_loud() -> None:
    with pytest.raises(IllegalTransition, match="DISCOVERED -> ACTIVE"):
        require_transition(State.DISCOVERED, State.ACTIVE)
