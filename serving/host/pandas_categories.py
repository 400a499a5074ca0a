"""Finds the pandas categories of the columns that an XGBoost or LightGBM model was fitted on.

Both libraries identify a category by its position only, and refuse a table whose categorical column is text or numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving import json_codec
from serving.host import boosters
from serving.host.optional_pandas import pandas as pd

MAX_SHOWN = 5

_CATEGORICAL_FEATURES = re.compile(r"^\[categorical_feature: ([\d,]+)\]", re.MULTILINE)
_FEATURE_INFOS = re.compile(r"^feature_infos=(.*)$", re.MULTILINE)
_RANGE = re.compile(r"\[(\d+):(\d+)\]")
_COLUMNS_UNKNOWN = (
    "LightGBM's model does not tell which columns its pandas categories belong to, because some are ordered or not in "
    "categorical_feature: train it again with unordered categories only, and with all of them in categorical_feature"
)
_CATEGORIES_LOST = (
    "XGBoost kept no categories for the categorical columns of its table (it does since 3.1, but not in slices): "
    "train it again with XGBoost 3.1 or newer, or on an array if the columns contain numbers of categories"
)
_CATEGORIES_CUT_OFF = (
    "XGBoost cuts off categories that are not plain ASCII when it saves them, so the model does not contain them: "
    "train it again with ASCII texts or integers for categories"
)

# `type` of an array of numbers in XGBoost's JSON: Value::ValueKind in include/xgboost/json.h
_XGBOOST_TYPES = dict(enumerate(("f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), start=7))


@dataclass(frozen=True, slots=True)
class Categories:
    """The values of one categorical column, in the order of their positions.

    `takes_others` says that any other value counts as missing, as in LightGBM. XGBoost is meant to refuse other values,
    but 3.2 takes an unknown text for the next one in the alphabet, if there is one: so they are refused here.
    """

    values: pd.Index[Any]
    takes_others: bool

    def convert(self, cells: NDArray[Any]) -> pd.Categorical:
        """Convert a column of plain values to categories; raises ValueError for values that the model does not take."""
        converted = pd.Categorical(cells, categories=self.values)
        is_other = (converted.codes < 0) & ~pd.isna(cells)
        if is_other.any() and not self.takes_others:
            known = ", ".join(map(repr, self.values[:MAX_SHOWN].tolist()))
            known += ", ..." if len(self.values) > MAX_SHOWN else ""
            other = cells[is_other].tolist()[0]
            shown = int(other) if isinstance(other, float) and other.is_integer() else other
            raise ValueError(f"{shown!r} is not among the categories of the training ({known})")
        return converted


def categories_of(part: Any) -> dict[int, Categories]:
    """Return the categories of each categorical column of a fitted estimator of either library, by column position.

    Empty for other estimators, for tables of numbers, and where the model lost them: see `why_categories_lost`.
    """
    library = boosters.library_of(part)
    if library == boosters.LIGHTGBM:
        return _read_lightgbm_categories(part.booster_)
    return _read_xgboost_categories(part.get_booster()) if library == boosters.XGBOOST else {}


def why_categories_lost(part: Any) -> str | None:
    """Return why the categories that an estimator was trained with cannot be found out, None where they can.

    Without them the model would take only the positions of categories, and no row with the categories themselves.
    Columns of an array contain positions; no column of a table has XGBoost's type ``q``.
    """
    try:
        return _why_lost(part, boosters.library_of(part))
    except Exception:  # noqa: BLE001  (not fitted, or unexpected attributes: this shows when the model answers)
        return None


def _why_lost(part: Any, library: str | None) -> str | None:
    if library == boosters.LIGHTGBM:
        return None if categories_of(part) or not part.booster_.pandas_categorical else _COLUMNS_UNKNOWN
    if library != boosters.XGBOOST:
        return None
    booster = part.get_booster()
    types = booster.feature_types or ()
    is_of_table = "c" in types and "q" not in types and booster.feature_names is not None
    if not is_of_table or _read_xgboost_categories(booster):
        return None
    return _CATEGORIES_CUT_OFF if _read_encodings(booster) else _CATEGORIES_LOST


# --- LightGBM ---------------------------------------------------------------------------------------------------------


def _read_lightgbm_categories(booster: Any) -> dict[int, Categories]:
    values = [pd.Index(each) for each in booster.pandas_categorical or []]
    text = booster.model_to_string(num_iteration=1) if values else ""
    seen, listed = _FEATURE_INFOS.search(text), _CATEGORICAL_FEATURES.search(text)
    if seen is None:
        return {}
    places = assign_columns(
        values, seen[1].split(), {int(place) for place in listed[1].split(",")} if listed else set()
    )
    return {place: Categories(each, takes_others=True) for place, each in zip(places, values, strict=False)}


def assign_columns(values: list[pd.Index[Any]], seen: list[str], listed: set[int]) -> list[int]:
    """Return the column of each list of values, empty where it is not certain. The lists are in the columns' order.

    `seen` describes each column in the training: ``2:0:1`` for positions of categories, ``[0:2]`` for numbers, which
    include ordered categories, and ``none`` for an unused column. `listed` are the categorical columns, by default
    those with unordered categories. Where several columns fit the lists, the range of a column of numbers must be
    exactly the positions of its categories. Then a wrong column is noticed, because the categories are texts.
    """
    for required, fits in ((listed, _may_hold), (listed, _may_hold_exactly), (set(), _may_hold)):
        may_hold = [[fits(info, len(each)) for info in seen] for each in values]
        places, is_only = _assign_in_order(may_hold, len(seen), required)
        are_texts = all(isinstance(value, str) for each in values for value in each)
        if is_only and (fits is _may_hold or are_texts):
            return places
        if places and not are_texts:
            return []
    return []


def _assign_in_order(may_hold: list[list[bool]], columns: int, required: set[int]) -> tuple[list[int], bool]:
    """Assign an increasing column to each list, such that all `required` ones are used; say if this is the only way.

    `may_hold` says for each list which columns may hold it. Returns an empty list and False where there is no way.
    """
    lists = len(may_hold)
    ways = [[0] * (lists + 1) for _ in range(columns + 1)]
    ways[columns][lists] = 1
    for column in range(columns - 1, -1, -1):
        for each in range(lists + 1):
            left_out = 0 if column in required else ways[column + 1][each]
            taken = ways[column + 1][each + 1] if each < lists and may_hold[each][column] else 0
            ways[column][each] = min(2, left_out + taken)
    places: list[int] = []
    for column in range(columns if ways[0][0] else 0):
        each = len(places)
        if each < lists and may_hold[each][column] and ways[column + 1][each + 1]:
            places.append(column)
    return places, ways[0][0] == 1


def _may_hold(info: str, count: int) -> bool:
    """Say whether `info`, a column in the training, can be positions of `count` categories, as such or as numbers."""
    numbers = _RANGE.fullmatch(info)
    if numbers is not None:
        return int(numbers[2]) < count
    return info == "none" or ("[" not in info and all(int(code) < count for code in info.split(":")))


def _may_hold_exactly(info: str, count: int) -> bool:
    """Say the same as `_may_hold`, but numbers must have exactly the range of the positions."""
    return _may_hold(info, count) and ("[" not in info or info == f"[0:{count - 1}]")


# --- XGBoost ----------------------------------------------------------------------------------------------------------


def _read_xgboost_categories(booster: Any) -> dict[int, Categories]:
    found = {place: _decode_values(encoding) for place, encoding in enumerate(_read_encodings(booster))}
    known = {place: Categories(index, takes_others=False) for place, index in found.items() if index is not None}
    return {} if len(known) < len(found) else {place: each for place, each in known.items() if len(each.values)}


def _read_encodings(booster: Any) -> list[dict[str, Any]]:
    """Return the categories of each column as the model stores them: none in slices, and none before 3.1."""
    if "c" not in (booster.feature_types or ()):
        return []
    forest = json_codec.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    return list(forest.get("gbtree", forest)["model"].get("cats", {}).get("enc", []))


def _decode_values(encoding: dict[str, Any]) -> pd.Index[Any] | None:
    """Return the values of one column, None where they were damaged.

    XGBoost's Python package counts characters instead of bytes, and so cuts off texts that are not ASCII.
    """
    values = encoding["values"]
    if "type" in encoding:
        numbers: pd.Index[Any] = pd.Index(np.array(values, dtype=_XGBOOST_TYPES[encoding["type"]]))
        return numbers
    raw = np.array(values, dtype=np.int8).tobytes()
    if not raw.isascii():
        return None
    return pd.Index([raw[start:end].decode() for start, end in pairwise(encoding["offsets"])])
