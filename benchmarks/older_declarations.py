"""What a parameter may be, for scikit-learn before 1.2, whose classes do not declare it.

There are three sources: the options in the docstring of the class, the texts that the list of 1.2 has for the same
class and attribute, and texts that were removed since.
"""

from __future__ import annotations

import inspect
import json
import re
from functools import cache
from typing import Any

from sklearn import metrics

from benchmarks import run

# texts that older releases had for the same parameters
OLDER: dict[str, tuple[str, ...]] = {
    "affinity": ("l1", "l2", "manhattan", "cosine", "euclidean", "precomputed"),
    "algorithm": ("SAMME", "SAMME.R", "auto", "full", "balltree", "kdtree", "best", "generic"),
    "criterion": ("friedman_mse", "mse", "mae"),
    "cv": ("prefit",),
    "loss": (
        *("deviance", "auto", "binary_crossentropy", "categorical_crossentropy", "log", "ls", "lad", "squared_loss"),
        *("least_squares", "least_absolute_deviation", "absolute_loss"),
    ),
    "max_features": ("auto",),
    "metric": ("kulsinski", "sokalmichener", "matching", "wminkowski"),
    "multi_class": ("auto", "multinomial", "ovr"),
    "n_init": ("auto",),
    "penalty": ("none",),
    "presort": ("auto",),
    "scoring": ("max_error",),
    "solver": ("liblinear", "interior-point"),
}
_FIRST_DECLARING = run.ROOT / "serving" / "host" / "restricted" / "lists" / "scikit-learn-1.2.json"
_PARAMETER = re.compile(r"^    (\w+) ?: ([^\n]*(?:\n        [^\n]*)?)", re.MULTILINE)
_BRACES = re.compile(r"\{([^}]*)\}")
_QUOTED = re.compile(r"[\"']([\w.\- ]+)[\"']")


def find_declared_texts(kind: type) -> dict[str, set[str]]:
    """Return by the name of a parameter of `kind` the texts that it may be."""
    described = _find_described_texts(kind)
    later = _read_first_list().get(f"{kind.__module__}.{kind.__qualname__}", {})
    found: dict[str, set[str]] = {}
    for name in _list_parameters(kind):
        texts = {word[1:-1] for word in later.get(name, ()) if word[0] == word[-1] == "'"}
        texts |= described.get(name, set())
        found[name] = texts | set(OLDER.get(name, ())) if texts else texts
    return found


def list_values(kind: type) -> list[tuple[str, Any]]:
    """Return parameters of `kind` with values they may have: the texts, and another than the default of its type."""
    defaults = _list_parameters(kind)
    found: list[tuple[str, Any]] = []
    for name, texts in find_declared_texts(kind).items():
        found += [(name, text) for text in sorted(texts)]
        default = defaults[name]
        others: dict[type, tuple[Any, ...]] = {bool: (not default,), int: (2,), float: (0.5,), str: (None,)}
        found += [(name, value) for value in others.get(type(default), (True, 2, 0.5))]
    return found


def list_scorer_names() -> list[str]:
    """Return the names of the scorers there are."""
    names: list[str] = metrics.get_scorer_names() if hasattr(metrics, "get_scorer_names") else sorted(metrics.SCORERS)
    return names


def _list_parameters(kind: type) -> dict[str, Any]:
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]  # type: ignore[misc]
    return {each.name: each.default for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)}


def _find_described_texts(kind: type) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, text in _PARAMETER.findall(kind.__doc__ or ""):
        for options in _BRACES.findall(text):
            found.setdefault(name, set()).update(_QUOTED.findall(options))
    return found


@cache
def _read_first_list() -> dict[str, dict[str, list[str]]]:
    document = json.loads(_FIRST_DECLARING.read_text(encoding="utf-8"))["schema"]
    groups = document["groups"]
    return {
        name: {
            attribute: [each for word in words for each in (groups[word[1:]] if word[0] == "@" else [word])]
            for attribute, words in attributes.items()
        }
        for name, attributes in document["classes"].items()
    }
