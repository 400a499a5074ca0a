"""Find the values that an estimator refuses and its graph would answer, so that the compiled form refuses them too."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import numpy as np

from serving.compiling.drawing import NotCompilable
from serving.domain.compiled_form import Guard
from serving.domain.errors import InvalidInput
from serving.domain.signature import Container, Dtype
from serving.host.input_columns import MAX_VALUES, InputColumn
from serving.host.model import LoadedModel
from serving.rows.batch import Batch

MAX_TRIED = 256
UNKNOWN_TEXT = "\x01unknown"
_SMALLEST = (0.0, 5e-324)  # the second is the smallest number with a logarithm


class ProvableModel(LoadedModel, Protocol):
    """A model as a proof needs it: it answers, and it says what is known of its columns."""

    @property
    def columns(self) -> Sequence[InputColumn]:
        """What is known of each feature, in the order of the signature."""
        ...


def find_guard(model: ProvableModel) -> Guard:
    """Return which unknown categories and negative numbers must be refused. The model answers a few made-up rows.

    Raises NotCompilable when one cell alone does not tell whether a row is refused.
    """
    if model.signature.container is Container.TEXTS:
        return Guard()
    known = _find_known_values(model)
    return Guard(known=known, smallest=_find_smallest(model, known))


def _find_known_values(model: ProvableModel) -> dict[int, tuple[Any, ...]]:
    unknown: dict[int, Any] = {}
    for at, (feature, column) in enumerate(zip(model.signature.features, model.columns, strict=True)):
        if column.values and feature.dtype is Dtype.STRING:
            unknown[at] = UNKNOWN_TEXT
        elif (
            column.values and feature.dtype is Dtype.NUMBER and all(isinstance(v, (int, float)) for v in column.values)
        ):
            unknown[at] = float(max(column.values)) + 1.375
    if not unknown or not _is_refused(model, unknown):
        return {}
    if len(unknown) > MAX_TRIED:
        raise NotCompilable(f"refuses unknown values in some of {len(unknown)} columns, too many to tell which")
    refused = {at: model.columns[at].values for at, value in unknown.items() if _is_refused(model, {at: value})}
    for values in refused.values():
        if len(values) >= MAX_VALUES:
            raise NotCompilable(f"refuses unknown values in a column of {len(values)} or more known ones")
    return {at: tuple(dict.fromkeys(values)) for at, values in refused.items()}


def _find_smallest(model: ProvableModel, known: Collection[int]) -> float | None:
    features = enumerate(model.signature.features)
    numeric = [at for at, feature in features if feature.dtype is Dtype.NUMBER and at not in known]
    if not numeric or not _is_refused(model, dict.fromkeys(numeric, -1.0)):
        return None
    smallest = next((low for low in _SMALLEST if not _is_refused(model, dict.fromkeys(numeric, low))), None)
    if smallest is None:
        raise NotCompilable("refuses numbers by a rule that one cell alone does not show")
    is_refused = [
        _is_refused(model, {at: refused}) for at in numeric[:MAX_TRIED] for refused in _list_refused(smallest)
    ]
    if not all(is_refused):
        raise NotCompilable("refuses negative numbers or 0 in some columns only")
    return smallest


def _list_refused(smallest: float) -> tuple[float, ...]:
    return (-1.0, 0.0) if smallest else (-1.0,)


def _is_refused(model: ProvableModel, cells: dict[int, Any]) -> bool:
    try:
        model.answer(model.signature.default_method, _replace_cells(model.make_rows(1), cells))
    except InvalidInput:
        return True
    return False


def _replace_cells(batch: Batch, cells: dict[int, Any]) -> Batch:
    """Return a batch of one row with other values in some places."""
    if batch.matrix is not None:
        matrix = np.array(batch.matrix)
        for at, value in cells.items():
            matrix[0, at] = value
        return Batch(1, matrix=matrix)
    columns: list[Any] = list(batch.columns or ())
    for at, value in cells.items():
        columns[at] = np.array([value]) if isinstance(columns[at], np.ndarray) else [value]
    return Batch(1, columns=tuple(columns))
