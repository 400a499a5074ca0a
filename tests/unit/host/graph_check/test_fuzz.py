"""Random graphs, broken or grown: those that the checker accepts stay within their bounds, and do no harm."""

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


def test_accepted_graphs_do_no_harm(corpus: list[Sound]) -> None:
    """Use the same graphs each time: one half is broken, the other half grown."""
    outcome = fuzz(corpus, 400, seed=1)
    assert not outcome.harms
    assert outcome.counts["refused"] > 100
    assert outcome.counts["served"] > 50


@pytest.mark.soak
def test_accepted_graphs_do_no_harm_in_a_long_run(corpus: list[Sound], capsys: pytest.CaptureFixture[str]) -> None:
    """Use SOAK_GRAPHS graphs (20,000 by default) with the seed SOAK_SEED (a new one by default)."""
    seed = int(os.environ.get("SOAK_SEED") or secrets.randbelow(1 << 32))
    outcome = fuzz(corpus, int(os.environ.get("SOAK_GRAPHS") or 20_000), seed)
    with capsys.disabled():
        print(f"\nseed {seed}: {dict(outcome.counts)}")
    assert not outcome.harms
