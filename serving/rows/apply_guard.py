"""Apply a guard: refuse the rows that a compiled form must refuse, and name the row and the feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.domain.compiled_form import Guard
from serving.domain.errors import InvalidInput
from serving.domain.signature import Signature
from serving.domain.text import shorten
from serving.rows.batch import Batch


class GuardCheck:
    """A guard, prepared for one signature. Any thread."""

    def __init__(self, guard: Guard, signature: Signature) -> None:
        self._largest = np.inf if guard.largest is None else guard.largest
        self._smallest = -self._largest if guard.smallest is None else guard.smallest
        self._known: Mapping[int, frozenset[Any]] = {at: frozenset(values) for at, values in guard.known.items()}
        self._names = [feature.name for feature in signature.features]

    def check(self, batch: Batch) -> None:
        """Raise InvalidInput, which names the first wrong row and feature, if the guard refuses the batch."""
        if batch.matrix is not None:
            if batch.rows == 1 and not self._known:
                # The same for one row in half the time. Comparisons with NaN are false: a NaN in the first place fails
                # both tests below, and in other places min and max skip it.
                cells = batch.matrix[0].tolist()
                if max(cells) <= self._largest and min(cells) >= self._smallest:
                    return
            self._check_numbers(batch.matrix)
            for column in self._known:
                self._check_known(column, batch.matrix[:, column].tolist())
            return
        for column, cells in enumerate(batch.columns or ()):
            if column in self._known:
                self._check_known(column, cells.tolist() if isinstance(cells, np.ndarray) else cells)
            if isinstance(cells, np.ndarray) and cells.dtype.kind == "f":
                outside = (cells > self._largest) | (cells < self._smallest)
                if outside.any():
                    row = int(np.argmax(outside))
                    self._refuse_number(row, column, float(cells[row]))

    def _check_numbers(self, matrix: NDArray[np.float64]) -> None:
        if matrix.size and matrix.max() <= self._largest and matrix.min() >= self._smallest:
            return
        # NaN is null, which a guard does not check. It makes max and min NaN, and comparisons with NaN are false.
        outside = (matrix > self._largest) | (matrix < self._smallest)
        if outside.any():
            row, column = np.argwhere(outside)[0].tolist()
            self._refuse_number(row, column, float(matrix[row, column]))

    def _check_known(self, column: int, cells: list[Any]) -> None:
        known = self._known[column]
        for row, cell in enumerate(cells):
            if cell not in known and cell is not None and cell == cell:  # noqa: PLR0124  (NaN is null)
                shown = repr(cell if len(str(cell)) <= 40 else shorten(str(cell), 40))
                raise InvalidInput(f"row {row}: '{self._names[column]}' is {shown}, which the model does not know")

    def _refuse_number(self, row: int, column: int, number: float) -> None:
        bound = f"at most {self._largest:g}" if number > self._largest else f"at least {self._smallest:g}"
        raise InvalidInput(f"row {row}: '{self._names[column]}' is {number:g}, the model takes {bound}")
