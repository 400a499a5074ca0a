"""Samples of several workers are put together as one of the same size."""

from __future__ import annotations

import pytest

from serving.domain.recent_rows import AnsweredRows, RecentRows, merge_recent_rows
from serving.wire.recent_rows_document import decode_recent_rows, encode_recent_rows


def recent(first: int, count: int, piece: int = 7) -> RecentRows:
    numbers = [*range(first, first + count)]
    parts = [numbers[start : start + piece] for start in range(0, count, piece)]
    return RecentRows("1", tuple(AnsweredRows([[one] for one in part], {"predict": part}) for part in parts))


def count_by_worker(merged: RecentRows | None) -> list[int]:
    assert merged is not None
    rows = [row[0] for piece in merged.pieces for row in piece.rows]
    assert rows == [label for piece in merged.pieces for label in piece.answers["predict"]]
    assert len(set(rows)) == len(rows)
    return [sum(row // 1000 == worker for row in rows) for worker in range(3)]


@pytest.mark.parametrize(
    ("counts", "taken"),
    [
        ((100, 100, 100), [33, 33, 34]),
        ((10, 100, 100), [10, 45, 45]),
        ((10, 20, 30), [10, 20, 30]),
        ((0, 5, 0), [0, 5, 0]),
    ],
)
def test_each_worker_has_its_share(counts: tuple[int, ...], taken: list[int]) -> None:
    samples = [recent(1000 * worker, count) for worker, count in enumerate(counts)]
    assert sorted(count_by_worker(merge_recent_rows(samples, 100))) == sorted(taken)


def test_no_rows_are_nothing() -> None:
    assert merge_recent_rows([], 100) is None
    assert merge_recent_rows([recent(0, 0)], 100) is None


def test_a_document_says_the_same() -> None:
    found = RecentRows(
        "2", (AnsweredRows([[1.5, None, "ä", True]], {"predict": ["x"], "predict_proba": [[0.1, 0.9]]}),)
    )
    assert decode_recent_rows(encode_recent_rows(found)) == found


def test_answers_that_json_cannot_hold_are_left_out() -> None:
    found = RecentRows("2", (AnsweredRows([[1]], {"predict": [1 << 70]}), AnsweredRows([[2]], {"predict": [2]})))
    assert decode_recent_rows(encode_recent_rows(found)).pieces == found.pieces[1:]
