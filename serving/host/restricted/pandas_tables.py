"""Reads tables of pandas in a file, which only classes that the operator trusts get.

A table has no array that could replace it for a known class. So where it is read, it stays a `PandasTable`, which no
attribute of a known class may hold. A trusted class gets the real table in its place (`pandas_objects`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.host.optional_pandas import pandas as pd
from serving.host.restricted.pandas_objects import FindObject, make_column, require_values
from serving.host.restricted.pandas_values import MOST_VALUES, require


@dataclass(frozen=True, slots=True, eq=False)
class PandasTable:
    """Stands for a table of pandas, or for all of its blocks, which have its content. `size` is the number of cells."""

    content: Any
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class PandasBlock:
    """Columns of a table that have one dtype: for each of `places` an array."""

    columns: Sequence[Any]
    places: Sequence[int]


def _read_block(find: FindObject, values: Any, placement: Any, dimensions: Any) -> PandasBlock:
    require(type(values) is np.ndarray and type(dimensions) is int and dimensions == 2)
    found = find(values)
    if found is values:
        require(values.ndim == 2 and values.dtype.kind in "OSUbiufcmM")
        return PandasBlock(list(require_values(values)), _read_places(placement))
    return PandasBlock([found], _read_places(placement))


def _read_places(placement: Any) -> Sequence[int]:
    """Return where the columns of a block belong; the caller finds out if they are too many or too few."""
    if type(placement) is slice:
        parts = (placement.start, placement.stop, placement.step)
        require(all(type(each) is int for each in parts))
        return range(*parts)
    require(type(placement) is np.ndarray and placement.ndim == 1 and placement.dtype.kind == "i")
    return placement.tolist()  # type: ignore[no-any-return]


def _read_blocks(find: FindObject, blocks: Any, axes: Any) -> PandasTable:
    columns, rows = (find(axis) for axis in axes)
    require(isinstance(columns, pd.Index) and isinstance(rows, pd.Index))
    require(type(blocks) is tuple and all(type(block) is PandasBlock for block in blocks))
    placed = {place: column for block in blocks for place, column in zip(block.places, block.columns, strict=True)}
    count = sum(len(block.places) for block in blocks)
    size = (count + 1) * (len(rows) + 1)
    require(size <= MOST_VALUES)  # before it is made: columns may share one array in the file
    # a place that no block has raises KeyError, and another number of columns ValueError
    table = pd.DataFrame({place: make_column(placed[place], rows) for place in range(count)}, index=rows)
    table.columns = columns
    return PandasTable(table, size)


def _read_table(_: FindObject, state: Any) -> PandasTable:
    require(type(state["_mgr"]) is PandasTable)
    return state["_mgr"]  # type: ignore[no-any-return]


TABLE_CALLS: dict[str, Callable[..., Any]] = {"_unpickle_block": _read_block, "BlockManager": _read_blocks}
TABLE_STATES: dict[str, Callable[..., Any]] = {"DataFrame": _read_table}
