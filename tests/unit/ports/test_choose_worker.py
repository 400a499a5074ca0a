"""Which worker gets a connection: few long ones are even, and nothing goes to and fro."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.ports.choose_worker import ALL, choose_worker


@settings(deadline=None)
@given(
    own=st.integers(0, 200) | st.just(ALL),
    others=st.lists(st.tuples(st.none() | st.integers(0, 200), st.integers(0, 20)), min_size=1, max_size=6),
)
def test_a_connection_goes_to_the_worker_with_the_fewest(own: int, others: list[tuple[int | None, int]]) -> None:
    """If that has fewer by more than an eighth, with all that waits for it."""
    waiting = [0, *(one[1] for one in others)]
    chosen = choose_worker(0, own, [own, *(one[0] for one in others)], waiting.__getitem__)
    totals = {worker: count + more for worker, (count, more) in enumerate(others, 1) if count is not None}
    fewest = min(totals.values(), default=None)
    if fewest is not None and own >= fewest + 1 + fewest // 8:
        assert chosen is not None
        assert totals[chosen] == fewest
    else:
        assert chosen is None


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=5), seed=st.integers())
def test_passing_on_open_connections_ends_and_leaves_them_even(counts: list[int], seed: int) -> None:
    """Workers look in any order, each at what it has without the connection that it might pass on."""
    total, moves, order = sum(counts), 0, random.Random(seed)
    while True:
        choices = {
            worker: chosen
            for worker, count in enumerate(counts)
            if (chosen := choose_worker(worker, count - 1, counts, lambda _: 0)) is not None
        }
        if not choices:
            break
        worker = order.choice(list(choices))
        counts[worker] -= 1
        counts[choices[worker]] += 1
        moves += 1
        assert moves <= total
    assert max(counts) - min(counts) <= 1 + min(counts) // 8
