"""Guesses the input values of a model that refuses made-up rows: tries common kinds of values until it answers.

A model that refuses every made-up row cannot be checked, so the gate `finite` refuses it. The values tried are those
that tables commonly contain: whole numbers, dates, numbers as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.signature import Container, Dtype
from serving.host.date_columns import DATE, EXAMPLES
from serving.host.estimator_model import EstimatorModel
from serving.host.input_columns import InputColumn

ROWS = 2
MAX_SINGLE_COLUMNS = 64  # that are tried one by one

_DATE_NAMES = re.compile(r"date|time|day|when|month|(?:^|_)(?:at|on|ts|dt)$|stamp", re.IGNORECASE)

_NUMBERS: tuple[tuple[float, ...], ...] = (
    (1, 0, 2, 3, 1, 4),
    (0, 1, 1, 0),
    (18.5, 22, 25, 30.25, 28),
    (-0.5, 0.25, -1.5, 1),
)
_TEXTS: tuple[tuple[str, ...], ...] = (
    ("2024-01-15", "2023-07-01", "2024-02-29"),
    ("2024-01-15T10:30:00", "2023-07-01T00:00:00", "2024-02-29T23:59:59"),
    ("1", "2", "30"),
    ("yes", "no"),
    ("a@example.org", "b@example.com"),
)


def guess_input_values(model: EstimatorModel) -> EstimatorModel:
    """Return `model` with numbers as float32, or with other made-up values, such that it answers made-up rows.

    Returns `model` itself when no guess helps. Runs the model on a few rows. Deterministic.
    """
    narrow = model.with_float32()
    if _can_answer(narrow):
        return narrow
    if model.signature.container in (Container.TEXTS, Container.OBJECTS):
        return model
    for numbers, texts in product((None, *_NUMBERS), (None, *_TEXTS)):
        if numbers is None and texts is None:
            continue
        tried = model.with_columns(_fill_unknown_columns(model, numbers, texts))
        if _can_answer(tried):
            return tried
    return _try_dates(model) if model.signature.container is Container.DATAFRAME else model


def _try_dates(model: EstimatorModel) -> EstimatorModel:
    """Return `model` with dates in the columns named like dates, or else in one column; itself if nothing helps."""
    features = model.signature.features
    unknown = [place for place, column in enumerate(model.columns) if not _is_known(column)]
    date_like = [place for place in unknown if _DATE_NAMES.search(features[place].name)]
    for places in [date_like, *([place] for place in unknown[:MAX_SINGLE_COLUMNS])]:
        columns = list(model.columns)
        for place in places:
            columns[place] = replace(columns[place], dtype=Dtype.STRING, date_kind=DATE, values=list(EXAMPLES[DATE]))
        named = [
            feature.model_copy(update={"dtype": Dtype.STRING}) if place in places else feature
            for place, feature in enumerate(features)
        ]
        signature = model.signature.model_copy(update={"features": tuple(named)})
        tried = model.with_signature(signature).with_columns(columns)
        if places and _can_answer(tried):
            return tried
    return model


def _is_known(column: InputColumn) -> bool:
    return bool(column.values) or column.low is not None or column.categories is not None


def _fill_unknown_columns(
    model: EstimatorModel, numbers: Sequence[Any] | None, texts: Sequence[Any] | None
) -> list[InputColumn]:
    """Return the columns, with `numbers` and `texts` in those without known values.

    The values are rotated by the place of the column, so that the cells of one row differ.
    """
    columns = []
    for place, (column, feature) in enumerate(zip(model.columns, model.signature.features, strict=True)):
        takes = {Dtype.NUMBER: numbers, Dtype.STRING: texts, Dtype.ANY: texts or numbers}.get(feature.dtype)
        if _is_known(column) or takes is None:
            columns.append(column)
        else:
            rotated = np.roll(np.array(takes, dtype=object), place).tolist()
            columns.append(replace(column, values=rotated))
    return columns


def _can_answer(model: EstimatorModel) -> bool:
    try:
        model.answer(model.signature.default_method, model.make_rows(ROWS))
    except (InvalidInput, ModelFailed):
        return False
    return True
