"""Models that are fine: every estimator with every option, and what people make of them. None is kept as a file."""

from __future__ import annotations

from collections.abc import Iterator

from tests.sound.composed import boosters, compositions, own_attributes
from tests.sound.enumerated import enumerated, members
from tests.sound.estimators import Fitted, every_kind, every_option
from tests.sound.tables import tables

__all__ = [
    "Fitted",
    "boosters",
    "compositions",
    "enumerated",
    "every_kind",
    "every_model",
    "every_option",
    "members",
    "own_attributes",
    "tables",
]


def every_model() -> Iterator[Fitted]:
    """Yield all of them. Blocks for minutes over all."""
    yield from every_option()
    yield from compositions()
    yield from enumerated()
    yield from tables()
    yield from boosters()
