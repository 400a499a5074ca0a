"""Files in XGBoost's and LightGBM's own formats.

What XGBoost's scikit-learn estimators save says so and is loaded into such an estimator; every other file is a booster.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

from serving.domain.version import Format
from serving.host.boosters.bare import LightgbmBooster, XgboostBooster
from serving.host.boosters.libraries import LIGHTGBM, XGBOOST, import_library
from serving.host.foreign_files import OLD_XGBOOST_INSIDE, is_old_xgboost
from serving.host.model import LoadRefused, one_line
from serving.host.restricted.sound.booster_states import find_content_problem
from serving.host.restricted.sound.lightgbm_trees import check_lightgbm
from serving.host.restricted.sound.xgboost_trees import check_xgboost

_PLACE = re.compile(r"^(?:\[[\d:]+\]\s*)?(?:\S+:\d+:\s*)?")
_ESTIMATORS = {"classifier": "XGBClassifier", "regressor": "XGBRegressor", "ranker": "XGBRanker"}


def load_native_file(path: str, format: Format) -> tuple[Any, dict[str, str]]:  # noqa: A002  (what it is called everywhere)
    """Load a file in XGBoost's or LightGBM's own format; the name of the file plays no part.

    Returns an estimator or a bare booster, and the version the file says it was written by. Raises LoadRefused.
    """
    library = import_library(XGBOOST if format is Format.XGBOOST else LIGHTGBM)
    with open(path, "rb") as file:
        content = file.read()
    return _load_xgboost(library, content) if format is Format.XGBOOST else _load_lightgbm(library, content)


def _require_sound(check: Callable[[bytes], None], content: bytes) -> None:
    """Raise LoadRefused unless `check` finds nothing that the library would follow out of its memory."""
    what = find_content_problem(content, check)
    if what is not None:
        raise LoadRefused(one_line(f"the file holds a model that is not sound: {what}; write it anew"))


def _make_refusal(library: str, error: Exception) -> LoadRefused:
    reason = _PLACE.sub("", str(error).partition("Stack trace:")[0].strip())
    return LoadRefused(one_line(f"the file is no {library} model, or it is cut short or damaged ({reason})"))


# --- XGBoost ----------------------------------------------------------------------------------------------------------


def _load_xgboost(xgboost: ModuleType, content: bytes) -> tuple[Any, dict[str, str]]:
    if is_old_xgboost(content):
        raise LoadRefused(OLD_XGBOOST_INSIDE)
    version = _xgboost_version(content)
    if version is None or not content.rstrip().endswith(b"}"):  # XGBoost may crash on half a file instead
        raise LoadRefused("the file is no XGBoost model, or it is cut short or damaged (its version is not at its end)")
    _require_sound(check_xgboost, content)
    try:
        booster = xgboost.Booster({"nthread": 1}, model_file=bytearray(content))
        kind = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
        if kind not in _ESTIMATORS:
            return XgboostBooster(booster), {XGBOOST: version}
        estimator = getattr(xgboost, _ESTIMATORS[kind])(n_jobs=1)
        estimator.load_model(bytearray(content))
    except (xgboost.core.XGBoostError, ValueError) as error:
        raise _find_newer(xgboost, version, error) or _make_refusal("XGBoost", error) from None
    return estimator, {XGBOOST: version}


def _find_newer(xgboost: ModuleType, version: str, error: Exception) -> LoadRefused | None:
    """Return the refusal of a file that a newer XGBoost than the one here wrote; None for all others."""
    written, here = (tuple(map(int, text.split(".")[:2])) for text in (version, xgboost.__version__))
    if written <= here:
        return None
    reason = str(error).partition("\n")[0]
    text = f"the file was saved by XGBoost {version}, and the one here, {xgboost.__version__}, cannot read it"
    return LoadRefused(one_line(f"{text} ({_PLACE.sub('', reason)}): install a newer one"))


def _xgboost_version(content: bytes) -> str | None:
    """Read the version at either end of the file without parsing what lies between."""
    for edge in (content[-200:], content[:200]):
        json_form = re.search(rb'"version"\s*:\s*\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)', edge)
        if json_form:
            return ".".join(number.decode() for number in json_form.groups())
        place = edge.rfind(b"version[")
        numbers = _ubjson_numbers(edge[place + len(b"version[") :]) if place >= 0 else []
        if len(numbers) == 3:
            return ".".join(map(str, numbers))
    return None


def _ubjson_numbers(text: bytes) -> list[int]:
    """Return the integers at the start of a UBJSON array (ubjson.org: a type marker, then big-endian bytes)."""
    sizes = {b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8}
    counted = re.match(rb"#(?:[iU](.)|I(..)|l(....)|L(........))", text, re.DOTALL)
    at = counted.end() if counted else 0
    numbers: list[int] = []
    while (size := sizes.get(text[at : at + 1])) is not None and len(numbers) < 3:
        numbers.append(int.from_bytes(text[at + 1 : at + 1 + size], "big"))
        at += 1 + size
    return numbers


# --- LightGBM ---------------------------------------------------------------------------------------------------------


def _load_lightgbm(lightgbm: ModuleType, content: bytes) -> tuple[Any, dict[str, str]]:
    if content.startswith(b"tree\r\n"):  # Git or an editor on Windows; the sizes of trees count one byte a line break
        content = content.replace(b"\r\n", b"\n")
    _require_whole(content)
    _require_sound(check_lightgbm, content)
    try:
        booster = lightgbm.Booster(model_str=content.decode())
    except (lightgbm.basic.LightGBMError, ValueError) as error:
        raise _make_refusal("LightGBM", error) from None
    booster.params = {}  # names files of the training; nothing that predicts asks for it
    return LightgbmBooster(booster), {}


def _require_whole(content: bytes) -> None:
    """Raise LoadRefused unless every tree is where the head of the file says: LightGBM aborts the process instead."""
    head, _, trees = content.partition(b"\n\nTree=0\n")
    listed = re.search(rb"^tree_sizes=([\d ]*)\s*$", head, re.MULTILINE)
    at = 0
    for index, size in enumerate(map(int, listed.group(1).split()) if listed and trees else ()):
        if not (b"Tree=0\n" + trees)[at : at + 24].startswith(b"Tree=%d\n" % index):
            raise LoadRefused(f"the file is cut short or damaged (tree {index} is not where it should be)")
        at += size
    if b"\nend of trees" not in content or not (content.endswith(b"\n") or _ends_whole(content)):
        raise LoadRefused("the file is cut short or damaged (it ends in the middle of a line, or of the trees)")


def _ends_whole(content: bytes) -> bool:
    """Say whether the last line is one that ends a model, and all of it: editors leave out the last line break."""
    name, _, value = content[content.rfind(b"\n") + 1 :].partition(b":")
    if name != b"pandas_categorical":
        return name == b"end of parameters"
    try:
        json.loads(value)
    except ValueError:
        return False
    return True
