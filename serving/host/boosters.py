"""XGBoost and LightGBM: their own files, and what their estimators need that scikit-learn's do not.

Both are optional and imported only when a file asks for them. Models in their own formats are put into their
scikit-learn estimators, so that everything after loading sees one kind of object.
"""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import orjson

from serving.domain.version import Format
from serving.host.model import LoadRefused, one_line
from serving.host.restricted.sound.booster_states import problem_of_content
from serving.host.restricted.sound.lightgbm_trees import check_lightgbm
from serving.host.restricted.sound.xgboost_trees import check_xgboost
from serving.host.strangers import OLD_XGBOOST_INSIDE, is_old_xgboost

XGBOOST, LIGHTGBM = "xgboost", "lightgbm"
EXTRAS = (XGBOOST, LIGHTGBM)

# enough rounds to know where the numbers of most columns lie
ROUNDS_READ = 50

_THREADS = ("n_jobs", "nthread", "nthreads", "num_thread", "num_threads")
_KEYWORDS = ("kwargs", "_other_params", "params")
_XGBOOST_CLASSES = ("binary:logistic", "binary:hinge", "multi:softprob", "multi:softmax")
_LIGHTGBM_CLASSES = ("binary", "multiclass", "multiclassova")
_LIGHTGBM_RANKS = ("lambdarank", "rank_xendcg")
_PLACE = re.compile(r"^(?:\[[\d:]+\]\s*)?(?:\S+:\d+:\s*)?")


def library_of(part: Any) -> str | None:
    """Return ``xgboost`` or ``lightgbm`` when the class of `part` comes from there, else None."""
    package = type(part).__module__.partition(".")[0]
    return package if package in EXTRAS else None


def how_to_install(library: str) -> str:
    """Say that a file needs `library`, and how to get it."""
    return f"the file needs {library}, which is not installed here: pip install 'serving[{library}]'"


def load_native(path: str, format: Format) -> tuple[Any, dict[str, str]]:  # noqa: A002  (what it is called everywhere)
    """Load a file in XGBoost's or LightGBM's own format; the name of the file plays no part.

    Returns a fitted scikit-learn estimator of that library, and the version the file says it was written by. Raises
    LoadRefused.
    """
    library = _library(XGBOOST if format is Format.XGBOOST else LIGHTGBM)
    with open(path, "rb") as file:
        content = file.read()
    return _load_xgboost(library, content) if format is Format.XGBOOST else _load_lightgbm(library, content)


def as_estimator(found: Any) -> Any:
    """Return a bare booster of either library inside an estimator, and everything else as it is."""
    library = library_of(found)
    if library is None or type(found).__name__ != "Booster":
        return found
    if library == XGBOOST:
        return _load_xgboost(_library(library), bytes(found.save_raw("ubj")))[0]
    return _estimator_around(_library(library), found, found.model_to_string(num_iteration=-1))


def is_of_old_lightgbm(part: Any) -> bool:
    """Say whether a part is an estimator that LightGBM 2 or 3 fitted: later versions take it for one that is not."""
    if library_of(part) != LIGHTGBM:
        return False
    state = vars(part)
    return state.get("_Booster") is not None and "fitted_" not in state


def compute_alone(part: Any) -> None:
    """Have a part of either library compute in one thread, whatever it was told under whichever name."""
    state = vars(part)
    for known in (state, *(state.get(name) for name in _KEYWORDS)):
        if isinstance(known, dict):
            known.update({name: 1 for name in _THREADS if name in known})
    if type(part).__name__ == "Booster" and hasattr(part, "set_param"):
        part.set_param({"nthread": 1})  # XGBoost's; a pickled one brings the number along


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise LoadRefused(how_to_install(name)) from None


def _require_sound(check: Callable[[bytes], None], content: bytes) -> None:
    """Raise LoadRefused unless `check` finds nothing that the library would follow out of its memory."""
    what = problem_of_content(content, check)
    if what is not None:
        raise LoadRefused(one_line(f"the file holds a model that is not sound: {what}; write it anew"))


def _refused(library: str, error: Exception) -> LoadRefused:
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
        objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
        estimator = _xgboost_class(xgboost, booster, objective)(n_jobs=1)
        estimator.load_model(bytearray(content))
    except (xgboost.core.XGBoostError, ValueError) as error:
        raise _refused("XGBoost", error) from None
    if objective == "multi:softmax":
        # gives labels only; the same trees and sums give probabilities
        estimator.get_booster().set_param({"objective": "multi:softprob"})
        estimator.objective = "multi:softprob"
    return estimator, {XGBOOST: version}


def _xgboost_class(xgboost: ModuleType, booster: Any, objective: str) -> Any:
    kind = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
    if kind == "classifier" or (kind is None and objective in _XGBOOST_CLASSES):
        return xgboost.XGBClassifier
    if kind == "ranker" or (kind is None and objective.startswith("rank:")):
        return xgboost.XGBRanker
    return xgboost.XGBRegressor


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
    _require_whole(content)
    _require_sound(check_lightgbm, content)
    try:
        text = content.decode()
        booster = lightgbm.Booster(model_str=text)
    except (lightgbm.basic.LightGBMError, ValueError) as error:
        raise _refused("LightGBM", error) from None
    return _estimator_around(lightgbm, booster, text), {}


def _require_whole(content: bytes) -> None:
    """Raise LoadRefused unless every tree is where the head of the file says: LightGBM aborts the process instead."""
    head, _, trees = content.partition(b"\n\nTree=0\n")
    listed = re.search(rb"^tree_sizes=([\d ]*)\s*$", head, re.MULTILINE)
    at = 0
    for index, size in enumerate(map(int, listed.group(1).split()) if listed and trees else ()):
        if not (b"Tree=0\n" + trees)[at : at + 24].startswith(b"Tree=%d\n" % index):
            raise LoadRefused(f"the file is cut short or damaged (tree {index} is not where it should be)")
        at += size
    if b"\nend of trees" not in content or not content.endswith(b"\n"):
        raise LoadRefused("the file is cut short or damaged (it ends in the middle of a line, or of the trees)")


def _estimator_around(lightgbm: ModuleType, booster: Any, text: str) -> Any:
    """Return the fitted estimator that would have trained `booster`, whose model file is `text`."""
    head = text.partition("\n\n")[0]
    known = dict(line.split("=", 1) for line in head.splitlines() if "=" in line)
    objective = (known.get("objective", "").split() or [""])[0]
    booster.params = {}  # names files of the training; nothing that predicts asks for it
    if objective in _LIGHTGBM_CLASSES:
        estimator = lightgbm.LGBMClassifier(n_jobs=1)
        labels = np.arange(2 if objective == "binary" else int(known["num_class"]))
        estimator._le = lightgbm.compat._LGBMLabelEncoder().fit(labels)
        estimator._classes, estimator._n_classes = labels, len(labels)
        estimator._class_map = {int(label): int(label) for label in labels}
    else:
        estimator = (lightgbm.LGBMRanker if objective in _LIGHTGBM_RANKS else lightgbm.LGBMRegressor)(n_jobs=1)
    names = booster.feature_name()
    estimator._Booster, estimator._objective, estimator.fitted_ = booster, objective or "custom", True
    estimator._n_features = estimator._n_features_in = booster.num_feature()
    estimator._fitted_with_feature_names = names != [f"Column_{index}" for index in range(len(names))]
    estimator._best_iteration, estimator._evals_result, estimator._best_score = booster.best_iteration, {}, {}
    return estimator


# --- where the numbers lie --------------------------------------------------------------------------------------------


def thresholds_in(part: Any) -> tuple[list[float], list[float]] | None:
    """Return the smallest and largest threshold on each column in the first rounds of an estimator of either library.

    Infinities, the wrong way round, stand for columns that are not asked for. None when `part` is something else.
    """
    library = library_of(part)
    read = {XGBOOST: _xgboost_splits, LIGHTGBM: _lightgbm_splits}.get(library or "")
    if read is None or not hasattr(part, "n_features_in_"):
        return None
    low, high = [math.inf] * part.n_features_in_, [-math.inf] * part.n_features_in_
    read(part, lambda column, value: _widen(low, high, column, value))
    return low, high


def _widen(low: list[float], high: list[float], column: int, value: float) -> None:
    low[column], high[column] = min(low[column], value), max(high[column], value)


def _xgboost_splits(part: Any, note: Callable[[int, float], None]) -> None:
    booster = part.get_booster()
    if part.booster == "gblinear":
        return
    first = booster[: min(ROUNDS_READ, booster.num_boosted_rounds())]
    learner = orjson.loads(bytes(first.save_raw("json")))["learner"]
    forest = learner["gradient_booster"]
    for tree in forest.get("gbtree", forest)["model"]["trees"]:
        kinds = tree.get("split_type") or [0] * len(tree["left_children"])
        rows = zip(tree["left_children"], tree["split_indices"], tree["split_conditions"], kinds, strict=True)
        for left, column, value, is_categorical in rows:
            if left >= 0 and not is_categorical:
                note(column, value)


def _lightgbm_splits(part: Any, note: Callable[[int, float], None]) -> None:
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
