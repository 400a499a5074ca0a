"""Converts the return values of estimators to plain tensors."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from serving.domain.errors import InvalidInput, ModelFailed
from serving.rows.batch import Prediction, Tensor

MAX_DENSE_BYTES = 256 << 20

_PLAIN_KINDS = "biuf"
_PLAIN_TYPES = (str, bool, int, float, type(None))


def to_prediction(answer: Any, rows: int) -> Prediction:
    """Convert what a method returned for `rows` rows to tensors.

    Numeric and bool arrays stay unchanged. Sparse matrices become dense arrays, DataFrames and Series become arrays.
    Labels and other objects become lists of str, int, float, bool, None and dicts of these. A list of two-dimensional
    arrays (one for each output) becomes several tensors, a dict of columns becomes one dict for each row. Raises
    ModelFailed when the answer does not have one entry for each row, InvalidInput when a sparse answer would be too
    large as a dense array.
    """
    if isinstance(answer, dict):
        answer = _split_into_rows(answer, rows)
    if isinstance(answer, (list, tuple)) and _has_one_array_per_output(answer, rows):
        tensors = tuple(_to_tensor(part, rows) for part in answer)
    else:
        tensors = (_to_tensor(answer, rows),)
    for tensor in tensors:
        if len(tensor) != rows:
            raise ModelFailed(f"the model gave {len(tensor)} answers for {rows} rows")
    return Prediction(tensors)


def to_plain_value(value: Any) -> Any:
    """Return a value as str, bool, int, float or None.

    Arrays become lists, and the keys of dicts become text. Dates and times become text in the form of ISO 8601; every
    other object becomes its text.
    """
    if isinstance(value, np.generic):
        value = value.item() if value.dtype.kind in _PLAIN_KINDS + "US" else str(value)
    elif isinstance(value, np.ndarray):
        return [to_plain_value(item) for item in value.tolist()]
    elif isinstance(value, (list, tuple)):
        return [to_plain_value(item) for item in value]
    elif isinstance(value, dict):
        return {str(to_plain_value(key)): to_plain_value(item) for key, item in value.items()}
    elif isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()  # a datetime is a date
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, _PLAIN_TYPES) else str(value)


def is_finite(tensor: Tensor) -> NDArray[np.bool_]:
    """Say for each row of a tensor whether all its numbers are finite; NaN and None are not, text is."""
    if isinstance(tensor, np.ndarray):
        if tensor.dtype.kind != "f" or tensor.size == 0:
            return np.ones(len(tensor), dtype=np.bool_)
        return np.asarray(np.isfinite(tensor.reshape(len(tensor), -1)).all(axis=1), dtype=np.bool_)
    return np.array([_is_finite_value(value) for value in tensor], dtype=np.bool_)


def fill_gaps(method: str, tensor: Tensor) -> Tensor:
    """Replace NaN and None in an answer of ``transform`` to rows with nulls by 0; return other answers unchanged.

    Scalers, for example, give NaN in a column where null was sent. NaN from any other method is not a valid answer.
    """
    if method != "transform":
        return tensor
    if isinstance(tensor, np.ndarray):
        return np.nan_to_num(tensor, nan=0.0, posinf=np.inf, neginf=-np.inf) if tensor.dtype.kind == "f" else tensor
    return [_fill_gap(value) for value in tensor]


def _split_into_rows(answer: dict[Any, Any], rows: int) -> list[dict[Any, Any]]:
    """Return one dict for each row from a dict of columns; for a single row the dict may be the row itself."""
    columns = {name: _list_cells(value) for name, value in answer.items()}
    if columns and all(column is not None and len(column) == rows for column in columns.values()):
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    if rows == 1:
        return [answer]
    raise ModelFailed(f"the model gave one dict for {rows} rows, without {rows} values under each of its keys")


def _list_cells(value: Any) -> list[Any] | None:
    listed = value.tolist() if hasattr(value, "tolist") else value
    return list(listed) if isinstance(listed, (list, tuple)) else None


def _has_one_array_per_output(answer: list[Any] | tuple[Any, ...], rows: int) -> bool:
    return bool(answer) and all(
        isinstance(part, np.ndarray) and part.ndim == 2 and len(part) == rows for part in answer
    )


def _to_tensor(answer: Any, rows: int) -> Tensor:
    if scipy.sparse.issparse(answer):
        answer = _to_dense_array(answer, rows)
    elif not isinstance(answer, np.ndarray):
        answer = answer.to_numpy() if hasattr(answer, "to_numpy") else np.asarray(answer)
    if isinstance(answer, np.ma.MaskedArray):
        answer = answer.filled(np.nan) if answer.dtype.kind == "f" else np.asarray(answer)
    array = np.asarray(answer)  # a matrix or another subclass becomes an array
    if array.ndim == 0:
        raise ModelFailed(f"the model gave a single value for {rows} rows")
    if rows == 1 and array.ndim == 1 and len(array) != 1:
        array = array.reshape(1, -1)  # SparsePCA returns a single row without its first dimension
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    if array.dtype.kind in _PLAIN_KINDS:
        return array
    if array.dtype.kind in "mM":
        return list(np.datetime_as_string(array).tolist() if array.dtype.kind == "M" else array.astype(str).tolist())
    if array.dtype.kind in "US":
        return list(array.astype(str).tolist())
    if array.dtype.kind == "O":
        return _to_plain_list(array)
    raise ModelFailed(f"the model gave values of type {array.dtype}, which JSON cannot carry")


def _to_plain_list(array: NDArray[Any]) -> Tensor:
    values = array.tolist()
    if array.ndim == 1 and set(map(type, values)) <= {str}:
        return list(values)
    return [to_plain_value(value) for value in values]


def _to_dense_array(answer: Any, rows: int) -> NDArray[Any]:
    nbytes = math.prod(answer.shape) * answer.dtype.itemsize
    if nbytes <= MAX_DENSE_BYTES:
        dense: NDArray[Any] = answer.toarray()
        return dense
    size = f"{nbytes >> 20} MB as a dense array, at most {MAX_DENSE_BYTES >> 20} MB can be answered"
    if rows > 1:
        raise InvalidInput(f"the answer for {rows} rows would take {size}: send fewer rows")
    raise ModelFailed(f"the answer for one row would take {size}")


def _fill_gap(value: Any) -> Any:
    if isinstance(value, list):
        return [_fill_gap(item) for item in value]
    return 0 if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _is_finite_value(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_finite_value, value))
    if isinstance(value, dict):  # null is an ordinary value in an object
        return all(item is None or _is_finite_value(item) for item in value.values())
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
