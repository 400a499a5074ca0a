"""Boosters fitted on pandas categories of every kind, in every saved form, with the answers of their library.

`make_tables` makes the tables, `list_models` the models for a table, `compare_with_library` compares the answers. The
tests run a few of them; ``python -m tests.unit.host.category_cases`` runs all.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import xgboost

from serving.compiling.convert import NotCompilable, convert_estimator
from serving.compiling.prove import prove_graphs
from serving.domain.compiled_form import Guard
from serving.domain.errors import ServingError
from serving.host.boosters import XGBOOST, library_of
from serving.host.estimator_model import EstimatorModel
from serving.host.loading import Trust, load_model
from serving.plane.graph import GraphSession
from serving.rows.apply_guard import GuardCheck
from serving.rows.parsing import rows_to_batch
from tests.unit.host.booster_cases import TOLERANCE, SavedForm, compare_all, is_close, is_selected

ROWS = 600
RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.normal(size=ROWS) * 10
FLAGS = RANDOM.integers(0, 2, ROWS)
WORDS = RANDOM.choice(["vw", "kia", "bmw"], ROWS)


def make_tables() -> dict[str, pd.DataFrame]:
    """Return a table for each kind of categories; each also has a column of numbers and one of zeros and ones."""
    digits = pd.Series(RANDOM.choice([1, 3, 7], ROWS))
    choices = pd.Index(["lo", "mid", "hi", "top"])
    kinds: dict[str, Any] = {
        "texts": pd.Categorical(WORDS),
        "texts as objects": pd.Categorical(
            WORDS.astype(object), categories=pd.Index(["vw", "kia", "bmw"], dtype=object)
        ),
        "texts not in order": pd.Categorical(WORDS, categories=["vw", "bmw", "kia"]),
        "unused levels": pd.Categorical(WORDS, categories=["zz", "vw", "aa", "kia", "bmw"]),
        "texts like numbers": pd.Categorical(digits.astype(str)),
        "integers": pd.Categorical(digits),
        "negative integers": pd.Categorical(digits - 5),
        "large integers": pd.Categorical(digits + 2**53),
        "int8": pd.Categorical(digits.astype("int8")),
        "uint64": pd.Categorical(digits.astype("uint64")),
        "Int64": pd.Categorical(digits.astype("Int64")),
        "floats": pd.Categorical(digits / 4),
        "bools": pd.Categorical(digits > 1),
        "texts and integers": pd.Categorical(digits.astype(object).where(digits > 1, "a")),
        "ordered texts": pd.Categorical(choices[RANDOM.integers(0, 4, ROWS)], categories=choices, ordered=True),
        "ordered integers": pd.Categorical(digits + 20, ordered=True),
        "other letters": pd.Categorical(RANDOM.choice(["k\u00f6ln", "\u6771\u4eac", "", " x"], ROWS)),
        "with missing ones": pd.Categorical(np.where(RANDOM.random(ROWS) < 0.2, None, WORDS.astype(object))),
        "many": pd.Categorical([f"c{number}" for number in RANDOM.integers(0, 150, ROWS)]),
    }
    found = {
        kind: pd.DataFrame({"km": NUMBERS, "kind": column, "flag": FLAGS.astype(float)})
        for kind, column in kinds.items()
    }
    found["several"] = pd.DataFrame(
        {
            name: kinds[kind]
            for kind in ("texts", "integers", "unused levels", "many")
            for name in [f"of_{kind}".replace(" ", "_")]
        }
    ).assign(km=NUMBERS)
    found["ordered and not"] = found["texts"].assign(size=kinds["ordered texts"])
    return found


def list_models(table: pd.DataFrame) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield functions that fit a model on a table: estimators and boosters of both libraries."""
    codes = sum(table[name].cat.codes * 3.0 for name in table if isinstance(table[name].dtype, pd.CategoricalDtype))
    numbers = np.asarray(codes + table["km"] / 10)
    classes = (numbers > np.median(numbers)).astype(int)
    few: dict[str, Any] = {"n_estimators": 8, "n_jobs": 1}
    more = {**few, "min_child_samples": 5, "min_data_per_group": 5, "cat_smooth": 1, "verbose": -1}
    yield "LGBMRegressor", lambda: lightgbm.LGBMRegressor(**more).fit(table, numbers)
    yield "LGBMClassifier", lambda: lightgbm.LGBMClassifier(**more).fit(table, np.array(["no", "yes"])[classes])
    yield "XGBRegressor", lambda: xgboost.XGBRegressor(enable_categorical=True, **few).fit(table, numbers)
    yield (
        "XGBClassifier one-hot",
        lambda: xgboost.XGBClassifier(enable_categorical=True, max_cat_to_onehot=100, **few).fit(table, classes),
    )
    yield (
        "xgboost dart",
        lambda: xgboost.train({"booster": "dart"}, xgboost.DMatrix(table, numbers, enable_categorical=True), 8),
    )


def to_sent_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as clients send them: objects with column names, null for missing values."""
    columns = [
        [None if pd.isna(cell) else cell for cell in table[name].astype(object).tolist()] for name in table.columns
    ]
    return [dict(zip(table.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def remove_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with missing cells in some rows of every column."""
    random = np.random.default_rng(3)
    return table.mask(random.random(table.shape) < 0.1).astype(table.dtypes.to_dict())


def compare_with_library(form: SavedForm, table: pd.DataFrame, *, is_proven: bool = False) -> tuple[int, list[str]]:
    """Load a form as the server does, ask for the rows of `table`; return how many answers, and what differs.

    With `is_proven`, ask its compiled form too, which has to be there.
    """
    with warnings.catch_warnings(action="ignore"):
        model = load_model(str(form.path), form.format, Trust(is_restricted=False))
        assert isinstance(model, EstimatorModel)
        found: list[str] = []
        compared = 0
        for rows in (table, remove_cells(table)):
            batch = rows_to_batch(model.signature, to_sent_rows(rows))
            for method in model.signature.methods:
                if method not in form.answers:
                    continue
                wanted = np.asarray(form.answers[method](rows))
                given = np.asarray(model.answer(method, batch).tensors[0])
                compared += len(rows)
                if given.tolist() != wanted.tolist():
                    found.append(f"{form.name}: {method}: {given[:3]} for {wanted[:3]}")
        for batch in (model.make_rows(64), model.make_rows(64, with_nulls=True)):  # made-up rows are for the gates
            model.answer("predict", batch)
        found += _compare_unknown(model, form, table)
        if is_proven:
            found += [
                f"{form.name}: {difference}" for difference in _compare_compiled(model, [table, remove_cells(table)])
            ]
    return compared, found


# why a form may stay in its host
_HOSTED = ("not faster", "takes values of any type", "categories beyond 2**53")


def _compare_compiled(model: EstimatorModel, asked_for: list[pd.DataFrame]) -> list[str]:
    try:
        graph = convert_estimator(model)
        compilation = prove_graphs(model, [graph], TOLERANCE, [])
    except NotCompilable as error:
        return [] if any(reason in str(error) for reason in _HOSTED) else [f"is not compiled: {error}"]
    session = GraphSession(graph)
    check = GuardCheck(compilation.guard or Guard(), model.signature)
    found = []
    for rows in asked_for:
        batch = rows_to_batch(model.signature, to_sent_rows(rows))
        check.check(batch)
        for method in model.signature.methods:
            wanted, given = (np.asarray(which.answer(method, batch).tensors[0]) for which in (model, session))
            if not is_close(wanted, given):
                found.append(f"compiled {method}: {given[:3]} for {wanted[:3]}")
    return found


def _compare_unknown(model: EstimatorModel, form: SavedForm, table: pd.DataFrame) -> list[str]:
    """Compare answers to unknown values: missing for LightGBM, refused for XGBoost."""
    texts = [name for name in table if table[name].dtype == "category" and "a" < str(table[name].iloc[0]) < "z"]
    if not texts:
        return []
    rows = table.head(9).copy()
    rows[texts[0]] = rows[texts[0]].astype(object)
    try:
        given = model.answer(
            "predict", rows_to_batch(model.signature, to_sent_rows(rows.assign(**{texts[0]: "never"})))
        )
    except ServingError as error:
        is_refused = library_of(model.estimator) == XGBOOST and "'never' is not among the categories" in str(error)
        return [] if is_refused else [f"{form.name}: refuses an unknown category: {error}"]
    if library_of(model.estimator) == XGBOOST:
        return [f"{form.name}: answers an unknown category"]
    missing = rows.assign(**{texts[0]: pd.Categorical([None] * 9, categories=table[texts[0]].cat.categories)})
    wanted = np.asarray(form.answers["predict"](missing))
    return [] if np.asarray(given.tensors[0]).tolist() == wanted.tolist() else [f"{form.name}: an unknown category"]


def main(names: Sequence[str]) -> int:
    """Compare every form of every model on every table whose name contains one of `names`, or on all."""

    def compare_all_on(kind: str, table: pd.DataFrame) -> int:
        def compare_form(form: SavedForm) -> tuple[int, str, list[str]]:
            try:
                compared, found = compare_with_library(form, table, is_proven=True)
            except ServingError as error:
                return 0, f"REFUSED {error!s:.160}", []
            return compared, "alike" if not found else "not alike", found

        return compare_all(((f"{kind}, {name}", fit) for name, fit in list_models(table)), compare_form)

    return sum(compare_all_on(kind, table) for kind, table in make_tables().items() if is_selected(kind, names))


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
