"""Graphs whose memory depends on values, on the square of the rows, or is simply too large are refused before a run."""

from __future__ import annotations

import pytest

from serving.domain.errors import GraphRefused
from serving.host.graph_check.graph_check import bound_graphs
from tests.unit.host.graph_check.bombs import BOMBS
from tests.unit.host.graph_check.graphs import graph_of, signature

TEXTS = {"split_texts", "words_of_texts", "kept_words", "doubled_texts", "long_texts_of_its_own"}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_runs(name: str) -> None:
    """If its shapes are known, they are too large for a run of a single row."""
    with pytest.raises(GraphRefused):
        bound_graphs([graph_of(BOMBS[name]())], signature(texts=name in TEXTS))


def test_there_are_bombs_of_many_kinds() -> None:
    assert len(BOMBS) >= 50
