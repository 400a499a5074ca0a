"""What the active version says to a sample of recent rows: computed when a new version is to be compared with it.

The answers that were given to clients are not kept: they may be of an older version, or of another method.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from random import sample
from time import monotonic
from typing import Any

import numpy as np

from serving.domain.errors import InvalidInput, ModelFailed, ServingError
from serving.domain.recent_rows import AnsweredRows, RecentRows
from serving.plane.row_sample import Row, to_json_rows
from serving.plane.servable import Servable
from serving.rows.batch import Batch, Prediction
from serving.rows.parsing import rows_to_batch
from serving.rows.plain_answers import list_plain_answers

MOST_SECONDS = 2.0  # for all rows: those that are not answered by then are left out
PIECE_SECONDS = 0.005  # requests may have to wait for one piece
PIECE_ROWS = 100
ANSWER_SECONDS = 30.0  # for one piece: a host that is stuck on it is ended, as with any request
MOST_VALUES = 1 << 18  # in all answers together
MOST_WIDTH = 1000  # values of one answer; of wider ones only whether there are any is compared

_GROWTH = 4


async def answer_recent_rows(servable: Servable) -> RecentRows | None:
    """Let a version answer the sample of its model's rows. Event loop; the caller holds a lease. None: no rows.

    The pieces are so small that requests hardly wait for one, and the loop and the host are free for as long between
    two of them. Rows that are refused now, and those left over after `MOST_SECONDS`, are left out. So is a method that
    fails on a piece.
    """
    if servable.row_sample is None or not servable.row_sample.items:
        return None
    # in another order: of several samples of workers, each gives its first rows
    rows = sample(servable.row_sample.items, len(servable.row_sample.items))
    pieces = [piece async for piece in _answer_in_pieces(servable, rows)]
    return RecentRows(servable.id.version, tuple(pieces)) if pieces else None


async def _answer_in_pieces(servable: Servable, rows: Sequence[Row]) -> AsyncIterator[AnsweredRows]:
    ends_at = monotonic() + MOST_SECONDS
    start, size, first_seconds, values_left = 0, 1, 0.0, MOST_VALUES
    while start < len(rows) and monotonic() < ends_at:
        part = rows[start : start + size]
        began = monotonic()
        try:
            async for piece in _answer_piece(servable, part):
                values_left -= sum(map(_count_values, piece.answers.values()))
                if values_left < 0:
                    return
                yield piece
        except ServingError:
            return  # it cannot answer now: its host is gone, or too busy
        took = monotonic() - began
        first_seconds = first_seconds or took
        start += size
        if took <= max(PIECE_SECONDS, 2 * first_seconds):
            size = min(size * _GROWTH, PIECE_ROWS)
        elif size > 1:
            size //= 2
        await asyncio.sleep(took)


async def _answer_piece(servable: Servable, rows: Sequence[Row]) -> AsyncIterator[AnsweredRows]:
    """Answer some rows together, or else one by one: then those that are refused are left out."""
    listed, batch = await asyncio.to_thread(_make_batch, servable, rows)
    answers: dict[str, list[Any]] = {}
    if batch is not None:
        answers = await _answer_batch(servable, batch)
    if answers:
        yield AnsweredRows(listed, answers)
    elif len(rows) > 1:
        for row in rows:
            async for piece in _answer_piece(servable, [row]):
                yield piece


async def _answer_batch(servable: Servable, batch: Batch) -> dict[str, list[Any]]:
    """Return the answers of every method that does not fail; none at all where the default one does."""
    answers: dict[str, list[Any]] = {}
    for method in servable.signature.methods:
        try:
            prediction = await servable.engine.predict(method, batch, ANSWER_SECONDS)
        except (InvalidInput, ModelFailed):
            if not answers:
                break
        else:
            answers[method] = await asyncio.to_thread(_list_answers, prediction, batch.rows)
    return answers


def _make_batch(servable: Servable, rows: Sequence[Row]) -> tuple[list[Any], Batch | None]:
    listed = to_json_rows(servable.signature, rows)
    try:
        return listed, rows_to_batch(servable.signature, listed)
    except InvalidInput:
        return listed, None


def _list_answers(prediction: Prediction, rows: int) -> list[Any]:
    values = sum(part.size if isinstance(part, np.ndarray) else len(part) for part in prediction.tensors)
    return [None] * rows if values > MOST_WIDTH * rows else list_plain_answers(prediction)


def _count_values(answers: Sequence[Any]) -> int:
    return sum(len(value) if isinstance(value, list) else 1 for value in answers)
