"""Makes real objects of pandas from values that were read and checked, for classes that the operator trusts.

A trusted class calls its Series and tables: an encoder of category_encoders maps a column by one. It gets real ones.
They are made by the public constructors of pandas, which check lengths, codes and labels, and never from raw parts.
Owners of all other classes keep the arrays of `pandas_values`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.host.optional_pandas import HAS_PANDAS
from serving.host.optional_pandas import pandas as pd
from serving.host.restricted.pandas_values import (
    NUMBER_DTYPES,
    VALUES,
    CategoryDtype,
    PandasGlobal,
    PlainDtype,
    require,
)

# what trusted classes get; no other class may hold one
OBJECTS = (pd.Series, pd.DataFrame, pd.Index, *([pd.api.extensions.ExtensionArray] if HAS_PANDAS else []))
# returns the real object that belongs to what was read, or what was read itself where it was no object of pandas
FindObject = Callable[[Any], Any]

_NUMBERS = (bool, int, float, complex, np.number, np.bool_, np.datetime64, np.timedelta64)
_SCALARS = (*_NUMBERS, str, bytes, type(None), np.str_, np.bytes_, *VALUES)
_STORAGES = frozenset({"python", "pyarrow", "pyarrow_numpy"})


# --- parts ------------------------------------------------------------------------------------------------------------


def require_label(label: Any) -> Any:
    """Return `label` if it is a plain value, or a tuple of plain values as a MultiIndex has it."""
    require(all(isinstance(each, _SCALARS) for each in label) if type(label) is tuple else isinstance(label, _SCALARS))
    return label


def require_values(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "O":
        for each in values.ravel().tolist():
            require_label(each)
    return values


def find_values(values: Any, find: FindObject) -> Any:
    """Return the array of pandas that belongs to `values`, or `values` itself if it is an array of NumPy."""
    found = find(values)
    return require_values(found) if found is values else found


def _find_dtype(parts: Any, kind: type, find: FindObject) -> Any:
    parts = list(parts.values()) if type(parts) is dict else list(parts)
    (found,) = [each for each in parts if isinstance(each, kind)]
    return find(found)


# --- arrays and dtypes ------------------------------------------------------------------------------------------------


def _make_texts(values: Any, state: Any, find: FindObject) -> Any:
    return pd.array(require_values(values), dtype=_find_dtype(state, PlainDtype, find))


def _make_old_texts(values: Any, state: Any, find: FindObject) -> Any:
    """Make a StringArray, which kept no dtype before pandas 1.3, or an instance that says nothing."""
    parts = state.values() if type(state) is dict else state
    has_dtype = any(isinstance(each, PlainDtype) for each in parts)
    return _make_texts(values, state, find) if has_dtype else pd.array(require_values(values), dtype="string")


def _make_masked(_: Any, state: Any, __: FindObject) -> Any:
    kind = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}.get(state["_data"].dtype.kind)
    return (kind or pd.arrays.IntegerArray)(state["_data"].copy(), state["_mask"].copy())


def _make_times(values: Any, _: Any, __: FindObject) -> Any:
    return pd.array(values)


def _make_categorical(_: Any, state: Any, find: FindObject) -> Any:
    parts = list(state.values()) if type(state) is dict else list(state)
    (codes,) = [each for each in parts if type(each) is np.ndarray]
    return pd.Categorical.from_codes(codes, dtype=_find_dtype(state, CategoryDtype, find))


def _make_category_dtype(_: Any, state: Any, find: FindObject) -> Any:
    categories, ordered = (state["categories"], state["ordered"]) if type(state) is dict else (*state, None, False)[:2]
    return pd.CategoricalDtype(None if categories is None else find(categories), ordered)


def _make_string_dtype(_: Any, parts: Any, __: FindObject) -> Any:
    storage, *missing = [parts["storage"]] if type(parts) is dict else parts
    require(storage in _STORAGES and all(each is pd.NA or type(each) is float for each in missing))
    return pd.StringDtype(storage, *missing)


def _make_number_dtype(name: str) -> Callable[[Any, Any, FindObject], Any]:
    return lambda *_: make_without_state(name)


def make_without_state(name: str) -> Any:
    """Return an object of a class whose objects may have no state: a dtype of numbers. Raises ValueError for others."""
    require(name in NUMBER_DTYPES)
    return getattr(pd, name)()


# --- indexes and columns ----------------------------------------------------------------------------------------------


def _make_index(_: Any, arguments: Any, find: FindObject) -> Any:
    kind, parts = arguments
    assert isinstance(kind, PandasGlobal)
    if kind.full_name == "MultiIndex":
        levels = [find(level) for level in parts["levels"]]
        require(all(isinstance(level, pd.Index) for level in levels))
        names = [require_label(name) for name in parts["names"]]
        return pd.MultiIndex(levels=levels, codes=list(parts["codes"]), names=names)
    name = require_label(parts.get("name"))
    if kind.full_name == "RangeIndex":
        return pd.RangeIndex(parts["start"], parts["stop"], parts["step"], name=name)
    data = find_values(parts["data"], find)
    return pd.Index(data, dtype=data.dtype, name=name, tupleize_cols=False)


def make_column(values: Any, index: Any, name: Any = None) -> Any:
    require(isinstance(index, pd.Index) and len(values) == len(index))
    return pd.Series(values, index=index, dtype=values.dtype, name=name)


def _make_block_of_series(_: Any, state: Any, find: FindObject) -> Any:
    ((block,), (index,)) = (state[3]["0.14.1"][part] for part in ("blocks", "axes"))
    return make_column(find_values(block["values"], find), find(index))


def _make_series(_: Any, state: Any, find: FindObject) -> Any:
    column = find(state["_mgr"])
    require(isinstance(column, pd.Series))
    return column.rename(require_label(state["_name"] if "_name" in state else state.get("name")))


MAKERS: dict[str, Callable[[Any, Any, FindObject], Any]] = {
    "ArrowStringArray": _make_texts,
    "StringArray": _make_old_texts,
    **dict.fromkeys(("IntegerArray", "FloatingArray", "BooleanArray"), _make_masked),
    **dict.fromkeys(("DatetimeArray", "TimedeltaArray"), _make_times),
    "Categorical": _make_categorical,
    "CategoricalDtype": _make_category_dtype,
    "StringDtype": _make_string_dtype,
    **{name: _make_number_dtype(name) for name in NUMBER_DTYPES},
    **dict.fromkeys(("_new_Index", "_new_DatetimeIndex", "_new_TimedeltaIndex"), _make_index),
    "SingleBlockManager": _make_block_of_series,
    "Series": _make_series,
}
