"""The operator's calls as coroutines: posted to the reconciler, answered when its turn has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from serving.domain.errors import UnknownModel
from serving.domain.status import HistoryEntry, ModelSummary
from serving.lifecycle.history import History
from serving.lifecycle.model_table import ModelTable
from serving.lifecycle.operations import Operations
from serving.lifecycle.reconciler import HoldsStatus, Reconciler
from serving.lifecycle.snapshots import summary
from serving.lifecycle.store_poller import StorePoller


class ReconcilerOperator:
    """Implements :class:`serving.domain.status.Operator`, which says what each call means and raises."""

    def __init__(
        self,
        state: HoldsStatus,
        reconciler: Reconciler,
        store_poller: StorePoller,
        model_table: ModelTable,
        operations: Operations,
        history: History,
    ) -> None:
        self._state = state
        self._reconciler = reconciler
        self._store_poller = store_poller
        self._model_table = model_table
        self._operations = operations
        self._history = history

    async def pin(self, model: str, version: str, actor: str) -> ModelSummary:
        """Serve exactly this version."""
        return await self._decide(model, lambda: self._operations.pin(model, version, actor))

    async def unpin(self, model: str, actor: str) -> ModelSummary:
        """Follow the newest valid version again."""
        return await self._decide(model, lambda: self._operations.unpin(model, actor))

    async def unload(self, model: str, actor: str) -> ModelSummary:
        """Load no version of the model until `load`."""
        return await self._decide(model, lambda: self._operations.unload(model, actor))

    async def load(self, model: str, actor: str) -> ModelSummary:
        """Lift `unload`."""
        return await self._decide(model, lambda: self._operations.load(model, actor))

    async def rollback(self, model: str, actor: str, expected: str | None = None) -> ModelSummary:
        """Leave the active version."""
        return await self._decide(model, lambda: self._operations.rollback(model, actor, expected))

    async def release(self, model: str, version: str, actor: str) -> ModelSummary:
        """Lift a quarantine and forget a verdict."""
        return await self._decide(model, lambda: self._operations.release(model, version, actor))

    async def accept_state_loss(self, actor: str) -> tuple[ModelSummary, ...]:
        """Activate versions again although decisions have been lost."""
        return await self._reconciler.call(lambda: self._operations.accept_state_loss(actor), self._summaries)

    async def refresh(self, actor: str) -> tuple[ModelSummary, ...]:  # noqa: ARG002  (the edge has written it down)
        """Look at the store now."""
        return await self._reconciler.call(self._store_poller.hurry, self._summaries)

    async def history(self, model: str, limit: int = 100, before_id: int | None = None) -> tuple[HistoryEntry, ...]:
        """Read the history, newest first."""
        if model not in self._state.status.models:
            raise UnknownModel(f"no model named '{model}'; GET /models lists the ones there are")
        return await asyncio.to_thread(self._history.entries, model, limit, before_id)

    def _summaries(self) -> tuple[ModelSummary, ...]:
        return tuple(summary(model) for model in self._state.status.models.values())

    async def _decide(self, model: str, decide: Callable[[], None]) -> ModelSummary:
        def decide_and_carry_out() -> None:
            decide()
            self._model_table.advance(self._model_table.models[model], time.monotonic())

        return await self._reconciler.call(decide_and_carry_out, lambda: self._summary(model))

    def _summary(self, model: str) -> ModelSummary:
        status = self._state.status.models.get(model)
        if status is not None:
            return summary(status)
        return ModelSummary(name=model, active=None, unloaded=model in self._history.unloaded)  # it is gone now
