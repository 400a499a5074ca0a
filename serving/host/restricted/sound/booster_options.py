"""Refuse options that make LightGBM skip its check of the width of rows."""

from __future__ import annotations

from typing import Any

from serving.host.restricted.sound.requirements import Check, need, parts_of

_UNCHECKED = "predict_disable_shape_check"


def _check_options(booster: Any) -> None:
    parts = parts_of(booster)
    given = [value for value in (parts, parts.get("params"), parts.get("_other_params")) if isinstance(value, dict)]
    for options in given:
        need(str(options.get(_UNCHECKED, False)).lower() in ("false", "0"), f"{_UNCHECKED} would read past its rows")


CHECKS: dict[str, Check] = {
    "lightgbm.sklearn.LGBMModel": _check_options,
    "lightgbm.basic.Booster": _check_options,
}
