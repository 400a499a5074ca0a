"""How many connections each worker has open, in memory that the supervisor and all workers share."""

from __future__ import annotations

import mmap
import os

_WORDS = 8  # for each worker: 64 bytes, so that two workers never write to the same line of a cache
_COUNT, _IS_EXCLUDED = 0, 1
_DECLINES = -1


class OpenCounts:
    """One count for each worker. Any thread and process; nothing blocks.

    Each worker has two words of 8 bytes, and each word has one writer, so that no lock is needed: the worker writes its
    count, or that it declines connections; the supervisor writes that it is excluded. A worker declines until it has
    published its first count.
    """

    def __init__(self, descriptor: int, workers: int) -> None:
        """Use the memory of `descriptor`, which is from now on this object's to close."""
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, workers * _WORDS * 8)
        self._words = memoryview(self._memory).cast("q")
        self._counts = self._words[_COUNT::_WORDS]
        self._excluded = self._words[_IS_EXCLUDED::_WORDS]

    @classmethod
    def create(cls, workers: int) -> OpenCounts:
        """Make the memory for this many workers (supervisor). Raises OSError."""
        descriptor = os.memfd_create("open-connections")
        os.ftruncate(descriptor, workers * _WORDS * 8)
        created = cls(descriptor, workers)
        for worker in range(workers):
            created.decline(worker)
        return created

    def publish(self, worker: int, count: int) -> None:
        """Say how many connections a worker has, and that it takes more (called by that worker)."""
        self._counts[worker] = count

    def decline(self, worker: int) -> None:
        """Say that a worker takes no connections until it publishes a count again (called by that worker).

        The supervisor calls it for a worker that has ended, and then includes it: its successor publishes a count.
        """
        self._counts[worker] = _DECLINES

    def exclude(self, worker: int) -> None:
        """Have nothing passed to a worker, whatever it publishes (called by the supervisor)."""
        self._excluded[worker] = 1

    def include(self, worker: int) -> None:
        """End `exclude` (called by the supervisor)."""
        self._excluded[worker] = 0

    def read(self) -> list[int | None]:
        """Return the count of each worker, None for one that must not be given connections."""
        return [
            None if count < 0 or is_excluded else count
            for count, is_excluded in zip(self._counts.tolist(), self._excluded.tolist(), strict=True)
        ]

    def close(self) -> None:
        """Give the memory and its descriptor back."""
        for view in (self._counts, self._excluded, self._words):
            view.release()
        self._memory.close()
        os.close(self.descriptor)
