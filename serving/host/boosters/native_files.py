"""Loads files in the own formats of XGBoost and LightGBM.

A file that a scikit-learn estimator of XGBoost saved names the kind of that estimator, and is loaded into such an
estimator. Every other file is loaded as a booster.
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

_SOURCE_PLACE = re.compile(r"^(?:\[[\d:]+\]\s*)?(?:\S+:\d+:\s*)?")
_ESTIMATORS = {"classifier": "XGBClassifier", "regressor": "XGBRegressor", "ranker": "XGBRanker"}


def load_native_file(path: str, format: Format) -> tuple[Any, dict[str, str]]:  # noqa: A002  (its name everywhere)
    """Load a file in the own format of XGBoost or LightGBM, whatever its name.

    Returns an estimator or a bare booster, and the library versions in the file. Raises LoadRefused.
    """
    library = import_library(XGBOOST if format is Format.XGBOOST else LIGHTGBM)
    with open(path, "rb") as file:
        content = file.read()
    return _load_xgboost(library, content) if format is Format.XGBOOST else _load_lightgbm(library, content)


def _require_sound(check: Callable[[bytes], None], content: bytes) -> None:
    """Raise LoadRefused if `check` finds an index or size that would lead the library outside of its memory."""
    what = find_content_problem(content, check)
    if what is not None:
        raise LoadRefused(one_line(f"the file holds a model that is not sound: {what}; write it anew"))


def _make_refusal(library: str, error: Exception) -> LoadRefused:
    reason = _SOURCE_PLACE.sub("", str(error).partition("Stack trace:")[0].strip())
    return LoadRefused(one_line(f"the file is no {library} model, or it is cut short or damaged ({reason})"))


# --- XGBoost ----------------------------------------------------------------------------------------------------------


def _load_xgboost(xgboost: ModuleType, content: bytes) -> tuple[Any, dict[str, str]]:
    if is_old_xgboost(content):
        raise LoadRefused(OLD_XGBOOST_INSIDE)
    version = read_xgboost_version(content)
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
        raise _refuse_newer_version(xgboost, version, error) or _make_refusal("XGBoost", error) from None
    return estimator, {XGBOOST: version}


def _refuse_newer_version(xgboost: ModuleType, version: str, error: Exception) -> LoadRefused | None:
    """Return the refusal of a file that a newer XGBoost wrote; None for other files."""
    written, here = (tuple(map(int, text.split(".")[:2])) for text in (version, xgboost.__version__))
    if written <= here:
        return None
    reason = str(error).partition("\n")[0]
    text = f"the file was saved by XGBoost {version}, and the one here, {xgboost.__version__}, cannot read it"
    return LoadRefused(one_line(f"{text} ({_SOURCE_PLACE.sub('', reason)}): install a newer one"))


def read_xgboost_version(content: bytes) -> str | None:
    """Return the version at either end of a model of XGBoost, without parsing the rest; None where there is none.

    `content` is the JSON or UBJSON of the model, or both of its ends: the first and the last 200 bytes are enough.
    """
    for edge in (content[-200:], content[:200]):
        json_form = re.search(rb'"version"\s*:\s*\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)', edge)
        if json_form:
            return ".".join(number.decode() for number in json_form.groups())
        place = edge.rfind(b"version[")
        numbers = _read_ubjson_numbers(edge[place + len(b"version[") :]) if place >= 0 else []
        if len(numbers) == 3:
            return ".".join(map(str, numbers))
    return None


def _read_ubjson_numbers(text: bytes) -> list[int]:
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
    if content.startswith(b"tree\r\n"):  # by Git or an editor on Windows; the file counts one byte for each line break
        content = content.replace(b"\r\n", b"\n")
    _require_complete(content)
    _require_sound(check_lightgbm, content)
    try:
        booster = lightgbm.Booster(model_str=content.decode())
    except (lightgbm.basic.LightGBMError, ValueError) as error:
        raise _make_refusal("LightGBM", error) from None
    booster.params = {}  # may name files of the training; predictions do not need it
    return LightgbmBooster(booster), {}


def _require_complete(content: bytes) -> None:
    """Raise LoadRefused unless every tree is where the head of the file says: LightGBM would abort the process."""
    head, _, trees = content.partition(b"\n\nTree=0\n")
    listed = re.search(rb"^tree_sizes=([\d ]*)\s*$", head, re.MULTILINE)
    at = 0
    for index, size in enumerate(map(int, listed.group(1).split()) if listed and trees else ()):
        if not (b"Tree=0\n" + trees)[at : at + 24].startswith(b"Tree=%d\n" % index):
            raise LoadRefused(f"the file is cut short or damaged (tree {index} is not where it should be)")
        at += size
    if b"\nend of trees" not in content or not (content.endswith(b"\n") or _has_complete_end(content)):
        raise LoadRefused("the file is cut short or damaged (it ends in the middle of a line, or of the trees)")


def _has_complete_end(content: bytes) -> bool:
    """Say whether the last line is complete and ends a model: some editors remove the last line break."""
    name, _, value = content[content.rfind(b"\n") + 1 :].partition(b":")
    if name != b"pandas_categorical":
        return name == b"end of parameters"
    try:
        json.loads(value)
    except ValueError:
        return False
    return True
