"""Answers as plain values, to compare those of two versions."""

from __future__ import annotations

from math import isfinite
from typing import Any

from serving.rows.batch import Prediction


def list_plain_answers(prediction: Prediction) -> list[Any]:
    """Return one plain value for each row, with null for a number that is not finite, as JSON has it."""
    return [_replace_not_finite(value) for value in prediction.list_rows()]


def _replace_not_finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, list):
        return [_replace_not_finite(each) for each in value]
    if isinstance(value, dict):
        return {key: _replace_not_finite(each) for key, each in value.items()}
    return value
