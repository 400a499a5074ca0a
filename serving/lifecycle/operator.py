"""The event loop's side of operators' calls: hands decisions to the reconciler and waits for their outcomes."""

from __future__ import annotations

import asyncio

from serving.domain.decision import Decision, DecisionRefused
from serving.domain.errors import UnknownModel
from serving.domain.status import HistoryEntry, ModelSummary
from serving.lifecycle.history import History
from serving.lifecycle.reconciler import HoldsStatus, Reconciler


class ReconcilerOperator:
    """Implements :class:`serving.domain.decision.Operator`, which says what each method means and raises."""

    def __init__(self, state: HoldsStatus, reconciler: Reconciler, history: History) -> None:
        self._state = state
        self._reconciler = reconciler
        self._history = history

    async def decide(self, decision: Decision, actor: str) -> tuple[ModelSummary, ...]:
        """Let the reconciler carry out a decision; return when the turn that did so has ended."""
        outcome = await asyncio.wrap_future(self._reconciler.decide(decision, actor))
        if isinstance(outcome, DecisionRefused):
            raise outcome.to_error()
        return outcome.models

    async def history(self, model: str, limit: int = 100, before_id: int | None = None) -> tuple[HistoryEntry, ...]:
        """Read the history, newest first."""
        if model not in self._state.status.models:
            raise UnknownModel.for_name(model)
        return await asyncio.to_thread(self._history.events.read_entries, model, limit, before_id)
