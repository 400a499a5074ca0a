"""Rows of a sample are the rows that requests had, whatever their layout; they belong to one signature."""

from __future__ import annotations

import numpy as np
import pytest

from serving.domain.signature import Container, Dtype, Feature, Signature
from serving.plane.row_sample import RowSample, to_json_rows
from serving.rows.batch import Batch
from serving.rows.parsing import rows_to_batch
from tests.fakes import MIXED, NUMBERS, TEXTS

OBJECTS = Signature(
    features=(Feature(name="object", dtype=Dtype.ANY),), methods=("predict",), container=Container.OBJECTS
)


def sample_of(signature: Signature, *batches: Batch, most_rows: int = 100, most_bytes: int = 1 << 20) -> RowSample:
    sample = RowSample(signature, most_rows, most_bytes)
    for batch in batches:
        sample.wait -= batch.rows
        if sample.wait < 0:
            sample.take(batch)
    return sample


@pytest.mark.parametrize(
    ("signature", "rows"),
    [
        (NUMBERS, [[1.0, 2.0, 3.0, 4.0], [0.5, 0.0, -1.0, 1e300]]),
        (MIXED, [[31.5, "Lima", True], [None, "Oslo", None]]),
        (TEXTS, [["good day"], ["bad night"]]),
        (OBJECTS, [{"a": 1, "b": ["x"]}, {"a": None}]),
    ],
)
def test_rows_are_read_again_as_they_were_sent(signature: Signature, rows: list[object]) -> None:
    sample = sample_of(signature, rows_to_batch(signature, rows[:1]), rows_to_batch(signature, rows))
    assert to_json_rows(signature, sample.items) == [rows[0], *rows]


def test_missing_numbers_are_null_and_large_integers_stay() -> None:
    large = Signature(features=(Feature(name="id"), Feature(name="x", nullable=True)), methods=("predict",))
    batch = rows_to_batch(large, [[2**63, 1.0], [2**62 + 1, None]])
    assert to_json_rows(large, sample_of(large, batch).items) == [[2**63, 1.0], [2**62 + 1, None]]
    matrix = rows_to_batch(large, [[1, None]])
    assert matrix.matrix is not None
    assert to_json_rows(large, sample_of(large, matrix).items) == [[1.0, None]]


def test_rows_are_copies() -> None:
    matrix = np.ones((1, 4))
    sample = sample_of(NUMBERS, Batch(1, matrix=matrix))
    matrix[:] = 2
    assert to_json_rows(NUMBERS, sample.items) == [[1.0] * 4]


def test_long_texts_count() -> None:
    batch = rows_to_batch(TEXTS, [["x" * 1000]])
    sample = sample_of(TEXTS, *[batch] * 50, most_bytes=24_000)
    assert len(sample.items) == 24_000 // sample._sizes[0]
    assert 1200 < sample._sizes[0] < 1400


def test_a_sample_fits_the_signatures_of_the_same_columns() -> None:
    sample = sample_of(MIXED)
    assert sample.fits(MIXED.model_copy(update={"methods": ("transform",)}))
    other = MIXED.features[0].model_copy(update={"dtype": Dtype.ANY})
    assert not sample.fits(MIXED.model_copy(update={"features": (other, *MIXED.features[1:])}))
    assert not sample.fits(MIXED.model_copy(update={"container": Container.ARRAY}))
    assert not sample.fits(MIXED.model_copy(update={"is_typed": True}))
