"""The columns of a table that XGBoost or LightGBM was fitted on as pandas categories, with the values of each.

Both know the values by their places only, and answer no table in which such a column is plain text or numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray

from serving.host import boosters

MOST_SHOWN = 5

_LISTED = re.compile(r"^\[categorical_feature: ([\d,]+)\]", re.MULTILINE)
_SEEN = re.compile(r"^feature_infos=(.*)$", re.MULTILINE)
_RANGE = re.compile(r"\[(\d+):(\d+)\]")
_NOT_TOLD = (
    "LightGBM's model does not tell which columns its pandas categories belong to, as some are ordered or not in "
    "categorical_feature: train it again with unordered categories, all of them categorical features"
)
_NOT_KEPT = (
    "XGBoost kept no categories for the categorical columns of its table, which it does since 3.1 but not in slices: "
    "train it again with XGBoost 3.1 or newer, or on an array if the columns held numbers of categories"
)
_CUT_OFF = (
    "XGBoost cuts off categories that are not plain ASCII when it keeps them, so the model does not tell them: "
    "train it again with ASCII texts or integers for categories"
)

# `type` of an array of numbers in XGBoost's JSON: Value::ValueKind in include/xgboost/json.h
_XGBOOST_TYPES = dict(enumerate(("f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), start=7))


@dataclass(frozen=True, slots=True)
class Categories:
    """The values of one categorical column, in the order of their places.

    `takes_others` says that any other value is answered like a missing one, as LightGBM does. XGBoost means to refuse
    it, but 3.2 answers a text like the one that follows it in the alphabet, if there is one: it is refused here.
    """

    values: pd.Index[Any]
    takes_others: bool

    def convert(self, cells: NDArray[Any]) -> pd.Categorical:
        """Return a column of plain values as categories; raises ValueError for values that are not taken."""
        converted = pd.Categorical(cells, categories=self.values)
        is_other = (converted.codes < 0) & ~pd.isna(cells)
        if is_other.any() and not self.takes_others:
            known = ", ".join(map(repr, self.values[:MOST_SHOWN].tolist()))
            known += ", ..." if len(self.values) > MOST_SHOWN else ""
            other = cells[is_other].tolist()[0]
            shown = int(other) if isinstance(other, float) and other.is_integer() else other
            raise ValueError(f"{shown!r} is not among the categories of the training ({known})")
        return converted


def categories_of(part: Any) -> dict[int, Categories]:
    """Return the categories of each categorical column of a fitted estimator of either library, by its position.

    Empty for other estimators, for tables of numbers, and where `why_not_known` says why the model does not tell.
    """
    library = boosters.library_of(part)
    if library == boosters.LIGHTGBM:
        return _lightgbm_categories(part.booster_)
    return _xgboost_categories(part.get_booster()) if library == boosters.XGBOOST else {}


def why_not_known(part: Any) -> str | None:
    """Say why it cannot be told which values a categorical column of an estimator had in training, None where it can.

    The numbers of the categories would be answered, and no row that holds the categories themselves. Columns of an
    array hold the numbers; a table's types never are XGBoost's ``q``.
    """
    try:
        return _why_not_known(part, boosters.library_of(part))
    except Exception:  # noqa: BLE001  (one that is not fitted, or anything in its attributes: it will show)
        return None


def _why_not_known(part: Any, library: str | None) -> str | None:
    if library == boosters.LIGHTGBM:
        return None if categories_of(part) or not part.booster_.pandas_categorical else _NOT_TOLD
    if library != boosters.XGBOOST:
        return None
    booster = part.get_booster()
    types = booster.feature_types or ()
    is_of_table = "c" in types and "q" not in types and booster.feature_names is not None
    if not is_of_table or _xgboost_categories(booster):
        return None
    return _CUT_OFF if _encodings(booster) else _NOT_KEPT


# --- LightGBM ---------------------------------------------------------------------------------------------------------


def _lightgbm_categories(booster: Any) -> dict[int, Categories]:
    values = [pd.Index(each) for each in booster.pandas_categorical or []]
    text = booster.model_to_string(num_iteration=1) if values else ""
    seen, listed = _SEEN.search(text), _LISTED.search(text)
    if seen is None:
        return {}
    places = places_of(values, seen[1].split(), {int(place) for place in listed[1].split(",")} if listed else set())
    return {place: Categories(each, takes_others=True) for place, each in zip(places, values, strict=False)}


def places_of(values: list[pd.Index[Any]], seen: list[str], listed: set[int]) -> list[int]:
    """Return the column of each list of values, which are in the order of the columns; empty where it is not clear.

    `seen` is what each column was in the training: ``2:0:1`` for places of categories, ``[0:2]`` for numbers, which
    ordered categories are, ``none`` where it was of no use. `listed` columns are the categorical ones, by default those
    of unordered categories. Where several columns would do for ordered ones, the range of each must be its own; a wrong
    column is noticed then, since it takes texts.
    """
    for required, fits in ((listed, _fits), (listed, _fits_exactly), (set(), _fits)):
        may_hold = [[fits(info, len(each)) for info in seen] for each in values]
        places, is_only = _in_order(may_hold, len(seen), required)
        are_texts = all(isinstance(value, str) for each in values for value in each)
        if is_only and (fits is _fits or are_texts):
            return places
        if places and not are_texts:
            return []
    return []


def _in_order(may_hold: list[list[bool]], columns: int, required: set[int]) -> tuple[list[int], bool]:
    """Return an increasing column for each list that may hold it, with all `required`, and whether no other way is.

    Empty, and False, where there is no way.
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


def _fits(info: str, count: int) -> bool:
    """Say whether what a column was in training are places among `count` categories, as categories or as numbers."""
    numbers = _RANGE.fullmatch(info)
    if numbers is not None:
        return int(numbers[2]) < count
    return info == "none" or ("[" not in info and all(int(code) < count for code in info.split(":")))


def _fits_exactly(info: str, count: int) -> bool:
    """Say the same, but numbers must be all places among the categories."""
    return _fits(info, count) and ("[" not in info or info == f"[0:{count - 1}]")


# --- XGBoost ----------------------------------------------------------------------------------------------------------


def _xgboost_categories(booster: Any) -> dict[int, Categories]:
    found = {place: _decode(encoding) for place, encoding in enumerate(_encodings(booster))}
    known = {place: Categories(index, takes_others=False) for place, index in found.items() if index is not None}
    return {} if len(known) < len(found) else {place: each for place, each in known.items() if len(each.values)}


def _encodings(booster: Any) -> list[dict[str, Any]]:
    """Return what the model keeps of the categories of each column: nothing in slices, and before 3.1."""
    if "c" not in (booster.feature_types or ()):
        return []
    forest = orjson.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    return list(forest.get("gbtree", forest)["model"].get("cats", {}).get("enc", []))


def _decode(encoding: dict[str, Any]) -> pd.Index[Any] | None:
    """Return the values of one column, None where they are not what they were.

    XGBoost's Python package counts characters where it means bytes, and cuts off what is too much for that.
    """
    values = encoding["values"]
    if "type" in encoding:
        numbers: pd.Index[Any] = pd.Index(np.array(values, dtype=_XGBOOST_TYPES[encoding["type"]]))
        return numbers
    raw = np.array(values, dtype=np.int8).tobytes()
    if not raw.isascii():
        return None
    return pd.Index([raw[start:end].decode() for start, end in pairwise(encoding["offsets"])])
