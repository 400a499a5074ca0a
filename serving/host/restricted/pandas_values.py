"""What each object of pandas in a file comes to: an array of its values, once all that its state says was checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serving.host.restricted.arrow_texts import ArrowType, read_texts

# what stays what it was: one value each
VALUES = (pd.Timestamp, pd.Timedelta, type(pd.NA), type(pd.NaT))
_PLAIN = (str, bytes, bool, int, float, complex, type(None), np.generic, tuple, *VALUES)
_MOST_ROWS = 1 << 16
# the units of times as NumPy numbers them
_UNITS: dict[Any, Any] = {7: "s", 8: "ms", 9: "us", 10: "ns"}


class Named:
    """Stands for a class or function of pandas or pyarrow in a file; cannot be called."""

    __slots__ = ("full_name",)

    def __init__(self, full_name: str) -> None:
        self.full_name = full_name


class Part:
    """Stands for an object of pandas until its state is there; then it is replaced by its values."""

    __slots__ = ("name", "place")

    def __init__(self, name: str, place: int) -> None:
        self.name = name
        self.place = place


class Categories:
    """A dtype of pandas that lists its values, None for the empty one."""

    __slots__ = ("values",)

    def __init__(self, values: NDArray[Any] | None = None) -> None:
        self.values = values


class Dtype:
    """Any other dtype of pandas: what it says shows in the values."""

    __slots__ = ()


def _require(is_so: bool) -> None:
    if not is_so:
        raise ValueError


# --- values -----------------------------------------------------------------------------------------------------------


def _column(values: Any) -> NDArray[Any]:
    """Return one column of plain values."""
    _require(type(values) is np.ndarray and values.ndim == 1 and values.dtype.kind in "OUSbiufcmM")
    if values.dtype.kind == "O":
        _require(all(isinstance(each, _PLAIN) for each in values.tolist()))
    return values  # type: ignore[no-any-return]


def _of_objects(values: list[Any]) -> NDArray[Any]:
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


def _take(values: NDArray[Any], codes: Any) -> NDArray[Any]:
    """Return a value for each code; -1 says that there is none."""
    _require(type(codes) is np.ndarray and codes.ndim == 1 and codes.dtype.kind == "i")
    _require(bool(np.all((codes >= -1) & (codes < len(values)))))
    if len(codes) and codes.min() >= 0:
        taken: NDArray[Any] = values[codes]
        return taken
    kept = values.tolist() if values.dtype.kind not in "mM" else list(values)
    return _of_objects([np.nan if code < 0 else kept[code] for code in codes.tolist()])


# --- calls ------------------------------------------------------------------------------------------------------------


def _index(kind: Any, parts: Any) -> NDArray[Any]:
    _require(isinstance(kind, Named) and type(parts) is dict)
    if kind.full_name == "RangeIndex":
        numbers = [parts[name] for name in ("start", "stop", "step")]
        _require(all(type(each) is int for each in numbers))
        found = range(*numbers)
        _require(len(found) <= _MOST_ROWS)
        return np.arange(found.start, found.stop, found.step, dtype=np.int64)
    if kind.full_name == "MultiIndex":
        levels, codes = parts["levels"], parts["codes"]
        _require(len(levels) == len(codes) > 0)
        columns = [_take(_column(level), code).tolist() for level, code in zip(levels, codes, strict=True)]
        return _of_objects(list(zip(*columns, strict=True)))
    _require(kind.full_name in _INDEXES and not set(parts) - {"data", "name", "freq", "dtype", "copy"})
    _require(parts.get("freq") is None)
    return _column(parts["data"])


def _backed(kind: Any, checksum: Any, state: Any) -> Part:
    _require(isinstance(kind, Named) and kind.full_name in STATES and type(checksum) is int and state is None)
    return Part(kind.full_name, -1)


def _categories(categories: Any = None, ordered: Any = False) -> Categories:
    _require(ordered in (None, True, False))
    return Categories(None if categories is None else _column(categories))


def _dtype(*arguments: Any) -> Dtype:
    _require(len(arguments) <= 2 and all(each is pd.NA or isinstance(each, (str, float)) for each in arguments))
    return Dtype()


def _timestamp(value: Any, freq: Any, zone: Any, unit: Any = 10) -> Any:
    _require(type(value) is int and freq is None and zone is None)
    return pd.Timestamp(np.datetime64(value, _UNITS[unit]))


def _timedelta(value: Any, unit: Any = 10) -> Any:
    _require(type(value) is int)
    return pd.Timedelta(np.timedelta64(value, _UNITS[unit]))


def _not_a_time(*arguments: Any) -> Any:
    _require(set(arguments) <= {None})
    return pd.NaT


def _buffer(content: Any) -> bytes | bytearray:
    _require(type(content) in (bytes, bytearray))
    return content  # type: ignore[no-any-return]


# --- states -----------------------------------------------------------------------------------------------------------


def _of_arrow(state: Any) -> NDArray[Any]:
    _require(isinstance(state["_dtype"], Dtype))
    return _column(state["_pa_array"])


def _numbers(state: Any) -> NDArray[Any]:
    """The state of an array of numbers or texts behind another: (dtype, array), and attributes that say no more."""
    parts = list(state.values()) if type(state) is dict else list(state)
    (found,) = [each for each in parts if type(each) is np.ndarray]
    return _column(found)


def _texts(state: Any) -> NDArray[Any]:
    found = _numbers(state)
    _require(found.dtype.kind == "O" and all(type(each) is str or pd.isna(each) for each in found.tolist()))
    return found


def _times(state: Any) -> NDArray[Any]:
    found = _numbers(state)
    _require(found.dtype.kind in "mM")
    return found


def _categorical(state: Any) -> NDArray[Any]:
    parts = list(state.values()) if type(state) is dict else list(state)
    (categories,) = [each.values for each in parts if isinstance(each, Categories)]
    return _take(_column(categories), _numbers(state))


def _masked(state: Any) -> NDArray[Any]:
    values, mask = _column(state["_data"]), _column(state["_mask"])
    _require(mask.dtype == np.bool_ and mask.shape == values.shape and values.dtype.kind in "biuf")
    if not mask.any():
        return values
    pairs = zip(values.tolist(), mask.tolist(), strict=True)
    return _of_objects([pd.NA if is_missing else value for value, is_missing in pairs])


def _category_dtype(state: Any) -> Categories:
    return _categories(state["categories"], state.get("ordered"))


def _plain_dtype(state: Any) -> Dtype:
    _require(type(state) is dict)
    return Dtype()


def _block(state: Any) -> NDArray[Any]:
    """The state of what a Series has its values in, which says everything twice."""
    (block,) = state[3]["0.14.1"]["blocks"]
    return _column(block["values"])


def _series(state: Any) -> NDArray[Any]:
    return _column(state["_mgr"])


_INDEXES = frozenset(
    {
        *("Index", "CategoricalIndex", "DatetimeIndex", "TimedeltaIndex"),
        *("Int64Index", "UInt64Index", "Float64Index"),  # until 1.5
    }
)
_NUMBER_DTYPES = frozenset(
    {
        *(f"{sign}Int{bits}Dtype" for sign in ("", "U") for bits in (8, 16, 32, 64)),
        *("Float32Dtype", "Float64Dtype", "BooleanDtype"),
    }
)
STATES: dict[str, Callable[[Any], Any]] = {
    "ArrowStringArray": _of_arrow,
    "StringArray": _texts,
    "Categorical": _categorical,
    "DatetimeArray": _times,
    "TimedeltaArray": _times,
    **dict.fromkeys(("IntegerArray", "FloatingArray", "BooleanArray"), _masked),
    "CategoricalDtype": _category_dtype,
    "StringDtype": _plain_dtype,
    **dict.fromkeys(_NUMBER_DTYPES, _plain_dtype),
    "SingleBlockManager": _block,
    "Series": _series,
}
CALLS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("_new_Index", "_new_DatetimeIndex", "_new_TimedeltaIndex"), _index),
    "__pyx_unpickle_NDArrayBacked": _backed,
    "CategoricalDtype": _categories,
    "StringDtype": _dtype,
    **dict.fromkeys(_NUMBER_DTYPES, _dtype),
    "_unpickle_timestamp": _timestamp,
    "_timedelta_unpickle": _timedelta,
    "_nat_unpickle": _not_a_time,
    "_restore_array": read_texts,
    "type_for_alias": ArrowType,
    "py_buffer": _buffer,
}
OF_ARROW = frozenset({"_restore_array", "type_for_alias", "py_buffer"})
OF_PANDAS = (STATES.keys() | CALLS.keys() | _INDEXES | {"RangeIndex", "MultiIndex"}) - OF_ARROW
