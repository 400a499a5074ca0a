"""Rows to ask for: like those that a model was fitted on, mixed, and at the edges, in the container of the model.

Everything is drawn with a fixed seed. A row is kept twice: as what the estimator takes, and as what a client sends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

ROWS = 500
NUMBERS = (
    *(0.0, -0.0, 5e-324, -1e-300, 1e-45, 1e-16, -1e-8, 0.1 + 0.2, 1.0, -1.0, 12345.678, 2.0**24 + 1),
    *(1e9, -1e9, 1e16, 1e30, -1e30, 3.5e38, 1e300, -1.7e308),
)
INTEGERS = (0, -1, 1, 7, 2**31, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1)
WORDS = ("never seen", "", "Äußere 東京", "1", "true", " a ")


@dataclass(frozen=True, slots=True)
class Material:
    """What one model is asked: `rows` together, each of `edges` alone. `names` are those of a table's columns."""

    rows: Any
    edges: tuple[Any, ...] = field(default=())
    names: tuple[str, ...] | None = None

    def one(self, place: int) -> Any:
        """Return one of the rows, as a container of one row."""
        return part(self.rows, slice(place, place + 1))


def part(rows: Any, which: slice) -> Any:
    """Return some rows of a container as such a container."""
    return rows.iloc[which] if isinstance(rows, pd.DataFrame) else rows[which]


def cells(rows: Any) -> list[Any]:
    """Return the rows as a client sends them in JSON: lists of cells, texts or objects; None for what is missing."""
    if isinstance(rows, pd.DataFrame):
        columns = [[_cell(each) for each in rows[name].astype(object)] for name in rows.columns]
        return [list(row) for row in zip(*columns, strict=True)]
    if isinstance(rows, np.ndarray):
        if rows.dtype.kind in "iub":
            return list(rows.tolist())
        return [[_cell(each) for each in row] for row in rows.tolist()]
    return list(rows)


def _cell(value: Any) -> Any:
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, (pd.Timestamp, np.datetime64)):
        return None if pd.isna(value) else pd.Timestamp(value).isoformat()
    if isinstance(value, (pd.Timedelta, np.timedelta64)):
        return None if pd.isna(value) else pd.Timedelta(value).isoformat()
    if isinstance(value, np.generic):
        value = value.item()
    return None if value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)) else value


def material_like(rows: Any, seed: int = 0, count: int = ROWS) -> Material | None:
    """Make `count` rows, and edges, like `rows`; None for what is no table, no texts and no objects."""
    random = np.random.default_rng(seed)
    if hasattr(rows, "toarray"):
        rows = rows.toarray()
    if isinstance(rows, pd.DataFrame):
        return _table(rows, random, count)
    if isinstance(rows, list):
        return _texts(rows, random, count) if isinstance(rows[0], str) else _objects(rows, random, count)
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.dtype.kind not in "fiubOU":
        return None
    if rows.dtype.kind == "O":
        rows = np.column_stack([_as_sent(column) for column in rows.T])
    is_numbers = rows.dtype.kind == "O" and all(type(each) in (int, float) for each in rows.flat)
    return _array(rows.astype(np.float64) if is_numbers else rows, random, count)


def _as_sent(column: Any) -> Any:
    kinds = {type(each) for each in column}
    if type(None) in kinds:  # null is None where there are both
        column = np.array([None if each != each else each for each in column], dtype=object)  # noqa: PLR0124  (NaN)
    if bool not in kinds or not kinds & {int, float}:
        return column
    # true is no number in an array
    return np.array([int(each) if type(each) is bool else each for each in column], dtype=object)


def _array(rows: Any, random: np.random.Generator, count: int) -> Material:
    mixed = np.column_stack([column[random.integers(0, len(rows), count)] for column in rows.T])
    mixed[: len(rows)] = rows[:count]
    mixed = np.ascontiguousarray(mixed.astype(rows.dtype))
    if rows.dtype.kind == "f":
        spread = np.nan_to_num(np.nanstd(rows, axis=0)) / 3
        moved = (mixed + random.normal(size=mixed.shape) * spread)[count // 2 :]
        mixed[count // 2 :] = np.abs(moved) if np.nanmin(rows) >= 0 else moved
    edges = _edges_of_array(mixed, random)
    if rows.dtype == np.float32:  # no array remembers that, nor what its objects were: numbers go in double precision
        return Material(mixed.astype(np.float64), tuple(edge.astype(np.float64) for edge in edges))
    return Material(mixed, tuple(edges))


def _edges_of_array(rows: Any, random: np.random.Generator) -> list[Any]:
    usual, width = rows[:1], rows.shape[1]
    if rows.dtype.kind == "f":
        limit = float(np.finfo(rows.dtype).max)
        values: Sequence[Any] = (*(each for each in NUMBERS if abs(each) <= limit), np.nan)
    elif rows.dtype.kind in "iu":
        values = [each for each in INTEGERS if np.iinfo(rows.dtype).min <= each <= np.iinfo(rows.dtype).max]
    elif rows.dtype.kind == "b":
        values = (True, False)
    else:
        values = WORDS if rows.dtype.kind == "U" else (*WORDS, None, 3.5, 1, True)
    kept = object if rows.dtype.kind == "U" else rows.dtype
    found = []
    for value in values:
        one = usual.astype(kept)
        one[0, random.integers(0, width)] = value
        found.append(one)
        if rows.dtype.kind in "fiu" and value == value and abs(value) < 1e301:  # noqa: PLR0124  (NaN)
            found.append(np.full_like(usual, value))
    if rows.dtype.kind == "f":
        found.append(np.round(usual))
    return found


def _table(table: pd.DataFrame, random: np.random.Generator, count: int) -> Material:
    table = table.reset_index(drop=True)
    columns = {
        name: table[name].iloc[random.integers(0, len(table), count)].reset_index(drop=True) for name in table.columns
    }
    mixed = pd.DataFrame(columns)
    floats = [name for name in table.columns if table[name].dtype.kind == "f"]
    for name in floats:
        moved = mixed[name] + random.normal(size=count) * np.nan_to_num(table[name].std()) / 3
        is_moved = np.arange(count) >= count // 2
        mixed[name] = mixed[name].mask(is_moved, moved.abs() if table[name].min() >= 0 else moved)
    edges = [edge for name in table.columns for edge in _edges_of_column(mixed.iloc[:1], name, table[name])]
    return Material(mixed, tuple(edges), tuple(map(str, table.columns)))


def _edges_of_column(usual: pd.DataFrame, name: str, column: Any) -> list[pd.DataFrame]:
    dtype = usual[name].dtype
    values: Sequence[Any]
    if isinstance(dtype, pd.CategoricalDtype):
        is_text = all(isinstance(each, str) for each in dtype.categories)
        unknown = [WORDS[0]] if is_text else []
        made = [pd.Categorical([None], categories=dtype.categories, ordered=dtype.ordered)]
        made += [pd.Categorical([each], categories=[*dtype.categories, each]) for each in unknown]
        return [usual.assign(**{name: each}) for each in made]
    if dtype.kind == "f":
        values = (*NUMBERS, np.nan)
    elif dtype.kind in "iu":
        values = [each for each in INTEGERS if _fits(each, dtype)]
    elif dtype.kind == "b":
        values = (True, False)
    elif dtype.kind in "Mm":
        values = (usual[name].iloc[0], pd.NaT)
    else:  # what is missing is NaN, but where there has been None
        values = (*WORDS, None if any(each is None for each in column) else np.nan)
    found = [usual.assign(**{name: pd.Series([value], index=usual.index, dtype=dtype)}) for value in values]
    if dtype.kind in "iu":
        found.append(usual.assign(**{name: pd.Series([np.nan], index=usual.index)}))
    return found


def _fits(value: int, dtype: Any) -> bool:
    limits = np.iinfo(getattr(dtype, "numpy_dtype", dtype))
    return bool(limits.min <= value <= limits.max)


def _texts(rows: list[str], random: np.random.Generator, count: int) -> Material:
    words = sorted({word for text in rows for word in text.split()} | {"unheard", "of", "Ünïcode"})
    made = [" ".join(random.choice(words, random.integers(0, 12))) for _ in range(count)]
    made[: len(rows)] = rows[:count]
    return Material(made, tuple([text] for text in (*WORDS, 'cat\ncat, "dog"', "a" * 5000)))


def _objects(rows: list[Any], random: np.random.Generator, count: int) -> Material | None:
    if not isinstance(rows[0], dict):
        return None
    pairs = [pair for row in rows for pair in row.items()]
    pick: Callable[[], Any] = lambda: pairs[random.integers(0, len(pairs))]  # noqa: E731
    made = [dict(pick() for _ in range(random.integers(0, 4))) for _ in range(count)]
    made[: len(rows)] = rows[:count]
    edges = [{}, {"never": 1}, {"a": 0}, {"a": -0.0}, {"a": 1e300}, {"b": "never"}, {"a": 2**53 + 1}, {"a": True}]
    return Material(made, tuple([edge] for edge in edges))
