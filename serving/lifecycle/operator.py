"""The event loop's side of operators' calls: hands decisions to the reconciler and waits for their outcomes."""

from __future__ import annotations

import asyncio

from serving.domain.decision import Decision, DecisionRefused
from serving.domain.event_page import EventPage, HistoryQuery
from serving.domain.status import ModelHistoryEntry, ModelSummary
from serving.lifecycle.history import History
from serving.lifecycle.reconciler import Reconciler


class ReconcilerOperator:
    """Implements :class:`serving.domain.decision.Operator`, which says what each method means and raises."""

    def __init__(self, reconciler: Reconciler, history: History) -> None:
        self._reconciler = reconciler
        self._history = history

    async def decide(self, decision: Decision, actor: str) -> tuple[ModelSummary, ...]:
        """Let the reconciler carry out a decision; return when the turn that did so has ended."""
        outcome = await asyncio.wrap_future(self._reconciler.decide(decision, actor))
        if isinstance(outcome, DecisionRefused):
            raise outcome.to_error()
        return outcome.models

    async def history(self, query: HistoryQuery) -> tuple[ModelHistoryEntry, ...]:
        """Read the history, newest first."""
        return await asyncio.to_thread(self._history.events.read_entries, query)

    async def events_after(self, event_id: str | None, limit: int) -> EventPage:
        """Read the history, oldest first."""
        return await asyncio.to_thread(self._history.events.read_after, event_id, limit)
