"""A loaded model that is a scikit-learn estimator, or an object with the same methods."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray

from serving.domain.errors import InvalidInput
from serving.domain.signature import Container, Signature
from serving.host.boosters import library_of
from serving.host.date_columns import parse_dates
from serving.host.input_columns import InputColumn
from serving.host.model import classify_error, describe_skew
from serving.host.nested_estimators import is_from_sklearn, walk_nested_estimators
from serving.host.optional_pandas import HAS_PANDAS, PandasAbsent
from serving.host.optional_pandas import pandas as pd
from serving.host.output_tensors import to_prediction
from serving.host.synthetic_rows import make_batch
from serving.rows.batch import Batch, Column, Prediction
from serving.rows.integers import EXACT, has_rounded_cell, is_rounded, join_columns, make_integer_column
from serving.rows.row_problems import describe_rounded

_END_OF_INT64 = 2.0**63


class EstimatorModel:
    """Answers with a fitted estimator and never changes it.

    An estimator that was fitted on a DataFrame of numbers gets an array instead if only scikit-learn's own code, which
    finds columns by position, reads the rows: checking a DataFrame takes four times as long as a small model's answer.
    """

    def __init__(
        self,
        estimator: Any,
        signature: Signature,
        columns: Sequence[InputColumn],
        trained_with: Mapping[str, str] | None = None,
    ) -> None:
        self.estimator = estimator
        self.name = type(estimator).__name__
        self.engine = library_of(estimator) or "sklearn"
        self.signature = signature
        self.columns = columns
        self._large_integer_places = [place for place, column in enumerate(columns) if _has_rounded_integers(column)]
        self._object_places = [place for place, column in enumerate(columns) if column.is_object]
        self.trained_with = trained_with or {}
        written_by = self.trained_with.get("scikit-learn")
        self._skew = describe_skew(written_by, sklearn.__version__) if written_by else None
        parts = list(walk_nested_estimators(estimator))
        self.has_foreign_parts = any(map(_is_foreign, parts))
        self.has_own_code = any(map(_is_own_code, parts))
        self._float_type: type[np.float64] | type[np.float32] = np.float64
        self._goes_by_position = not self.has_foreign_parts and not any(map(_takes_tables, parts))
        self._names = self._make_names()

    def with_signature(self, signature: Signature) -> EstimatorModel:
        """Return the same model with another signature of as many features."""
        other = copy(self)
        other.signature = signature
        other._names = other._make_names()
        return other

    def with_columns(self, columns: Sequence[InputColumn]) -> EstimatorModel:
        """Return the same model with other knowledge about its input columns."""
        other = copy(self)
        other.columns = columns
        return other

    def with_float32(self) -> EstimatorModel:
        """Return the same model, with its numbers passed as float32: some estimators accept only these."""
        other = copy(self)
        other._float_type = np.float32
        return other

    def answer(self, method: str, batch: Batch) -> Prediction:
        """Answer one batch; see `LoadedModel.answer`. Warnings of the model are dropped."""
        if method not in self.signature.methods:
            raise InvalidInput(f"offers {', '.join(self.signature.methods)}; not {method}")
        with warnings.catch_warnings(action="ignore"):
            try:
                answer = getattr(self.estimator, method)(self._build_input(batch))
            except (InvalidInput, PandasAbsent):
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001  (a model may raise anything, and call sys.exit)
                raise classify_error(error, self._skew) from None
            return to_prediction(answer, batch.rows)

    def make_rows(self, rows: int, *, with_nulls: bool = False) -> Batch:
        """Make up rows; see `LoadedModel.make_rows`."""
        nulls = [feature.nullable for feature in self.signature.features] if with_nulls else None
        return make_batch(self.signature, self.columns, rows, nulls)

    def _make_names(self) -> Any:
        """Return the names of the columns of tables; raises PandasAbsent where the model needs tables."""
        needs_tables = self.signature.container is Container.DATAFRAME and not self._goes_by_position
        if not needs_tables and not HAS_PANDAS:
            return None
        return pd.Index([feature.name for feature in self.signature.features])

    def _build_input(self, batch: Batch) -> Any:
        """Convert a batch to the type the estimator was fitted on. Always a copy: some estimators write into it."""
        container = self.signature.container
        if batch.matrix is not None and (self._large_integer_places or self._object_places):
            batch = Batch(batch.rows, columns=tuple(batch.matrix.T))
        if batch.matrix is not None:
            matrix = _narrow_floats(np.array(batch.matrix), self._float_type)
            if container is not Container.DATAFRAME or self._goes_by_position:
                return matrix
            return self._make_categories(pd.DataFrame(matrix, columns=self._names, copy=False))
        columns = batch.columns or ()
        if container in (Container.TEXTS, Container.OBJECTS):
            return list(columns[0])
        arrays = [
            _narrow_floats(_to_array(cells, column.missing, is_typed=self.signature.is_typed), self._float_type)
            for cells, column in zip(columns, self.columns, strict=True)
        ]
        for place in self._large_integer_places:
            arrays[place] = _to_integers(arrays[place])
        for place in self._object_places:
            arrays[place] = _to_objects(arrays[place], self.columns[place].missing)
        for place, column in enumerate(self.columns):
            if column.date_kind is not None:
                arrays[place] = parse_dates(arrays[place], column.date_kind, self.signature.features[place].name)
        if container is Container.DATAFRAME:
            frame = pd.DataFrame({place: pd.Series(array, dtype=array.dtype) for place, array in enumerate(arrays)})
            frame.columns = self._names
            return self._make_categories(frame)
        return self._stack_columns(arrays)

    def _stack_columns(self, arrays: list[NDArray[Any]]) -> NDArray[Any]:
        """Join columns to one array: of objects, of float64, or of integers where float64 would round one."""
        if any(array.dtype.kind == "O" for array in arrays):
            return np.column_stack([array.astype(object) for array in arrays])
        place = next((place for place, array in enumerate(arrays) if array.dtype.kind in "iu"), None)
        if place is None:
            return np.column_stack([array.astype(self._float_type) for array in arrays])
        flat = join_columns(arrays)
        if flat is None:
            name = self.signature.features[place].name
            large = next(value for value in arrays[place].tolist() if is_rounded(value))
            raise InvalidInput(
                f"feature '{name}': {describe_rounded(large)}; all features are one array for this model"
            )
        return flat.reshape(len(arrays), -1).T.copy()

    def _make_categories(self, frame: pd.DataFrame) -> pd.DataFrame:
        for place, column in enumerate(self.columns):
            if column.categories is not None:
                _set_column(frame, place, column.categories.convert(frame.iloc[:, place].to_numpy()))
        return frame


def _set_column(frame: pd.DataFrame, place: int, values: Any) -> None:
    if hasattr(frame, "isetitem"):
        frame.isetitem(place, values)
        return
    names, frame.columns = frame.columns, pd.RangeIndex(frame.shape[1])  # before pandas 1.5; names may be repeated
    frame[place] = values
    frame.columns = names


def _narrow_floats(array: NDArray[Any], floats: type[np.float64] | type[np.float32]) -> NDArray[Any]:
    """Return an array of float64 as `floats`; raises InvalidInput for numbers that do not fit."""
    if array.dtype != np.float64 or floats is np.float64:
        return array
    with np.errstate(over="ignore"):
        narrow = array.astype(floats)
    is_lost = np.isinf(narrow) & ~np.isinf(array)
    if is_lost.any():
        raise InvalidInput(f"the model takes numbers within float32, got {array[is_lost].flat[0]:g}")
    return narrow


def _has_rounded_integers(column: InputColumn) -> bool:
    """Say whether a column had integers in training that float64 cannot represent exactly."""
    return any(type(value) is int and abs(value) > EXACT for value in column.values)


def _to_objects(array: NDArray[Any], missing: float | None) -> NDArray[Any]:
    """Return numbers as objects, with `missing` in place of NaN."""
    objects = array.astype(object)
    if array.dtype.kind == "f":
        objects[np.isnan(array)] = missing
    return objects


def _to_integers(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of whole numbers as int64, so that they are compared as integers; every other array unchanged."""
    if array.dtype.kind != "f" or not (np.abs(array) < _END_OF_INT64).all() or (array != np.trunc(array)).any():
        return array
    return array.astype(np.int64)


def _is_foreign(part: Any) -> bool:
    return not is_from_sklearn(part) or (type(part).__name__ == "FunctionTransformer" and part.func is not None)


def _is_own_code(part: Any) -> bool:
    """Say whether the author's own code may read the rows: for that code 5 and 5.0 may differ."""
    is_ufunc = isinstance(getattr(part, "func", None), np.ufunc)
    return _is_foreign(part) and library_of(part) is None and not is_ufunc


def _takes_tables(part: Any) -> bool:
    return type(part).__name__ == "ColumnTransformer" or getattr(part, "_preprocessor", None) is not None


def _to_array(cells: Column, missing: float | None, *, is_typed: bool) -> NDArray[Any]:
    """Copy one column of a batch into an array; `missing` replaces null in a column of objects.

    Integers stay integers if `is_typed`, or if float64 would round one.
    """
    if isinstance(cells, np.ndarray):
        return np.array(cells)
    present = [cell for cell in cells if cell is not None]
    if len(present) < len(cells):
        cells = [missing if cell is None else cell for cell in cells]
    # a feature that takes any type may get numbers: code written for a number column fails on an object column
    kinds = set(map(type, present))
    if kinds and kinds <= {int, float} and (is_typed or has_rounded_cell(present)):
        integers = make_integer_column(cells)
        if integers is not None:
            return integers
    if kinds and kinds <= {int, float} and not has_rounded_cell(present):
        return np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64)
    if kinds == {bool} and len(present) == len(cells):
        return np.array(cells, dtype=np.bool_)
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    return array
