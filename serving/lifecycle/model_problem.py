"""Why a model does not do what an operator has decided, in one line."""

from __future__ import annotations

from serving.domain.state import State
from serving.lifecycle.exclusion import Exclusion
from serving.lifecycle.records import ModelRecord
from serving.lifecycle.standing_decisions import StandingDecisions


def problem_of(model: ModelRecord, exclusion: Exclusion, decisions: StandingDecisions) -> str | None:
    """Return what an operator should know: a pin that cannot be served, or that nothing may be activated."""
    if model.name in decisions.unloaded:
        return None
    active, pin = model.active, decisions.pins.get(model.name)
    if active is None and decisions.held is not None and model.kept is None and pin is None:
        return f"nothing is activated: {decisions.held_problem}"
    if pin is None or (active is not None and active.version == pin and not active.is_copy_lost):
        return None
    why = _why_not_served(model, pin, exclusion)
    if why is None:
        return None
    return f"pinned to '{pin}', which {why}; " + (f"'{active.version}' goes on" if active else "nothing is active yet")


def _why_not_served(model: ModelRecord, pin: str, exclusion: Exclusion) -> str | None:
    record = model.find(pin)
    if record is None:
        return "is not in the store"
    reason = exclusion.why_not_chosen(model, record)
    if reason is not None:
        return f"cannot be served: {reason}"
    if record.is_copy_lost:
        return f"cannot be loaded again: {record.host_problem}"
    return f"has failed: {record.reason}" if record.state is State.FAILED else None
