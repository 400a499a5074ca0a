"""Counts what two versions answer while requests are shared between them, for the judge of the new one.

Of a client that is known by a key, one bad answer in a second counts, and the client itself counts once: what a broken
client sends says little about a version. With several workers it may count so in each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, MutableSequence, Sequence
from hashlib import blake2b
from typing import NamedTuple, cast

from serving.domain.answer_pair import AnswerPair
from serving.domain.rollout import BadExample
from serving.telemetry.count_sheet import CountSheet, Key
from serving.telemetry.shadow_counts import DROPPED, SHADOW_NUMBERS, ShadowCount, add_pair

KEY_BYTES = 8  # of what is remembered of a client
MOST_EXAMPLES = 8  # of one split
NEW, NEW_BAD, OLD, OLD_BAD, NEW_CLIENTS, OLD_CLIENTS = range(6)
SHADOW = 8  # where the numbers of a shadow begin
MOST_CLIENTS = 1 << 16  # that are remembered; further ones count on neither side
SPLIT = "split"


class SplitCount(NamedTuple):
    """The answers of the new and the old version, those that went bad, and the clients that had these.

    A client that is not known by a key is one of its own with each request.
    """

    new: int = 0
    new_bad: int = 0
    old: int = 0
    old_bad: int = 0
    new_clients: int = 0
    old_clients: int = 0

    @classmethod
    def of(cls, numbers: Sequence[float]) -> SplitCount:
        """Return what a row holds."""
        return cls(*map(int, numbers[: OLD_CLIENTS + 1]))

    def plus(self, other: SplitCount) -> SplitCount:
        """Return the sum."""
        return SplitCount(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))

    def minus(self, other: SplitCount) -> SplitCount:
        """Return what has come since the other."""
        return SplitCount(*(ours - theirs for ours, theirs in zip(self, other, strict=True)))


class SplitRow(NamedTuple):
    """Everything that one row holds, or the sum of several."""

    answers: SplitCount = SplitCount()
    shadow: ShadowCount = ShadowCount()

    @classmethod
    def of(cls, numbers: Sequence[float]) -> SplitRow:
        """Return what a row holds."""
        return cls(SplitCount.of(numbers), ShadowCount.of(numbers[SHADOW:]))

    def plus(self, other: SplitRow) -> SplitRow:
        """Return the sum."""
        return SplitRow(self.answers.plus(other.answers), self.shadow.plus(other.shadow))


class _Row:
    """The row of one split. Event loop thread only."""

    __slots__ = ("_bad_keys", "_clients", "_second", "examples", "number", "numbers", "record")

    def __init__(self, number: int, numbers: MutableSequence[float], record: int | None) -> None:
        self.number = number
        self.numbers = numbers
        self.record = record
        self.examples: dict[BadExample, None] = {}
        self._second = 0
        self._bad_keys: set[bytes] = set()
        self._clients: set[bytes] = set()

    def add(self, key: bytes | None, *, is_new: bool, is_bad: bool, now: Callable[[], float]) -> None:
        numbers = self.numbers
        if is_bad:
            client = None if key is None else _client_of(key)
            if client is not None and not self._is_first_in_second(client, int(now())):
                return
            numbers[NEW_BAD if is_new else OLD_BAD] += 1
            if client is None or self._is_first(client):
                numbers[NEW_CLIENTS if is_new else OLD_CLIENTS] += 1
        numbers[NEW if is_new else OLD] += 1

    def add_pair(self, key: bytes | None, pair: AnswerPair, now: Callable[[], float]) -> None:
        numbers = self.numbers
        add_pair(numbers, SHADOW, pair)
        is_bad = pair.is_new_bad or pair.is_old_bad
        if is_bad and key is not None and not self._is_first_in_second(_client_of(key), int(now())):
            return
        numbers[NEW_BAD] += pair.is_new_bad
        numbers[OLD_BAD] += pair.is_old_bad
        numbers[NEW] += 1
        numbers[OLD] += 1

    def _is_first_in_second(self, client: bytes, second: int) -> bool:
        if second != self._second:
            self._second = second
            self._bad_keys.clear()
        if client in self._bad_keys:
            return False
        self._bad_keys.add(client)
        return True

    def _is_first(self, client: bytes) -> bool:
        if client in self._clients or len(self._clients) >= MOST_CLIENTS:
            return False
        self._clients.add(client)
        return True


class SplitCounts:
    """The counts of the newest split of each model, in a worker's sheet where there is one.

    What counts belongs to the event loop's thread, the others may be called from any. `on_example` is called with each
    new example, its model and the split's number.
    """

    def __init__(self, sheet: CountSheet | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._sheet = sheet
        self._now = now
        self.on_example: Callable[[str, int, BadExample], None] = lambda *_: None
        self._rows: dict[str, _Row] = {}
        self._lock = threading.Lock()  # guards changes of the dict and of records

    def count(self, model: str, number: int, key: bytes | None, *, is_new: bool, is_bad: bool) -> None:
        """Count one answer in the split with this number; one of a split before the newest counts no more."""
        row = self._find(model, number)
        if row is not None:
            row.add(key, is_new=is_new, is_bad=is_bad, now=self._now)

    def count_pair(self, model: str, number: int, key: bytes | None, pair: AnswerPair) -> None:
        """Count a request that both versions have answered. Of one key, one bad pair in a second is evidence."""
        row = self._find(model, number)
        if row is not None:
            row.add_pair(key, pair, self._now)

    def count_dropped(self, model: str, number: int, copies: int) -> None:
        """Count copies that the new version did not get."""
        row = self._find(model, number)
        if row is not None:
            row.numbers[SHADOW + DROPPED] += copies

    def read(self) -> dict[tuple[str, int], SplitRow]:
        """Return what has been counted so far in the newest split of each model, by model and number."""
        return {(model, row.number): SplitRow.of(row.numbers) for model, row in [*self._rows.items()]}

    def note_example(self, model: str, number: int, example: BadExample) -> None:
        """Keep an example of the new version's bad answers, if it is of another kind than those that are kept."""
        row = self._find(model, number)
        if row is not None and example not in row.examples and len(row.examples) < MOST_EXAMPLES:
            row.examples[example] = None
            self.on_example(model, number, example)

    def read_examples(self, model: str, number: int) -> tuple[BadExample, ...]:
        """Return the examples of a split."""
        row = self._rows.get(model)
        return tuple(row.examples) if row is not None and row.number == number else ()

    def forget(self, model: str) -> None:
        """Drop the counts of a model."""
        with self._lock:
            self._drop(model)

    def _find(self, model: str, number: int) -> _Row | None:
        """Return the row of a split, which begins if it is newer than the one there is; None for an older one."""
        row = self._rows.get(model)
        if row is None or row.number < number:
            return self._begin(model, number)
        return row if row.number == number else None

    def _begin(self, model: str, number: int) -> _Row:
        with self._lock:
            self._drop(model)
            taken = None if self._sheet is None else self._sheet.take((SPLIT, model, str(number)))
            if taken is None:
                row = _Row(number, [0.0] * (SHADOW + SHADOW_NUMBERS), None)
            else:
                row = _Row(number, cast("MutableSequence[float]", taken[1]), taken[0])
            self._rows[model] = row
            return row

    def _drop(self, model: str) -> None:
        row = self._rows.pop(model, None)
        if row is not None and row.record is not None and self._sheet is not None:
            row.numbers = list(row.numbers)
            self._sheet.hide(row.record)
            self._sheet.release(row.record)


class SummedSplits:
    """The counts of workers that have ended. The owner guards it. Only the newest split of each model is kept."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[int, SplitRow]] = {}

    def absorb(self, key: Key, numbers: Sequence[float]) -> None:
        """Add the row of a worker that has ended."""
        model, number = key[1], int(key[2])
        newest, row = self._sums.get(model, (number, SplitRow()))
        if number > newest:
            row = SplitRow()
        if number >= newest:
            self._sums[model] = (number, row.plus(SplitRow.of(numbers)))

    def read(self) -> dict[tuple[str, int], SplitRow]:
        """Return what they have counted, by model and number."""
        return {(model, number): row for model, (number, row) in self._sums.items()}

    def forget(self, model: str) -> None:
        """Drop the sums of a model."""
        self._sums.pop(model, None)


def _client_of(key: bytes) -> bytes:
    """Return what is remembered of a client: clients choose how long their keys are."""
    return blake2b(key, digest_size=KEY_BYTES).digest()
