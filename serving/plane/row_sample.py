"""A sample of the rows that a model has answered recently: in memory only, never written and never logged."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from sys import getsizeof
from typing import Any

import numpy as np

from serving.domain.signature import Container, Signature
from serving.plane.reservoir import Reservoir
from serving.rows.batch import Batch

_ROW_BYTES = 200  # of the objects that every row has, about

Row = bytes | tuple[Any, ...]
"""The cells of a row: float64 as bytes if all are numbers, else plain values."""


class RowSample(Reservoir[Row]):
    """Rows of one model, which all fit one signature. Event loop thread only, except `to_json_rows`."""

    __slots__ = ("_signature",)

    def __init__(self, signature: Signature, most_rows: int, most_bytes: int, random: Random | None = None) -> None:
        super().__init__(most_rows, most_bytes, random)
        self._signature = signature

    def fits(self, signature: Signature) -> bool:
        """Say whether rows of another signature are rows of this one, too."""
        own = self._signature
        return own is signature or (
            (own.features, own.container, own.is_typed) == (signature.features, signature.container, signature.is_typed)
        )

    def take(self, batch: Batch) -> None:
        """Take the rows of a batch whose turn it is; `wait` is negative."""
        matrix = batch.matrix
        if matrix is not None:
            nbytes = _ROW_BYTES + matrix.shape[1] * matrix.itemsize
            for place in self.draw(batch.rows):
                self.put(matrix[place].tobytes(), nbytes)
            return
        for place in self.draw(batch.rows):
            cells = tuple(
                [
                    column[place].item() if isinstance(column, np.ndarray) else column[place]
                    for column in batch.columns or ()
                ]
            )
            self.put(cells, _ROW_BYTES + sum(map(_measure_cell, cells)))


def to_json_rows(signature: Signature, rows: Sequence[Row]) -> list[Any]:
    """Return rows of a sample as requests have them: `serving.rows.parsing` reads them again. Any thread."""
    if signature.container is Container.OBJECTS:
        return [row[0] for row in rows]
    return [_to_cells(row) for row in rows]


def _to_cells(row: Row) -> list[Any]:
    cells = np.frombuffer(row).tolist() if isinstance(row, bytes) else row
    return [None if cell != cell else cell for cell in cells]  # noqa: PLR0124  (NaN stands for a missing value)


def _measure_cell(cell: Any) -> int:
    """Return about how many bytes a plain value takes."""
    if isinstance(cell, dict):
        return getsizeof(cell) + sum(getsizeof(key) + _measure_cell(value) for key, value in cell.items())
    if isinstance(cell, list):
        return getsizeof(cell) + sum(map(_measure_cell, cell))
    return 8 + getsizeof(cell)
