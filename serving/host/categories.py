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
_SEEN_CODES = re.compile(r"^feature_infos=(.*)$", re.MULTILINE)

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
            raise ValueError(f"{cells[is_other][0]!r} is not among the categories of the training ({known})")
        return converted


def categories_of(part: Any) -> dict[int, Categories]:
    """Return the categories of each categorical column of a fitted estimator of either library, by its position.

    Empty for other estimators, for tables of numbers, and where the model does not tell: XGBoost before 3.1 did not
    keep the values, and LightGBM does not say to which columns they belong when `categorical_feature` named others.
    """
    library = boosters.library_of(part)
    if library == boosters.LIGHTGBM:
        return _lightgbm_categories(part.booster_)
    return _xgboost_categories(part.get_booster()) if library == boosters.XGBOOST else {}


def _lightgbm_categories(booster: Any) -> dict[int, Categories]:
    values = booster.pandas_categorical or []
    text = booster.model_to_string(num_iteration=1) if values else ""
    listed, seen = _LISTED.search(text), _SEEN_CODES.search(text)
    if listed is None or seen is None:
        return {}
    places, infos = [int(place) for place in listed[1].split(",")], seen[1].split()
    is_clear = len(places) == len(values) and all(
        place < len(infos) and _fits(infos[place], len(each)) for place, each in zip(places, values, strict=True)
    )
    known = (Categories(pd.Index(each), takes_others=True) for each in values)
    return dict(zip(places, known, strict=True)) if is_clear else {}


def _fits(info: str, count: int) -> bool:
    """Say whether what a feature was in the training, ``2:0:1`` or ``none``, are places among `count` categories."""
    return info == "none" or ("[" not in info and all(int(code) < count for code in info.split(":")))


def _xgboost_categories(booster: Any) -> dict[int, Categories]:
    if "c" not in (booster.feature_types or ()):
        return {}
    forest = orjson.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]  # a slice has no categories
    encodings = forest.get("gbtree", forest)["model"].get("cats", {}).get("enc", [])
    found = {place: _decode(encoding) for place, encoding in enumerate(encodings)}
    return {place: Categories(index, takes_others=False) for place, index in found.items() if len(index)}


def _decode(encoding: dict[str, Any]) -> pd.Index[Any]:
    values = encoding["values"]
    if "type" in encoding:
        numbers: pd.Index[Any] = pd.Index(np.array(values, dtype=_XGBOOST_TYPES[encoding["type"]]))
        return numbers
    raw, ends = bytes(values), encoding["offsets"]
    return pd.Index([raw[start:end].decode() for start, end in pairwise(ends)])
