"""Draw the categories by which trees of XGBoost and LightGBM split: values become numbers, sets become plain splits.

onnxruntime has no splits by sets in float64 trees. So each split by a set gets its own column, which is 0 where the
split leads to the left, else 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.compiling.converters.blocks import Block, Rows
from serving.compiling.converters.encoding import draw_lookup
from serving.compiling.drawing import NotCompilable, make_tensor
from serving.compiling.tree_table import ML, TreeTable
from serving.host.pandas_categories import Categories

_LARGEST_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class SetSplit:
    """A node of a tree table that splits by a set of categories; `members` are the numbers of these categories."""

    node: int
    members: NDArray[np.int64]


def number_categories(rows: Rows, categories: Mapping[int, Categories]) -> Rows:
    """Replace each category by its number; all other values, and missing ones, become NaN."""
    if not categories:
        return rows
    columns = rows.split_columns()
    for place, known in categories.items():
        values = known.values.tolist()
        if any(isinstance(value, int) and abs(value) > _LARGEST_EXACT for value in values):
            raise NotCompilable("categories beyond 2**53 have no compiled form")
        codes = np.arange(len(values), dtype=np.float64)
        columns[place] = Block(draw_lookup(rows.drawing, columns[place], values, codes, np.nan), 1)
    return Rows(rows.drawing, tuple(columns))


def add_split_columns(
    table: TreeTable, rows: Rows, splits: Sequence[SetSplit], *, is_left_inside: bool, missing_is_outside: bool
) -> tuple[TreeTable, Rows]:
    """Add a column for each split by a set: 0 where the whole part of a number leads to the left, else 1.

    `is_left_inside` says that members of a set lead to the left; otherwise they lead to the right. With
    `missing_is_outside`, NaN is not in any set; otherwise it goes where the node sends missing values.
    """
    feature, threshold, missing_left = table.feature.copy(), table.threshold.copy(), table.missing_left.copy()
    made, start = [], rows.width
    for column in sorted({int(table.feature[split.node]) for split in splits}):
        own = [split for split in splits if table.feature[split.node] == column]
        known = np.unique(np.concatenate([split.members for split in own]))
        is_inside = np.array([np.isin(np.append(known, -1), split.members) for split in own]).T
        sides = np.where(is_inside == is_left_inside, 0.0, 1.0)
        if not missing_is_outside:
            sides = np.vstack([sides, np.full(len(own), np.nan)])
        made.append(rows.with_matrix(_look_up_sides(rows, column, known, sides), len(own)))
        nodes = [split.node for split in own]
        feature[nodes] = start + np.arange(len(own))
        threshold[nodes] = 0.5
        missing_left[nodes] &= not missing_is_outside
        start += len(own)
    if not splits:
        return table, rows
    return replace(table, feature=feature, threshold=threshold, missing_left=missing_left), rows.append_columns(made)


def _look_up_sides(rows: Rows, column: int, known: NDArray[np.int64], sides: NDArray[np.float64]) -> str:
    """Return for each number its row of `sides`: first those of `known`, then one for all others, then one for NaN."""
    drawing = rows.drawing
    matrix = rows.select_columns([column]).draw_matrix()
    whole = drawing.draw_node("Cast", matrix, to=TensorProto.INT64)
    index = drawing.draw_node(
        "LabelEncoder", whole, domain=ML,
        keys_tensor=make_tensor(known), values_tensor=make_tensor(np.arange(len(known))),
        default_tensor=make_tensor(np.array([len(known)])),
    )  # fmt: skip
    if len(sides) > len(known) + 1:
        missing = drawing.add_constant(np.array(len(known) + 1, dtype=np.int64))
        index = drawing.draw_node("Where", drawing.draw_node("IsNaN", matrix), missing, index)
    index = drawing.draw_node("Squeeze", index, drawing.add_constant(np.array([1], dtype=np.int64)))
    return drawing.draw_node("Gather", drawing.add_constant(sides), index, axis=0)
