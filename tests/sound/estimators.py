"""Every estimator scikit-learn has, fitted with every option, on every usual kind of rows and answers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import threadpoolctl
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.utils import all_estimators

from tests.sound.construction import construct_instances, enforce_tags_x, enforce_tags_y, ignore_warnings
from tests.sound.options import options_of

ROWS, FEATURES = 60, 6
TEXTS = ["the cat sat", "a dog sat down", "cats and dogs", "a bird sang"] * 15
# take no table of rows: what they take instead
_OTHERS: dict[str, Any] = {
    "CountVectorizer": TEXTS,
    "TfidfVectorizer": TEXTS,
    "HashingVectorizer": TEXTS,
    "DictVectorizer": [{"a": 1, "b": "x"}, {"a": 2.5, "b": "y"}] * 30,
    "FeatureHasher": [{"a": 1, "b": 2}] * ROWS,
    "LabelBinarizer": np.arange(ROWS) % 3,
    "LabelEncoder": np.array(["a", "b", "c"] * 20),
    "MultiLabelBinarizer": [("a",), ("b", "c"), ("a", "c")] * 20,
    "PatchExtractor": np.zeros((2, 8, 8)),
}
_SLOW = frozenset(
    {"TSNE", "SequentialFeatureSelector", "GraphicalLassoCV", "DictionaryLearning", "MiniBatchDictionaryLearning"}
)


@dataclass(frozen=True)
class Fitted:
    """One fitted estimator: what it is and what it was set to, and the rows it was fitted on."""

    label: str
    estimator: Any
    rows: Any

    def __str__(self) -> str:
        return self.label


def _classes() -> list[tuple[str, Any]]:
    """Return every class of estimators; importing the experimental ones makes them public, in this process for good."""
    from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401

    found: list[tuple[str, Any]] = all_estimators()
    return found


def every_option(names: Callable[[str], bool] = lambda _: True) -> Iterator[Fitted]:
    """Yield every estimator with every option that can be fitted. Blocks for minutes over all."""
    for name, kind in _classes():
        if names(name):
            yield from of_kind(name, kind)


def every_kind(chosen: slice = slice(None)) -> Iterator[Fitted]:
    """Yield each estimator once, as scikit-learn constructs it for its own tests. Blocks for some seconds.

    `chosen` chooses some of the classes, by their place in a list of them.
    """
    for name, kind in _classes()[chosen]:
        for base in _bases(name, kind)[:1] if name not in _SLOW else ():
            yield from _fit(name, base, _usual(name, base))


def of_kind(name: str, kind: type, is_wanted: Callable[[str], bool] = lambda label: True) -> Iterator[Fitted]:
    """Yield estimators of one class: as scikit-learn constructs them, with each option, and on each kind of data.

    What `is_wanted` says no to is not fitted; it is asked by the label.
    """
    bases = _bases(name, kind)
    for number, base in enumerate(bases):
        if is_wanted(f"{name}#{number}"):
            yield from _fit(f"{name}#{number}", base, _usual(name, base))
    for base in bases[:1]:
        for parameter, value in options_of(kind):
            changed = clone(base)
            try:
                changed.set_params(**{parameter: copy.deepcopy(value)})
            except (ValueError, TypeError):
                continue
            label = f"{name}({parameter}={_short(value)})"
            if is_wanted(label):
                yield from _fit(label, changed, _usual(name, changed))
        if name not in _OTHERS and name not in _SLOW:
            for data, rows, answers in _kinds_of_data(name, base):
                if is_wanted(f"{name} on {data}"):
                    yield from _fit(f"{name} on {data}", clone(base), (rows, answers))


def _bases(name: str, kind: type) -> list[Any]:
    with ignore_warnings():
        try:
            return construct_instances(kind)
        except Exception:  # noqa: BLE001  (what cannot be made without arguments comes in `compositions`)
            return [kind()] if name in _OTHERS else []


def _usual(name: str, estimator: Any) -> tuple[Any, Any]:
    if name in _OTHERS:
        return _OTHERS[name], np.arange(ROWS) % 3
    rows, answers = table()
    if name in ("GraphicalLasso", "GraphicalLassoCV"):
        rows = np.random.default_rng(0).normal(size=(ROWS, 3))
    try:
        rows = enforce_tags_x(estimator, rows)
        return rows, enforce_tags_y(estimator, answers)
    except Exception:  # noqa: BLE001  (tags of a half-made estimator)
        return rows, answers


def table() -> tuple[Any, Any]:
    """Return the usual rows, positive ones, and their three classes."""
    rows, answers = make_blobs(n_samples=ROWS, centers=3, n_features=FEATURES, random_state=0)
    return rows - rows.min() + 0.5, answers


def _kinds_of_data(name: str, estimator: Any) -> Iterator[tuple[str, Any, Any]]:
    rows, answers = table()
    positive, _ = _usual(name, estimator)
    if np.shape(positive) != rows.shape:
        return
    words = np.array(["a", "b", "c"])[answers]
    yield "text labels", positive, words
    yield "object labels", positive, words.astype(object)
    yield "two classes", positive, answers % 2
    yield "bools", positive, answers == 1
    yield "several outputs", positive, np.column_stack([answers, answers % 2])
    yield "several labels", positive, np.column_stack([answers == 1, answers != 2, np.zeros(ROWS, int)])
    yield "floats", positive, answers + 0.5
    yield "float32", np.asarray(positive, np.float32), answers
    yield "sparse rows", sparse.csr_matrix(positive), answers
    yield "a table", pd.DataFrame(positive, columns=[f"f{place}" for place in range(FEATURES)]), answers
    yield "a table of categories", pd.DataFrame({"a": words, "b": list(words[::-1])}), answers
    mixed = np.array([["a", 1, None], ["b", 2.5, "x"], ["a", 1, np.nan], ["c", True, "y"]] * 15, dtype=object)
    yield "objects", mixed, answers
    yield "integers as objects", np.column_stack([answers, answers[::-1]]).astype(object), answers
    yield "bools as objects", np.array([[True, "a"], [False, "b"]] * 30, dtype=object), answers
    yield "texts", np.column_stack([words, words[::-1]]), answers
    yield "labels of many kinds", positive, np.array(["a", "b", "c"] * 20, dtype="S1")
    yield "days", positive, np.array(["2026-01-01", "2026-01-02", "2026-01-03"] * 20, dtype="datetime64[D]")
    yield "gaps", np.where(positive > np.quantile(positive, 0.9), np.nan, positive), answers
    yield "one feature", np.asarray(positive)[:, :1], answers


def _fit(label: str, estimator: Any, data: tuple[Any, Any]) -> Iterator[Fitted]:
    rows, answers = data
    with ignore_warnings(), np.errstate(all="ignore"), threadpoolctl.threadpool_limits(1):
        try:
            fitted = estimator.fit(rows, answers)
        except Exception:  # noqa: BLE001  (options that exclude each other, data that it does not take)
            return
    yield Fitted(label, fitted, rows)


def _short(value: Any) -> str:
    text = getattr(value, "__name__", None) or repr(value)
    return " ".join(text.split())[:40]
