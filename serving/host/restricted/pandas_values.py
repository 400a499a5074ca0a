"""Reads the values of each kind of pandas object from its state, after checking all of the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.host.optional_pandas import pandas as pd
from serving.host.restricted.arrow_texts import ArrowType, read_texts

# single values, which keep their type
VALUES = (pd.Timestamp, pd.Timedelta, type(pd.NA), type(pd.NaT))
_PLAIN = (str, bytes, bool, int, float, complex, type(None), np.generic, tuple, *VALUES)
_MOST_ROWS = 1 << 16
# limit of the values and characters that all parts of one file become together
MOST_VALUES = 1 << 24
# NumPy's numbers of the units of times
_UNITS: dict[Any, Any] = {7: "s", 8: "ms", 9: "us", 10: "ns"}


class PandasGlobal:
    """Replaces a class or function of pandas or pyarrow in a file; cannot be called."""

    __slots__ = ("full_name",)

    def __init__(self, full_name: str) -> None:
        self.full_name = full_name


class PandasPart:
    """Replaces an object of pandas until its state is read; then its values replace it."""

    __slots__ = ("name", "place")

    def __init__(self, name: str, place: int) -> None:
        self.name = name
        self.place = place


class CategoryDtype:
    """A dtype of pandas that lists its categories; `values` is None if it has none."""

    __slots__ = ("values",)

    def __init__(self, values: NDArray[Any] | None = None) -> None:
        self.values = values


class PlainDtype:
    """Any other dtype of pandas: the values tell the rest."""

    __slots__ = ()


def require(is_so: bool) -> None:
    if not is_so:
        raise ValueError


# --- values -----------------------------------------------------------------------------------------------------------


def _require_column(values: Any) -> NDArray[Any]:
    """Return `values` if they are one column of plain values."""
    require(type(values) is np.ndarray and values.ndim == 1 and values.dtype.kind in "OUSbiufcmM")
    if values.dtype.kind == "O":
        require(all(isinstance(each, _PLAIN) for each in values.tolist()))
    return values  # type: ignore[no-any-return]


def _make_object_array(values: list[Any]) -> NDArray[Any]:
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


def _take_values(values: NDArray[Any], codes: Any) -> NDArray[Any]:
    """Return a value for each code; -1 means a missing value."""
    require(type(codes) is np.ndarray and codes.ndim == 1 and codes.dtype.kind == "i")
    require(bool(np.all((codes >= -1) & (codes < len(values)))))
    if len(codes) and codes.min() >= 0:
        taken: NDArray[Any] = values[codes]
        return taken
    kept = values.tolist() if values.dtype.kind not in "mM" else list(values)
    return _make_object_array([np.nan if code < 0 else kept[code] for code in codes.tolist()])


# --- calls ------------------------------------------------------------------------------------------------------------


def _read_index(kind: Any, parts: Any) -> NDArray[Any]:
    require(isinstance(kind, PandasGlobal) and type(parts) is dict)
    if kind.full_name == "RangeIndex":
        numbers = [parts[name] for name in ("start", "stop", "step")]
        require(all(type(each) is int for each in numbers))
        found = range(*numbers)
        require(len(found) <= _MOST_ROWS)
        return np.arange(found.start, found.stop, found.step, dtype=np.int64)
    if kind.full_name == "MultiIndex":
        levels, codes = parts["levels"], parts["codes"]
        require(len(levels) == len(codes) > 0)
        columns = [
            _take_values(_require_column(level), code).tolist() for level, code in zip(levels, codes, strict=True)
        ]
        return _make_object_array(list(zip(*columns, strict=True)))
    require(kind.full_name in _INDEXES and not set(parts) - {"data", "name", "freq", "dtype", "copy"})
    require(parts.get("freq") is None)
    return _require_column(parts["data"])


def _start_backed_array(kind: Any, checksum: Any, state: Any) -> PandasPart:
    require(isinstance(kind, PandasGlobal) and kind.full_name in STATES and type(checksum) is int and state is None)
    return PandasPart(kind.full_name, -1)


def _read_categories(categories: Any = None, ordered: Any = False) -> CategoryDtype:
    require(ordered in (None, True, False))
    return CategoryDtype(None if categories is None else _require_column(categories))


def _read_dtype(*arguments: Any) -> PlainDtype:
    require(len(arguments) <= 2 and all(each is pd.NA or isinstance(each, (str, float)) for each in arguments))
    return PlainDtype()


def _make_timestamp(value: Any, freq: Any, zone: Any, unit: Any = 10) -> Any:
    require(type(value) is int and freq is None and zone is None)
    return pd.Timestamp(np.datetime64(value, _UNITS[unit]))


def _make_timedelta(value: Any, unit: Any = 10) -> Any:
    require(type(value) is int)
    return pd.Timedelta(np.timedelta64(value, _UNITS[unit]))


def _make_not_a_time(*arguments: Any) -> Any:
    require(set(arguments) <= {None})
    return pd.NaT


def _read_buffer(content: Any) -> bytes | bytearray:
    require(type(content) in (bytes, bytearray))
    return content  # type: ignore[no-any-return]


# --- states -----------------------------------------------------------------------------------------------------------


def _read_arrow_strings(state: Any) -> NDArray[Any]:
    require(isinstance(state["_dtype"], PlainDtype))
    return _require_column(state["_pa_array"])


def _read_numbers(state: Any) -> NDArray[Any]:
    """Return the array in the state of an array that wraps another: (dtype, array), and attributes that add nothing."""
    parts = list(state.values()) if type(state) is dict else list(state)
    (found,) = [each for each in parts if type(each) is np.ndarray]
    return _require_column(found)


def _read_text_array(state: Any) -> NDArray[Any]:
    found = _read_numbers(state)
    require(found.dtype.kind == "O" and all(type(each) is str or pd.isna(each) for each in found.tolist()))
    return found


def _read_times(state: Any) -> NDArray[Any]:
    found = _read_numbers(state)
    require(found.dtype.kind in "mM")
    return found


def _read_categorical(state: Any) -> NDArray[Any]:
    parts = list(state.values()) if type(state) is dict else list(state)
    (categories,) = [each.values for each in parts if isinstance(each, CategoryDtype)]
    return _take_values(_require_column(categories), _read_numbers(state))


def _read_masked(state: Any) -> NDArray[Any]:
    values, mask = _require_column(state["_data"]), _require_column(state["_mask"])
    require(mask.dtype == np.bool_ and mask.shape == values.shape and values.dtype.kind in "biuf")
    if not mask.any():
        return values
    pairs = zip(values.tolist(), mask.tolist(), strict=True)
    return _make_object_array([pd.NA if is_missing else value for value, is_missing in pairs])


def _read_category_dtype(state: Any) -> CategoryDtype:
    return _read_categories(state["categories"], state.get("ordered"))


def _read_plain_dtype(state: Any) -> PlainDtype:
    require(type(state) is dict)
    return PlainDtype()


def _read_block(state: Any) -> NDArray[Any]:
    """Return the values in the state of a Series' block manager, which has everything twice."""
    (block,) = state[3]["0.14.1"]["blocks"]
    return _require_column(block["values"])


def _read_series(state: Any) -> NDArray[Any]:
    return _require_column(state["_mgr"])


_INDEXES = frozenset(
    {
        *("Index", "CategoricalIndex", "DatetimeIndex", "TimedeltaIndex"),
        *("Int64Index", "UInt64Index", "Float64Index"),  # until 1.5
    }
)
NUMBER_DTYPES = frozenset(
    {
        *(f"{sign}Int{bits}Dtype" for sign in ("", "U") for bits in (8, 16, 32, 64)),
        *("Float32Dtype", "Float64Dtype", "BooleanDtype"),
    }
)
STATES: dict[str, Callable[[Any], Any]] = {
    "ArrowStringArray": _read_arrow_strings,
    "StringArray": _read_text_array,
    "Categorical": _read_categorical,
    "DatetimeArray": _read_times,
    "TimedeltaArray": _read_times,
    **dict.fromkeys(("IntegerArray", "FloatingArray", "BooleanArray"), _read_masked),
    "CategoricalDtype": _read_category_dtype,
    "StringDtype": _read_plain_dtype,
    **dict.fromkeys(NUMBER_DTYPES, _read_plain_dtype),
    "SingleBlockManager": _read_block,
    "Series": _read_series,
}
CALLS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("_new_Index", "_new_DatetimeIndex", "_new_TimedeltaIndex"), _read_index),
    "__pyx_unpickle_NDArrayBacked": _start_backed_array,
    "CategoricalDtype": _read_categories,
    "StringDtype": _read_dtype,
    **dict.fromkeys(NUMBER_DTYPES, _read_dtype),
    "_unpickle_timestamp": _make_timestamp,
    "_timedelta_unpickle": _make_timedelta,
    "_nat_unpickle": _make_not_a_time,
    "_restore_array": read_texts,
    "type_for_alias": ArrowType,
    "py_buffer": _read_buffer,
}
OF_ARROW = frozenset({"_restore_array", "type_for_alias", "py_buffer"})
OF_PANDAS = (STATES.keys() | CALLS.keys() | _INDEXES | {"RangeIndex", "MultiIndex"}) - OF_ARROW
