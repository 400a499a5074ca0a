"""A small sample of what one version has answered recently: how its answers are spread, beside those of another."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from serving.domain.signature import Method, Signature
from serving.domain.spread import MOST_LABEL_CHARACTERS, MOST_OUTPUTS, Cell, Spread, make_spread
from serving.plane.reservoir import Reservoir
from serving.rows.batch import Prediction, Tensor

MOST_ANSWERS = 500
MOST_BYTES = 1 << 20
LEAST_ANSWER_CHANCE = 0.002  # lower than that of rows: it costs each request less

_CELL_BYTES = 64


class AnswerSample(Reservoir[tuple[Cell, ...]]):
    """Answers of the default method of one version. Event loop thread only."""

    __slots__ = ("_signature",)

    def __init__(self, signature: Signature, random: Random | None = None) -> None:
        super().__init__(MOST_ANSWERS, MOST_BYTES, random, LEAST_ANSWER_CHANCE)
        self._signature = signature

    def take(self, method: Method, prediction: Prediction, rows: int) -> None:
        """Take the answers whose turn it is; `wait` is negative. Those of other methods are passed over."""
        if method != self._signature.default_method:
            self.wait = 0
            return
        for place in self.draw(rows):
            cells = tuple(cell for tensor in prediction.tensors for cell in _read_cells(tensor, place))[:MOST_OUTPUTS]
            self.put(cells, _CELL_BYTES * (1 + len(cells)))

    def find_spread(self) -> Spread:
        """Return how the answers are spread."""
        return make_spread(self._signature, self.items)


def _read_cells(tensor: Tensor, place: int) -> list[Cell]:
    """Return the first values of the answer to one row; what is no number and no label is null."""
    found: Any = tensor[place]
    if isinstance(found, np.ndarray):
        found = found.reshape(-1)[:MOST_OUTPUTS].tolist()
    elif isinstance(found, np.generic):
        found = found.item()
    return [_shorten(cell) for cell in (found[:MOST_OUTPUTS] if isinstance(found, list) else (found,))]


def _shorten(cell: Any) -> Cell:
    if isinstance(cell, str):
        return cell[:MOST_LABEL_CHARACTERS]
    return cell if isinstance(cell, (bool, int, float)) else None
