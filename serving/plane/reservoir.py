"""A uniform sample of things that pass by, at almost no cost for those that are not taken.

It is Algorithm L of Kim-Hung Li, "Reservoir-Sampling Algorithms of Time Complexity O(n(1 + log(N/n)))", ACM TOMS 20
(1994): chance says at once how many things pass until the next is taken. Two things are added. Old ones fade: the
chance to be taken never falls below a least chance. And the sample is bounded in bytes, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, log, log1p
from random import Random
from typing import Generic, TypeVar

LEAST_CHANCE = 0.01  # so a thing that is taken stays, on average, while 100 times as many pass as the sample has
MOST_AT_ONCE = 200  # of one request: it takes about a millisecond of the event loop
LARGEST_PART = 16  # one thing may take this part of the bytes

Item = TypeVar("Item")


class Reservoir(Generic[Item]):
    """At most `most_items` things of at most `most_bytes` together. One thread only.

    Who lets `count` things pass subtracts that from `wait`; if the result is negative, some of them are to be taken::

        reservoir.wait -= count
        if reservoir.wait < 0:
            for place in reservoir.draw(count):
                reservoir.put(things[place], nbytes)

    The sample is uniform over all that passed, until that is more than its size over `least_chance`; then newer ones
    are more likely to be in it. Of very many things that pass at once, some at equal distances are taken.
    """

    __slots__ = (
        *("_chance", "_is_full", "_least_chance", "_most_bytes", "_most_items", "_random", "_sizes"),
        *("items", "nbytes", "wait"),
    )

    def __init__(
        self, most_items: int, most_bytes: int, random: Random | None = None, least_chance: float = LEAST_CHANCE
    ) -> None:
        self.items: list[Item] = []
        self.nbytes = 0
        self.wait = 0
        self._sizes: list[int] = []
        self._most_items = most_items
        self._most_bytes = most_bytes
        self._random = random or Random()  # noqa: S311  (no secret)
        self._least_chance = least_chance
        self._chance = 1.0
        self._is_full = False

    def draw(self, count: int) -> Iterator[int]:
        """Yield the places, from 0, of those to take among `count` things. `put` each before the next is drawn."""
        least = count // MOST_AT_ONCE
        place = count + self.wait
        while place < count:
            yield place
            place += 1 + max(self._choose_skip(), least)
        self.wait = place - count

    def put(self, item: Item, nbytes: int) -> None:
        """Keep one thing of a size, in place of another if there is no room. One that is far too large is not kept."""
        if nbytes * LARGEST_PART > self._most_bytes:
            return
        if len(self.items) < self._most_items and self.nbytes + nbytes <= self._most_bytes:
            self.items.append(item)
            self._sizes.append(nbytes)
        else:
            self._is_full = True
            place = self._choose_place()
            self.nbytes -= self._sizes[place]
            self.items[place], self._sizes[place] = item, nbytes
        self.nbytes += nbytes
        self._is_full = self._is_full or len(self.items) == self._most_items
        while self.nbytes > self._most_bytes:
            self._drop(self._choose_place())

    def _choose_place(self) -> int:
        return int(self._random.random() * len(self.items))  # five times as fast as `randrange`

    def _drop(self, place: int) -> None:
        self.nbytes -= self._sizes[place]
        self.items[place], self._sizes[place] = self.items[-1], self._sizes[-1]
        del self.items[-1], self._sizes[-1]

    def _choose_skip(self) -> int:
        """Return how many things pass before the next is taken."""
        if not self._is_full:
            return 0
        draw = self._random.random
        self._chance = max(self._chance * exp(log(1.0 - draw()) / len(self.items)), self._least_chance)
        if self._chance >= 1.0:
            return 0
        return int(log(1.0 - draw()) / log1p(-self._chance))
