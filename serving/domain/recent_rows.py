"""Rows that a model has answered recently, and what its active version says to them.

They are rows of clients: they pass between processes, and are never written to disk nor shown in a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """Some rows, as requests have them, and the answers of some methods: a plain value for each row.

    Null stands for a number that is not finite, as in an answer.
    """

    rows: list[Any] = field(repr=False)
    answers: dict[str, list[Any]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RecentRows:
    """What `version`, the active one, answers to a sample of the rows of recent requests."""

    version: str
    pieces: tuple[AnsweredRows, ...] = field(repr=False)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(len(piece.rows) for piece in self.pieces)


def merge_recent_rows(samples: Sequence[RecentRows], most_rows: int) -> RecentRows | None:
    """Return the samples of several workers as one, of at most `most_rows`; None when there is no row.

    Each has the same share of it, as far as it has rows: clients are the same for all workers, so that each sample is
    one of the same rows, whatever the share of requests a worker has.
    """
    pieces: list[AnsweredRows] = []
    left = most_rows
    filled = sorted((sample for sample in samples if sample.count), key=lambda sample: sample.count)
    for place, sample in enumerate(filled):
        share = left // (len(filled) - place)
        taken = _take_rows(sample.pieces, share)
        pieces += taken
        left -= sum(len(piece.rows) for piece in taken)
    return RecentRows(filled[0].version, tuple(pieces)) if pieces else None


def _take_rows(pieces: Sequence[AnsweredRows], most_rows: int) -> list[AnsweredRows]:
    taken: list[AnsweredRows] = []
    for piece in pieces:
        count = min(most_rows, len(piece.rows))
        if not count:
            break
        answers = {method: values[:count] for method, values in piece.answers.items()}
        taken.append(AnsweredRows(piece.rows[:count], answers))
        most_rows -= count
    return taken
