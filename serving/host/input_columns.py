"""Describes each input column from the fitted parts of an estimator: dtype, known values, plausible numbers.

An estimator does not keep its training data, but its parts keep much of it: encoders keep their categories, imputers
the values they fill in, scalers the range of the numbers, trees their thresholds. `learn_columns` looks at every part
that gets the input columns unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import numpy as np
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

from serving.domain.signature import Dtype
from serving.host.boosters import library_of
from serving.host.date_columns import date_kind_of, format_dates
from serving.host.field_packages import CATBOOST, find_encoded_values, package_of
from serving.host.nested_estimators import is_from_sklearn
from serving.host.number_ranges import find_number_ranges
from serving.host.pandas_categories import Categories, categories_of, why_categories_lost

MAX_VALUES = 1024
MAX_MEMBERS = 3

_SAME_ROWS = ("best_estimator_", "estimator_", "regressor_", "_preprocessor")
# of a search and of a transformed target: no other part of these gets the rows
_ONLY_READERS = ("best_estimator_", "regressor_")
_SAME_ROWS_LISTS = ("estimators_", "calibrated_classifiers_")
_TAKES_ANYTHING = frozenset({"DummyClassifier", "DummyRegressor", "MissingIndicator"})
_IMPUTERS = frozenset({"SimpleImputer", "KNNImputer", "IterativeImputer"})
_VECTORIZERS = (CountVectorizer, HashingVectorizer)


@dataclass(slots=True)
class InputColumn:
    """What is known of one input column of a model.

    `dtype` is None when nothing is known. `values` were seen in training; where the model keeps whole rows, the values
    at one position are one row in all columns. `low` and `high` enclose plausible numbers. `missing` replaces null in
    columns of objects: NaN, or None where the model was fitted on None. `takes_null` is a guess from the first part
    that gets the column: True for an imputer, and for an encoder that has seen a missing value or ignores unknown ones.
    Columns with one `branch` go through the same parts. `categories` are the pandas categories the column must have.
    `date_kind` is set for dates and durations, which arrive as text: see `serving.host.date_columns`. `is_object` says
    that an encoder was fitted on the column's numbers as objects, so they must be objects again. `is_used` is False for
    a column that is dropped before any part reads it.
    """

    name: str | None = None
    dtype: Dtype | None = None
    values: list[Any] = field(default_factory=list)
    low: float | None = None
    high: float | None = None
    missing: float | None = math.nan
    takes_null: bool | None = None
    branch: int = 0
    categories: Categories | None = None
    date_kind: str | None = None
    is_object: bool = False
    is_used: bool = True


def learn_columns(estimator: Any, names: Sequence[str] | None, columns: int) -> list[InputColumn]:
    """Return what `estimator` knows of each of its input columns; `names` are those it was fitted with, if any."""
    found = [InputColumn(name) for name in names] if names is not None else [InputColumn() for _ in range(columns)]
    _visit_part(estimator, found, count(1))
    for position in _find_dropped(estimator, len(found)):
        found[position].is_used = names is None  # in an array every column has a place and needs a number
    return found


def note_values(column: InputColumn, values: Sequence[Any]) -> None:
    """Note values seen in training, and their dtype if they have one in common; values of other types are ignored."""
    present = [value for value in values if not _is_missing(value)]
    if any(value is None for value in values):
        column.missing = None
    dtype = dtype_of(present)
    if dtype is None or column.values:
        return
    column.dtype = column.dtype or dtype
    column.values = list(present[:MAX_VALUES])


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def dtype_of(values: Sequence[Any]) -> Dtype | None:
    """Return the JSON type of plain Python values: ANY when they have several types, None when JSON has no type."""
    types = set(map(type, values))
    if not types or not types <= {str, bool, int, float}:
        return None
    if types == {str}:
        return Dtype.STRING
    if types == {bool}:
        return Dtype.BOOL
    return Dtype.NUMBER if types <= {int, float} else Dtype.ANY


def find_text_vectorizer(estimator: Any) -> Any | None:
    """Return the text vectorizer that gets the rows first; None when rows are not plain texts."""
    if isinstance(estimator, _VECTORIZERS):
        return estimator
    return next(
        (found for part in find_first_parts(estimator) if (found := find_text_vectorizer(part)) is not None), None
    )


def find_object_vectorizer(estimator: Any) -> Any | None:
    """Return the vectorizer of JSON objects that gets the rows first; None when rows are not objects."""
    if isinstance(estimator, DictVectorizer) or (
        isinstance(estimator, FeatureHasher) and estimator.input_type == "dict"
    ):
        return estimator
    return next(
        (found for part in find_first_parts(estimator) if (found := find_object_vectorizer(part)) is not None), None
    )


def why_categories_unknown(estimator: Any) -> str | None:
    """Return why the categories of the training rows cannot be found out, None where they can: `pandas_categories`."""
    reasons = (why_categories_unknown(part) for part in find_first_parts(estimator))
    return why_categories_lost(estimator) or next(filter(None, reasons), None)


def find_parts_with_same_rows(estimator: Any) -> Iterator[Any]:
    """Yield the fitted estimators inside `estimator` that get its rows unchanged: of a list the first `MAX_MEMBERS`."""
    if type(estimator).__name__ == "FrozenEstimator":
        yield estimator.estimator
    for name in _SAME_ROWS:
        part = getattr(estimator, name, None)
        if hasattr(part, "fit"):
            yield part
    for name in _SAME_ROWS_LISTS:
        parts = getattr(estimator, name, None)
        if isinstance(parts, np.ndarray):
            parts = parts.ravel().tolist()
        if isinstance(parts, (list, tuple)):
            members = [getattr(part, "estimator", part) if name[0] == "c" else part for part in parts[:MAX_MEMBERS]]
            yield from (member for member in members if hasattr(member, "fit"))


def find_first_parts(estimator: Any) -> Iterator[Any]:
    """Yield the parts that get the rows of `estimator` before all other parts."""
    steps = [step for _, step in getattr(estimator, "steps", ()) if not _is_placeholder(step)]
    yield from steps[:1]
    yield from (part for _, part in getattr(estimator, "transformer_list", ()))
    yield from find_parts_with_same_rows(estimator)


def _is_placeholder(part: Any) -> bool:
    return part is None or isinstance(part, str)


def _visit_part(part: Any, columns: list[InputColumn], branches: Iterator[int]) -> None:
    """Note in `columns` what `part` knows of them; it gets exactly these columns."""
    if _is_placeholder(part):
        if part == "passthrough":
            _mark_numbers(columns)
    elif hasattr(part, "steps"):
        _visit_pipeline(part, columns, branches)
    elif hasattr(part, "transformers_"):
        _visit_column_transformer(part, columns, branches)
    elif hasattr(part, "transformer_list"):
        for _, transformer in part.transformer_list:
            _visit_part(transformer, columns, branches)
    else:
        _visit_single(part, columns, branches)


def _visit_pipeline(pipeline: Any, columns: list[InputColumn], branches: Iterator[int]) -> None:
    by_name = {column.name: column for column in columns if column.name is not None}
    known: list[InputColumn] | None = columns
    for _, step in pipeline.steps:
        names = getattr(step, "feature_names_in_", None)
        if known is None and by_name and names is not None:
            # an earlier step may have changed the values, but a column with its old name most likely has its old dtype;
            # a ColumnTransformer puts the name of the transformer before the name of the column
            known = [by_name.get(name) or by_name.get(name.partition("__")[2]) or InputColumn(name) for name in names]
        if known is not None and not _is_placeholder(step):
            _visit_part(step, known, branches)
            known = known if _keeps_columns(step) else None


def _keeps_columns(step: Any) -> bool:
    if type(step).__name__ in _IMPUTERS:
        width = len(getattr(step, "statistics_", ())) or step.n_features_in_
        return not step.add_indicator and width == step.n_features_in_
    return type(step).__name__ == "FunctionTransformer" and step.func is None


def _visit_column_transformer(part: Any, columns: list[InputColumn], branches: Iterator[int]) -> None:
    names = list(getattr(part, "feature_names_in_", ()))
    for _, transformer, selected in part.transformers_:
        chosen = [columns[position] for position in resolve_positions(selected, names, len(columns))]
        branch = next(branches)
        for column in chosen:
            column.branch = branch
        _visit_part(transformer, chosen, branches)


def _find_dropped(part: Any, columns: int) -> set[int]:
    """Return the positions of columns that no part of an estimator reads; none where the structure does not show it."""
    if not is_from_sklearn(part):
        return set()
    if hasattr(part, "steps"):
        steps = [step for _, step in part.steps if not _is_placeholder(step)]
        return _find_dropped(steps[0], columns) if steps else set()
    inner = next((found for name in _ONLY_READERS if (found := vars(part).get(name)) is not None), None)
    if inner is not None:
        return _find_dropped(inner, columns)
    if type(part).__name__ != "ColumnTransformer":
        return set()
    names = list(getattr(part, "feature_names_in_", ()))
    taken = [selected for _, transformer, selected in part.transformers_ if transformer != "drop"]
    return set(range(columns)).difference(*(resolve_positions(selected, names, columns) for selected in taken))


def resolve_positions(selected: Any, names: list[str], columns: int) -> list[int]:
    """Return the positions a ColumnTransformer selects by names, by positions, by a slice of either, or by a mask."""
    if isinstance(selected, slice):
        start, stop = selected.start, selected.stop
        if isinstance(start, str) or isinstance(stop, str):
            first = names.index(start) if start is not None else None
            last = names.index(stop) + 1 if stop is not None else None
            selected = slice(first, last, selected.step)
        return list(range(columns)[selected])
    if isinstance(selected, str) or np.ndim(selected) == 0:
        selected = [selected]
    chosen = list(selected)
    if chosen and all(isinstance(item, (bool, np.bool_)) for item in chosen):
        return [position for position, is_chosen in enumerate(chosen) if is_chosen]
    return [names.index(item) if isinstance(item, str) else range(columns)[item] for item in chosen]


def _visit_single(part: Any, columns: list[InputColumn], branches: Iterator[int]) -> None:
    if find_object_vectorizer(part) is part:
        for column in columns:
            column.dtype, column.values = Dtype.ANY, make_known_objects(part)
        return
    is_imputer = type(part).__name__ in _IMPUTERS
    ignores_unknown = getattr(part, "handle_unknown", "ignore") != "error"
    for column, values in zip(columns, _find_known_values(part, len(columns)), strict=False):
        column.date_kind = date_kind_of(values) or column.date_kind
        note_values(column, values if date_kind_of(values) is None else format_dates(values))
        if column.takes_null is None and hasattr(part, "categories_"):
            column.takes_null = ignores_unknown or any(map(_is_missing, values))
    _note_objects(part, columns)
    known = categories_of(part)
    for place, categories in known.items():
        columns[place].categories = categories
        note_values(columns[place], categories.values.tolist())
    _note_encoded_values(part, columns)
    for column in columns if is_imputer else ():
        column.takes_null = True if column.takes_null is None else column.takes_null
        column.missing = None if getattr(part, "missing_values", math.nan) is None else column.missing
    has_inner = False
    for inner in find_parts_with_same_rows(part):
        has_inner = True
        if getattr(inner, "n_features_in_", len(columns)) == len(columns):
            _visit_part(inner, columns, branches)
    if known or (not has_inner and _needs_numbers(part)):
        _mark_numbers(columns)
    for column, numbers in zip(columns, find_number_ranges(part, len(columns)), strict=False):
        if column.dtype in (None, Dtype.NUMBER) and not column.values and column.low is None:
            column.low, column.high, column.values = numbers.low, numbers.high, numbers.values


def _note_objects(part: Any, columns: list[InputColumn]) -> None:
    """Note the columns in which an encoder was fitted on numbers that were objects."""
    for column, known in zip(columns, getattr(part, "categories_", ()), strict=False):
        if getattr(known, "dtype", None) == np.dtype(object) and dtype_of(column.values) is Dtype.NUMBER:
            column.is_object = True


def _note_encoded_values(part: Any, columns: list[InputColumn]) -> None:
    """Note the categories of an encoder of category_encoders, and which columns of CatBoost have categories."""
    for place, values in find_encoded_values(part, [column.name for column in columns]).items():
        note_values(columns[place], values)
        columns[place].dtype = columns[place].dtype or Dtype.ANY


def _find_known_values(part: Any, columns: int) -> list[Any]:
    categories = getattr(part, "categories_", None)
    statistics = getattr(part, "statistics_", None)
    if isinstance(part, _VECTORIZERS):
        return [make_known_texts(part)] * columns
    if isinstance(categories, list) and len(categories) == columns:
        # categories are sorted with missing values last; there may be a million of them
        return [
            known[:MAX_VALUES] if date_kind_of(known) else known[:MAX_VALUES].tolist() + known[-2:].tolist()
            for known in categories
        ]
    if getattr(part, "strategy", None) == "most_frequent" and isinstance(statistics, np.ndarray):
        return [[value] for value in statistics.tolist()]  # the fill value of other strategies may never have occurred
    return []


def make_known_texts(vectorizer: Any) -> list[str]:
    """Return a few texts made of words that a fitted vectorizer knows."""
    words = list(islice(getattr(vectorizer, "vocabulary_", ()), 32)) or ["the", "quick", "brown", "fox"]
    return [" ".join(words[start : start + 4]) for start in range(0, len(words), 4)]


def make_known_objects(vectorizer: Any) -> list[dict[str, Any]]:
    """Return a few JSON objects made of names and values that a fitted vectorizer of objects knows."""
    known: dict[str, list[Any]] = {}
    for name in islice(getattr(vectorizer, "feature_names_", ("a", "b=c", "b=d")), MAX_VALUES):
        key, is_text, value = name.partition(getattr(vectorizer, "separator", "="))
        known.setdefault(key, []).append(value if is_text else 1.5)
    return [{key: values[place % len(values)] for key, values in known.items()} for place in range(4)]


def _needs_numbers(part: Any) -> bool:
    name = type(part).__name__
    if library_of(part) is not None:
        return not _takes_categories(part)
    if package_of(part) == CATBOOST:  # its categories have a dtype by now
        return True
    if name == "FunctionTransformer":
        return part.validate or isinstance(part.func, np.ufunc)
    is_object_imputer = name == "SimpleImputer" and part.statistics_.dtype.kind == "O"
    return type(part).__module__.startswith("sklearn.") and name not in _TAKES_ANYTHING and not is_object_imputer


def _takes_categories(booster: Any) -> bool:
    """Return whether an estimator of XGBoost or LightGBM was fitted on a table with pandas categories."""
    inner = getattr(booster, "booster_", None)
    return "c" in (getattr(booster, "feature_types", None) or ()) or bool(getattr(inner, "pandas_categorical", None))


def _mark_numbers(columns: list[InputColumn]) -> None:
    for column in columns:
        column.dtype = column.dtype or Dtype.NUMBER
