"""Reads the range of the thresholds in trees of XGBoost and LightGBM, for the numbers in made-up rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from serving import json_codec
from serving.host.boosters.libraries import LIGHTGBM, XGBOOST, library_of

# enough rounds to know the range of most columns
ROUNDS_READ = 50


def find_threshold_ranges(part: Any) -> tuple[list[float], list[float]] | None:
    """Return the smallest and the largest threshold of each column in the first rounds of an estimator.

    A column without thresholds has infinity as the smallest and minus infinity as the largest. Returns None when `part`
    is not an estimator of either library.
    """
    library = library_of(part)
    read = {XGBOOST: _read_xgboost_splits, LIGHTGBM: _read_lightgbm_splits}.get(library or "")
    if read is None or not hasattr(part, "n_features_in_"):
        return None
    low, high = [math.inf] * part.n_features_in_, [-math.inf] * part.n_features_in_
    read(part, lambda column, value: _widen_range(low, high, column, value))
    return low, high


def _widen_range(low: list[float], high: list[float], column: int, value: float) -> None:
    low[column], high[column] = min(low[column], value), max(high[column], value)


def _read_xgboost_splits(part: Any, note: Callable[[int, float], None]) -> None:
    booster = part.get_booster()
    if part.booster == "gblinear":
        return
    first = booster[: min(ROUNDS_READ, booster.num_boosted_rounds())]
    learner = json_codec.loads(bytes(first.save_raw("json")))["learner"]
    forest = learner["gradient_booster"]
    for tree in forest.get("gbtree", forest)["model"]["trees"]:
        kinds = tree.get("split_type") or [0] * len(tree["left_children"])
        rows = zip(tree["left_children"], tree["split_indices"], tree["split_conditions"], kinds, strict=True)
        for left, column, value, is_categorical in rows:
            if left >= 0 and not is_categorical:
                note(column, value)


def _read_lightgbm_splits(part: Any, note: Callable[[int, float], None]) -> None:
    text = part.booster_.model_to_string(num_iteration=ROUNDS_READ)
    for tree in text.partition("\nend of trees")[0].split("\nTree=")[1:]:
        known = dict(line.split("=", 1) for line in tree.splitlines() if "=" in line)
        rows = zip(
            known.get("split_feature", "").split(),
            known.get("threshold", "").split(),
            known.get("decision_type", "").split(),
            strict=True,
        )
        for column, value, decision in rows:
            if not int(decision) & 1:  # bit 0: a set of categories
                note(int(column), float(value))
