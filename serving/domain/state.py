"""States of a version: one enum, one transition table."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a version stands on the road. See ``docs/architecture.md`` for the drawing."""

    DISCOVERED = "DISCOVERED"
    STAGING = "STAGING"
    LOADING = "LOADING"
    VALIDATING = "VALIDATING"
    WARMING = "WARMING"
    READY = "READY"
    SHADOW = "SHADOW"
    CANARY = "CANARY"
    ACTIVE = "ACTIVE"
    DRAINING = "DRAINING"
    RETIRED = "RETIRED"
    REJECTED = "REJECTED"
    FAILED = "FAILED"
    QUARANTINED = "QUARANTINED"


_S = State
_UNDONE = frozenset({_S.DISCOVERED, _S.REJECTED, _S.FAILED, _S.QUARANTINED})

TRANSITIONS: dict[State, frozenset[State]] = {
    _S.DISCOVERED: frozenset({_S.STAGING, _S.LOADING, _S.REJECTED, _S.QUARANTINED}),
    _S.STAGING: _UNDONE | {_S.LOADING},
    _S.LOADING: _UNDONE | {_S.VALIDATING},
    _S.VALIDATING: _UNDONE | {_S.WARMING},
    _S.WARMING: _UNDONE | {_S.READY},
    _S.READY: frozenset({_S.ACTIVE, _S.SHADOW, _S.CANARY, _S.DRAINING}),
    _S.SHADOW: frozenset({_S.ACTIVE, _S.READY}),
    _S.CANARY: frozenset({_S.ACTIVE, _S.READY}),
    _S.ACTIVE: frozenset({_S.READY, _S.DRAINING}),
    _S.DRAINING: frozenset({_S.RETIRED, _S.QUARANTINED}),
    _S.RETIRED: frozenset({_S.STAGING, _S.LOADING, _S.QUARANTINED, _S.REJECTED, _S.DISCOVERED}),
    _S.REJECTED: frozenset({_S.DISCOVERED, _S.QUARANTINED}),
    _S.FAILED: frozenset({_S.DISCOVERED, _S.STAGING, _S.LOADING, _S.REJECTED, _S.QUARANTINED}),
    _S.QUARANTINED: frozenset({_S.DISCOVERED}),
}


class IllegalTransition(AssertionError):
    """A state change that the table does not know: a bug in this package, never a user's fault."""


def require_transition(before: State, after: State) -> None:
    """Raise IllegalTransition unless `before` -> `after` is in the table."""
    if after not in TRANSITIONS[before]:
        raise IllegalTransition(f"{before} -> {after} is not a transition")
