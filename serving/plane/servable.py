"""A servable and the leases on it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from serving.domain.signature import Method, Signature
from serving.domain.version import VersionId
from serving.plane.answer_sample import AnswerSample
from serving.plane.row_sample import RowSample
from serving.rows.batch import Batch, Prediction


class Engine(Protocol):
    """What a servable computes with. One engine belongs to one servable."""

    @property
    def name(self) -> str:
        """The name of the library that answers, such as ``sklearn`` or ``onnx``."""
        ...

    @property
    def is_immediate(self) -> bool:
        """Whether `answer_now` can give answers at all."""
        ...

    def answer_now(self, method: Method, batch: Batch) -> Prediction | None:
        """Answer one batch without waiting; None when that is not possible. Raises InvalidInput or ModelFailed."""
        ...

    async def predict(self, method: Method, batch: Batch, deadline_seconds: float) -> Prediction:
        """Answer one batch; raises InvalidInput, ModelFailed, DeadlineExceeded, HostLost or Overloaded."""
        ...

    async def close(self) -> None:
        """Free everything without blocking the loop. Called once, when no lease is left."""
        ...


class Servable:
    """A validated, warmed version that can answer: the only thing that can be activated.

    The plane makes it from a placement, and a placement needs a report in which every gate has passed: see
    `serving.domain.plan.place`.

    Leases are counted on the event loop's thread only, in the same step that reads the active reference; `drain` runs
    on the same thread. So every request that holds a servable is counted, and no lock is needed.

    `row_sample` is where its rows go: its model's sample if it is the active version, and rows are sampled.
    """

    __slots__ = ("_drained", "_leases", "answer_sample", "engine", "id", "row_sample", "signature")

    def __init__(self, version_id: VersionId, signature: Signature, engine: Engine) -> None:
        self.id = version_id
        self.signature = signature
        self.engine = engine
        self.row_sample: RowSample | None = None
        self.answer_sample = AnswerSample(signature)
        self._leases = 0
        self._drained: asyncio.Event | None = None

    @property
    def leases(self) -> int:
        """How many requests hold this servable now."""
        return self._leases

    def lease(self) -> Lease:
        """Take a hold on this servable. Event loop thread only."""
        return Lease(self)

    def note(self, method: Method, batch: Batch, prediction: Prediction) -> None:
        """Sample what was answered. Event loop thread only; nearly always it costs two subtractions."""
        rows, sample = batch.rows, self.row_sample
        if sample is not None:
            sample.wait -= rows
            if sample.wait < 0:
                sample.take(batch)
        answers = self.answer_sample
        answers.wait -= rows
        if answers.wait < 0:
            answers.take(method, prediction, rows)

    async def drain(self) -> None:
        """Wait until no lease is left. The caller has already taken this servable out of the active reference."""
        if self._leases:
            self._drained = asyncio.Event()
            await self._drained.wait()

    def _count_lease(self) -> None:
        self._leases += 1

    def _discount_lease(self) -> None:
        self._leases -= 1
        if not self._leases and self._drained is not None:
            self._drained.set()


class Lease:
    """One request's hold on a servable, from its creation to the end of the ``with`` block (or `release`)."""

    __slots__ = ("_is_held", "servable")

    def __init__(self, servable: Servable) -> None:
        self.servable = servable
        self._is_held = True
        servable._count_lease()

    def release(self) -> None:
        """End the hold; more than once is harmless."""
        if self._is_held:
            self._is_held = False
            self.servable._discount_lease()

    def __enter__(self) -> Servable:
        return self.servable

    def __exit__(self, *_: object) -> None:
        self.release()
