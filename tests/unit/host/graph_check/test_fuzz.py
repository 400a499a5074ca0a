"""Thousands of graphs, broken or grown at random: what the checker lets through is bounded as it says, and harmless."""

from __future__ import annotations

import os
import secrets
import sys

import pytest

from tests.hostile.graph_corpus import Sound, sound_graphs
from tests.hostile.graph_fuzz import Worker, fuzz

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")


@pytest.fixture(scope="module")
def corpus() -> list[Sound]:
    return list(sound_graphs())


def test_sound_graphs_pass_and_stay_within_their_bounds(corpus: list[Sound]) -> None:
    worker = Worker()
    try:
        for sound in corpus:
            assert worker.judge(sound, bytes(sound.graph.content)) == ("served", ""), sound.name
    finally:
        worker.end()


def test_what_is_let_through_does_no_harm(corpus: list[Sound]) -> None:
    """The same graphs each time; half of them broken, half of them grown."""
    outcome = fuzz(corpus, 400, seed=1)
    assert not outcome.harms
    assert outcome.counts["refused"] > 100
    assert outcome.counts["served"] > 50


@pytest.mark.soak
def test_what_is_let_through_does_no_harm_for_as_long_as_we_are_told(
    corpus: list[Sound], capsys: pytest.CaptureFixture[str]
) -> None:
    """SOAK_GRAPHS (20,000) graphs from SOAK_SEED (a new one)."""
    seed = int(os.environ.get("SOAK_SEED") or secrets.randbelow(1 << 32))
    outcome = fuzz(corpus, int(os.environ.get("SOAK_GRAPHS") or 20_000), seed)
    with capsys.disabled():
        print(f"\nseed {seed}: {dict(outcome.counts)}")
    assert not outcome.harms
