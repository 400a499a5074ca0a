"""A servable and the leases on it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from serving.domain.signature import Method, Signature
from serving.domain.spread import Spread
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

    What it answers is sampled: who lets it answer subtracts the rows from `wait`, and calls `sample` if the result is
    negative. That is seldom, and costs nearly nothing otherwise.
    """

    __slots__ = (
        *("_answer_sample", "_drained", "_leases", "_row_sample", "_waited_from"),
        *("engine", "id", "signature", "wait"),
    )

    def __init__(self, version_id: VersionId, signature: Signature, engine: Engine) -> None:
        self.id = version_id
        self.signature = signature
        self.engine = engine
        self.wait = 0
        self._waited_from = 0
        self._row_sample: RowSample | None = None
        self._answer_sample = AnswerSample(signature)
        self._leases = 0
        self._drained: asyncio.Event | None = None

    @property
    def leases(self) -> int:
        """How many requests hold this servable now."""
        return self._leases

    def lease(self) -> Lease:
        """Take a hold on this servable. Event loop thread only."""
        return Lease(self)

    @property
    def row_sample(self) -> RowSample | None:
        """Where its rows go: its model's sample if it is the active version and rows are sampled. Any thread."""
        return self._row_sample

    def sample_rows(self, sample: RowSample | None) -> None:
        """Let its rows go there from now on. Any thread."""
        if sample is not self._row_sample:
            self._row_sample = sample
            self.wait = self._waited_from = 0

    def sample(self, method: Method, batch: Batch | None, prediction: Prediction) -> None:
        """Sample what has been answered; `wait` is negative after its rows. Event loop thread only."""
        if batch is None:
            return
        passed = self._waited_from - self.wait - batch.rows  # before this batch, since the last time
        rows, answers = self._row_sample, self._answer_sample
        answers.wait -= passed + batch.rows
        if answers.wait < 0:
            answers.take(method, prediction, batch.rows)
        self.wait = answers.wait
        if rows is not None:
            rows.wait -= passed + batch.rows
            if rows.wait < 0:
                rows.take(batch)
            self.wait = min(rows.wait, answers.wait)
        self._waited_from = self.wait

    def find_spread(self) -> Spread:
        """Return how its recent answers are spread. Event loop thread only."""
        return self._answer_sample.find_spread()

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
