"""Values that a model takes, where nothing says which: tried one after the other until it answers made-up rows.

A model that refuses every row it is tried with cannot be checked, and is refused for that: see the gate `finite`. What
is tried is what tables commonly hold: whole numbers, dates, numbers as text.
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
from serving.host.input_columns import Column

ROWS = 2
MOST_SINGLE = 64  # columns that are tried one by one

_DATES = re.compile(r"date|time|day|when|month|(?:^|_)(?:at|on|ts|dt)$|stamp", re.IGNORECASE)

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


def with_taken_values(model: EstimatorModel) -> EstimatorModel:
    """Return `model` as it answers made-up rows where it refuses those there are: given float32, or other values.

    It is returned as it was when nothing helps. Answers some rows; deterministic.
    """
    narrow = model.in_float32()
    if _answers(narrow):
        return narrow
    if model.signature.container in (Container.TEXTS, Container.OBJECTS):
        return model
    for numbers, texts in product((None, *_NUMBERS), (None, *_TEXTS)):
        if numbers is None and texts is None:
            continue
        tried = model.knowing(_with_values(model, numbers, texts))
        if _answers(tried):
            return tried
    return _with_dates(model) if model.signature.container is Container.DATAFRAME else model


def _with_dates(model: EstimatorModel) -> EstimatorModel:
    """Return `model` with dates in the columns that are called like dates, or in one; as it was if none helps."""
    features = model.signature.features
    unknown = [place for place, column in enumerate(model.columns) if not _is_known(column)]
    called = [place for place in unknown if _DATES.search(features[place].name)]
    for places in [called, *([place] for place in unknown[:MOST_SINGLE])]:
        columns = list(model.columns)
        for place in places:
            columns[place] = replace(columns[place], dtype=Dtype.STRING, moments=DATE, values=list(EXAMPLES[DATE]))
        named = [
            feature.model_copy(update={"dtype": Dtype.STRING}) if place in places else feature
            for place, feature in enumerate(features)
        ]
        tried = model.under(model.signature.model_copy(update={"features": tuple(named)})).knowing(columns)
        if places and _answers(tried):
            return tried
    return model


def _is_known(column: Column) -> bool:
    return bool(column.values) or column.low is not None or column.categories is not None


def _with_values(model: EstimatorModel, numbers: Sequence[Any] | None, texts: Sequence[Any] | None) -> list[Column]:
    """Return the columns with `numbers` and `texts` where nothing is known of them, not alike in all of a row."""
    columns = []
    for place, (column, feature) in enumerate(zip(model.columns, model.signature.features, strict=True)):
        takes = {Dtype.NUMBER: numbers, Dtype.STRING: texts, Dtype.ANY: texts or numbers}.get(feature.dtype)
        if _is_known(column) or takes is None:
            columns.append(column)
        else:
            turned = np.roll(np.array(takes, dtype=object), place).tolist()
            columns.append(replace(column, values=turned))
    return columns


def _answers(model: EstimatorModel) -> bool:
    try:
        model.answer(model.signature.default_method, model.sample(ROWS))
    except (InvalidInput, ModelFailed):
        return False
    return True
