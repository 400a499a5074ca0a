"""Rows as clients send them, turned into a Batch.

Used wherever rows come in: by every HTTP protocol and by the golden gate, so that a stored example is read exactly as a
request is. Rows count from 0, like the positions of the JSON array they came in.

What each dtype takes: NUMBER an integer or a float, finite and within float64 (a column with an integer that float64
would round is one of integers, or refused: see `serving.rows.integers`); STRING a string; BOOL ``true`` or
``false`` (not 0 or 1: a number there is more often a shifted column than a flag); ANY any of the three, integers
within 64 bits. ``null`` goes only where the feature is nullable. Nothing is converted from one kind to another, but for
what is the same in a table: where the model was fitted on one, ``true`` is 1 for a NUMBER, 1 is ``true`` for a BOOL.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import hypot
from operator import itemgetter
from types import NoneType
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from serving.domain.errors import InvalidInput
from serving.domain.signature import Container, Dtype, Feature, Signature
from serving.rows.batch import Batch, Column
from serving.rows.integers import EXACT, any_rounded, integer_column
from serving.rows.row_problems import (
    FLAGS,
    NUMBERS,
    Row,
    cells_problem,
    is_flat,
    is_unicode,
    kinds_problem,
    names_problem,
    number_problem,
    shown,
    taken_types,
)

_MAX_PLANS = 256
_PLAINLY_EXACT = EXACT / 2  # a length that says of each of its coordinates that it is exact, however it is rounded
_ZERO, _ONE = struct.pack("d", 0.0), struct.pack("d", 1.0)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one signature asks of every request, worked out once."""

    signature: Signature
    count: int
    is_numeric: bool
    is_nullable: bool
    is_table: bool
    pack: Callable[..., bytes]
    pick: Callable[[Any], Row]
    unused: tuple[int, ...]


_plans: dict[int, _Plan] = {}


def rows_to_batch(signature: Signature, rows: list[Any]) -> Batch:
    """Check parsed JSON rows against `signature` and lay them out for the model.

    Rows are arrays in the order of the features, or objects keyed by feature name in any order; for texts also plain
    strings, for a model of objects these only. One batch holds one kind. Raises InvalidInput, naming the first row and
    the feature at fault. Does not block; any thread.
    """
    plan = _plan_of(signature)
    if not isinstance(rows, list):
        raise InvalidInput(f"expected an array of rows, got {shown(rows)}")
    if not rows:
        raise InvalidInput("no rows: send at least one")
    if len(rows) == 1 and plan.is_numeric and not plan.unused:
        single = _single(plan, rows)
        if single is not None:
            return single
    kinds = set(map(type, rows))
    arranged: Sequence[Row] = rows
    if kinds == {dict}:
        is_object = signature.container is Container.OBJECTS
        arranged = [(row,) for row in rows] if is_object else _arrange(plan, rows)
    elif kinds == {str} and signature.container is Container.TEXTS:
        arranged = [(text,) for text in rows]
    elif kinds != {list} or signature.container is Container.OBJECTS:
        raise InvalidInput(kinds_problem(signature, rows))
    if plan.unused:
        arranged = _without_unused(plan, arranged)
    if plan.is_numeric:
        matrix = _matrix(plan, arranged)
        if matrix is not None:
            return Batch(len(rows), matrix=matrix)
    columns = _columns(plan, arranged)
    if columns is None:
        raise InvalidInput(cells_problem(signature, arranged))
    return Batch(len(rows), columns=columns)


def _plan_of(signature: Signature) -> _Plan:
    # by identity: hashing a signature costs more than reading a row. The plan keeps it alive, so no other has its id.
    plan = _plans.get(id(signature))
    if plan is None:
        if len(_plans) >= _MAX_PLANS:
            _plans.clear()
        plan = _plans[id(signature)] = _make_plan(signature)
    return plan


def _make_plan(signature: Signature) -> _Plan:
    names = tuple(feature.name for feature in signature.features)
    if not names:
        raise InvalidInput("the model takes no features, so there is no row it could answer")
    getter = itemgetter(*names)
    return _Plan(
        signature=signature,
        count=len(names),
        is_numeric=all(feature.is_number for feature in signature.features) and not signature.is_typed,
        is_nullable=any(feature.nullable for feature in signature.features),
        is_table=signature.container is Container.DATAFRAME,
        pack=struct.Struct(f"{len(names)}d").pack,
        pick=getter if len(names) > 1 else lambda row: (getter(row),),
        unused=tuple(place for place, feature in enumerate(signature.features) if not feature.is_used),
    )


# --- layouts ----------------------------------------------------------------------------------------------------------


def _single(plan: _Plan, rows: list[Any]) -> Batch | None:
    """Return one row of finite numbers as a batch; None for anything else, and for numbers that need a closer look."""
    row = rows[0]
    if type(row) is dict:
        row = _arrange(plan, rows)[0]
    elif type(row) is not list:
        return None
    try:
        raw = plan.pack(*row)
        if not hypot(*row) <= _PLAINLY_EXACT:  # true for NaN; faster than to look at each
            return None
    except (struct.error, OverflowError):
        return None
    if (_ZERO in raw or _ONE in raw) and not plan.is_table and bool in map(type, row):
        return None
    return Batch(1, np.ndarray((1, plan.count), np.float64, raw))


def _matrix(plan: _Plan, rows: Sequence[Row]) -> NDArray[np.float64] | None:
    """Return (rows, features) float64; None when some cell is not right or would be rounded."""
    pack = plan.pack
    try:
        # faster than np.array, refuses strings, nulls and ragged rows, and never allocates by the longest string
        raw = b"".join([pack(*row) for row in rows])
    except (struct.error, OverflowError):
        return _matrix_with_nulls(plan, rows) if plan.is_nullable else None
    matrix = np.frombuffer(raw).reshape(len(rows), plan.count)
    if not plan.is_table and _has_bools(rows, matrix):
        return None
    if matrix.min() >= -EXACT and matrix.max() <= EXACT:  # not so with NaN
        return matrix
    return matrix if np.isfinite(matrix).all() and not any_rounded(chain.from_iterable(rows)) else None


def _has_bools(rows: Sequence[Row], matrix: NDArray[np.float64]) -> bool:
    """Say whether a bool is among numbers, which became the 0s and 1s of a matrix; few have any of these."""
    if not ((matrix == 0) | (matrix == 1)).any():
        return False
    try:
        if b"e" not in orjson.dumps(rows):  # true, false, and few numbers: a quarter of the time of asking for types
            return False
    except TypeError:
        pass
    return bool in set(map(type, chain.from_iterable(rows)))


def _matrix_with_nulls(plan: _Plan, rows: Sequence[Row]) -> NDArray[np.float64] | None:
    cells = list(chain.from_iterable(rows))
    if set(map(len, rows)) != {plan.count} or not set(map(type, cells)) <= taken_types(Dtype.NUMBER, plan.is_table) | {
        NoneType
    }:
        return None
    flat = _floats(cells)
    if flat is None:
        return None
    matrix = flat.reshape(len(rows), plan.count)
    with_nulls = np.flatnonzero(np.isnan(matrix).any(axis=0))
    return (
        matrix
        if not _may_be_rounded(matrix, cells) and all(plan.signature.features[index].nullable for index in with_nulls)
        else None
    )


def _columns(plan: _Plan, rows: Sequence[Row]) -> tuple[Column, ...] | None:
    if set(map(len, rows)) != {plan.count}:
        return None
    if plan.signature.container is Container.OBJECTS:
        objects = [row[0] for row in rows]
        return (objects,) if all(map(is_flat, objects)) else None
    columns = []
    for feature, cells in zip(plan.signature.features, zip(*rows, strict=True), strict=True):
        column = _typed(feature, cells) if plan.signature.is_typed else None
        column = _column(feature, cells, plan.is_table) if column is None else column
        if column is None:
            return None
        columns.append(column)
    return tuple(columns)


def _column(feature: Feature, cells: tuple[Any, ...], is_table: bool) -> Column | None:
    types = set(map(type, cells))
    has_null = NoneType in types
    if not types <= taken_types(feature.dtype, is_table) | {NoneType} or (has_null and not feature.nullable):
        return None
    if feature.is_number:
        floats = _floats(cells)
        return integer_column(cells) if floats is None or _may_be_rounded(floats, cells) else floats
    if feature.dtype is Dtype.BOOL:
        return _flags(cells, has_null=has_null)
    is_text = str not in types or is_unicode(cells)
    if not is_text or any(number_problem(cell, Dtype.ANY) for cell in cells if type(cell) in NUMBERS):
        return None
    return list(cells)


def _typed(feature: Feature, cells: tuple[Any, ...]) -> Column | None:
    """Return integers and bools among numbers as what they are; None for all others."""
    if feature.dtype is not Dtype.NUMBER:
        return None
    return np.array(cells, dtype=np.bool_) if set(map(type, cells)) == {bool} else integer_column(cells)


def _flags(cells: tuple[Any, ...], *, has_null: bool) -> Column | None:
    """Return bools, which zeros and ones may stand for; None when there is another number."""
    if not FLAGS.issuperset(cells):
        return None
    return [None if cell is None else bool(cell) for cell in cells] if has_null else np.array(cells, dtype=np.bool_)


def _floats(cells: Sequence[Any]) -> NDArray[np.float64] | None:
    """Return numbers and nulls as float64 with NaN for null; None when a number is not finite in float64."""
    try:
        column = np.array(cells, dtype=np.float64)
    except OverflowError:
        return None
    is_finite = np.isfinite(column)
    if is_finite.all() or np.count_nonzero(~is_finite) == cells.count(None):
        return column
    return None


def _may_be_rounded(floats: NDArray[np.float64], cells: Sequence[Any]) -> bool:
    """Say whether a cell was an integer that has become another number."""
    return bool((np.abs(floats) > EXACT).any()) and any_rounded(cells)


def _without_unused(plan: _Plan, rows: Sequence[Row]) -> Sequence[Row]:
    """Put null where the model looks at nothing."""
    unused = frozenset(plan.unused)
    return [[None if place in unused else cell for place, cell in enumerate(row)] for row in rows]


def _arrange(plan: _Plan, rows: list[dict[str, Any]]) -> list[Row]:
    """Put the values of objects into the order of the features."""
    if plan.unused:
        unused = dict.fromkeys(plan.signature.features[place].name for place in plan.unused)
        rows = [{**unused, **row} for row in rows]
    try:
        arranged = [plan.pick(row) for row in rows]
    except KeyError:
        raise InvalidInput(names_problem(plan.signature, rows)) from None
    if set(map(len, rows)) != {plan.count}:
        raise InvalidInput(names_problem(plan.signature, rows))
    return arranged
