"""Turn rows, as clients send them, into a Batch.

Every HTTP protocol and the golden gate use this module, so a stored example is read exactly as a request is. Rows are
counted from 0, like the elements of the JSON array they came in.

What each dtype takes: NUMBER an integer or a float, finite and within float64 (a column with an integer that float64
would round becomes one of integers, or is refused: see `serving.rows.integers`); STRING a string; BOOL ``true`` or
``false`` (not 0 or 1: a number there is more often a shifted column than a flag); ANY any of the three, integers
within 64 bits. ``null`` is accepted only where the feature is nullable. Values are not converted to another kind, with
one exception: if the model was fitted on a table, ``true`` is 1 for a NUMBER, and 1 is ``true`` for a BOOL.
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
from numpy.typing import NDArray

from serving import json_codec
from serving.domain.errors import InvalidInput
from serving.domain.signature import Container, Dtype, Feature, Signature
from serving.rows.batch import Batch, Column
from serving.rows.integers import EXACT, has_rounded_cell, make_integer_column
from serving.rows.row_problems import (
    FLAGS,
    NUMBERS,
    Row,
    describe_value,
    describe_wrong_cell,
    describe_wrong_kind,
    describe_wrong_names,
    explain_number,
    is_flat,
    is_unicode,
    list_taken_types,
)

_MAX_RULES = 256
_PLAINLY_EXACT = EXACT / 2  # if a row's norm is at most this, each of its numbers is exact
_ZERO, _ONE = struct.pack("d", 0.0), struct.pack("d", 1.0)


@dataclass(frozen=True, slots=True)
class _RowRules:
    """What one signature requires of every request, computed once."""

    signature: Signature
    count: int
    is_numeric: bool
    is_nullable: bool
    is_table: bool
    pack: Callable[..., bytes]
    pick: Callable[[Any], Row]
    unused: tuple[int, ...]


_rules_by_id: dict[int, _RowRules] = {}


def rows_to_batch(signature: Signature, rows: list[Any]) -> Batch:
    """Check parsed JSON rows against `signature` and lay them out for the model.

    Rows are arrays in the order of the features, or objects keyed by feature name in any order; for texts also plain
    strings, for a model of objects these only. One batch holds one kind. Raises InvalidInput, naming the first row and
    the feature at fault. Does not block; any thread.
    """
    rules = _get_rules(signature)
    if not isinstance(rows, list):
        raise InvalidInput(f"expected an array of rows, got {describe_value(rows)}")
    if not rows:
        raise InvalidInput("no rows: send at least one")
    if len(rows) == 1 and rules.is_numeric and not rules.unused:
        single = _read_single_row(rules, rows)
        if single is not None:
            return single
    kinds = set(map(type, rows))
    arranged: Sequence[Row] = rows
    if kinds == {dict}:
        is_object = signature.container is Container.OBJECTS
        arranged = [(row,) for row in rows] if is_object else _order_values(rules, rows)
    elif kinds == {str} and signature.container is Container.TEXTS:
        arranged = [(text,) for text in rows]
    elif kinds != {list} or signature.container is Container.OBJECTS:
        raise InvalidInput(describe_wrong_kind(signature, rows))
    if rules.unused:
        arranged = _blank_unused(rules, arranged)
    if rules.is_numeric:
        matrix = _read_matrix(rules, arranged)
        if matrix is not None:
            return Batch(len(rows), matrix=matrix)
    columns = _read_columns(rules, arranged)
    if columns is None:
        raise InvalidInput(describe_wrong_cell(signature, arranged))
    return Batch(len(rows), columns=columns)


def _get_rules(signature: Signature) -> _RowRules:
    # By identity: hashing a signature costs more than reading a row. The rules keep it alive, so its id stays unique.
    rules = _rules_by_id.get(id(signature))
    if rules is None:
        if len(_rules_by_id) >= _MAX_RULES:
            _rules_by_id.clear()
        rules = _rules_by_id[id(signature)] = _make_rules(signature)
    return rules


def _make_rules(signature: Signature) -> _RowRules:
    names = tuple(feature.name for feature in signature.features)
    if not names:
        raise InvalidInput("the model takes no features, so there is no row it could answer")
    getter = itemgetter(*names)
    return _RowRules(
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


def _read_single_row(rules: _RowRules, rows: list[Any]) -> Batch | None:
    """Return one row of finite numbers as a batch; None for anything else, and for numbers that need more checks."""
    row = rows[0]
    if type(row) is dict:
        row = _order_values(rules, rows)[0]
    elif type(row) is not list:
        return None
    try:
        raw = rules.pack(*row)
        if not hypot(*row) <= _PLAINLY_EXACT:  # true for NaN; faster than checking each number
            return None
    except (struct.error, OverflowError):
        return None
    if (_ZERO in raw or _ONE in raw) and not rules.is_table and bool in map(type, row):
        return None
    return Batch(1, np.ndarray((1, rules.count), np.float64, raw))


def _read_matrix(rules: _RowRules, rows: Sequence[Row]) -> NDArray[np.float64] | None:
    """Return (rows, features) float64; None when a cell is wrong or would be rounded."""
    pack = rules.pack
    try:
        # faster than np.array; refuses strings, nulls and rows of other lengths; allocates nothing for long strings
        raw = b"".join([pack(*row) for row in rows])
    except (struct.error, OverflowError):
        return _read_matrix_with_nulls(rules, rows) if rules.is_nullable else None
    matrix = np.frombuffer(raw).reshape(len(rows), rules.count)
    if not rules.is_table and _has_bools(rows, matrix):
        return None
    if matrix.min() >= -EXACT and matrix.max() <= EXACT:  # false with NaN
        return matrix
    return matrix if np.isfinite(matrix).all() and not has_rounded_cell(chain.from_iterable(rows)) else None


def _has_bools(rows: Sequence[Row], matrix: NDArray[np.float64]) -> bool:
    """Say whether a bool is among numbers. A matrix holds it as 0 or 1, and few matrices have any of these."""
    if not ((matrix == 0) | (matrix == 1)).any():
        return False
    try:
        if b"e" not in json_codec.dumps(rows):  # in true, false and few numbers; four times as fast as asking for types
            return False
    except TypeError:
        pass
    return bool in set(map(type, chain.from_iterable(rows)))


def _read_matrix_with_nulls(rules: _RowRules, rows: Sequence[Row]) -> NDArray[np.float64] | None:
    cells = list(chain.from_iterable(rows))
    if set(map(len, rows)) != {rules.count} or not set(map(type, cells)) <= list_taken_types(
        Dtype.NUMBER, rules.is_table
    ) | {NoneType}:
        return None
    flat = _read_floats(cells)
    if flat is None:
        return None
    matrix = flat.reshape(len(rows), rules.count)
    with_nulls = np.flatnonzero(np.isnan(matrix).any(axis=0))
    return (
        matrix
        if not _may_be_rounded(matrix, cells) and all(rules.signature.features[index].nullable for index in with_nulls)
        else None
    )


def _read_columns(rules: _RowRules, rows: Sequence[Row]) -> tuple[Column, ...] | None:
    if set(map(len, rows)) != {rules.count}:
        return None
    if rules.signature.container is Container.OBJECTS:
        objects = [row[0] for row in rows]
        return (objects,) if all(map(is_flat, objects)) else None
    columns = []
    for feature, cells in zip(rules.signature.features, zip(*rows, strict=True), strict=True):
        column = _read_typed_cells(feature, cells) if rules.signature.is_typed else None
        column = _read_column(feature, cells, rules.is_table) if column is None else column
        if column is None:
            return None
        columns.append(column)
    return tuple(columns)


def _read_column(feature: Feature, cells: tuple[Any, ...], is_table: bool) -> Column | None:
    types = set(map(type, cells))
    has_null = NoneType in types
    if not types <= list_taken_types(feature.dtype, is_table) | {NoneType} or (has_null and not feature.nullable):
        return None
    if feature.is_number:
        floats = _read_floats(cells)
        return make_integer_column(cells) if floats is None or _may_be_rounded(floats, cells) else floats
    if feature.dtype is Dtype.BOOL:
        return _read_flags(cells, has_null=has_null)
    is_text = str not in types or is_unicode(cells)
    if not is_text or any(explain_number(cell, Dtype.ANY) for cell in cells if type(cell) in NUMBERS):
        return None
    return list(cells)


def _read_typed_cells(feature: Feature, cells: tuple[Any, ...]) -> Column | None:
    """Return a column of only integers or only bools in its own dtype; None for all others."""
    if feature.dtype is not Dtype.NUMBER:
        return None
    return np.array(cells, dtype=np.bool_) if set(map(type, cells)) == {bool} else make_integer_column(cells)


def _read_flags(cells: tuple[Any, ...], *, has_null: bool) -> Column | None:
    """Return bools; zeros and ones count as bools. None when there is another number."""
    if not FLAGS.issuperset(cells):
        return None
    return [None if cell is None else bool(cell) for cell in cells] if has_null else np.array(cells, dtype=np.bool_)


def _read_floats(cells: Sequence[Any]) -> NDArray[np.float64] | None:
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
    """Say whether a cell was an integer that float64 has rounded."""
    return bool((np.abs(floats) > EXACT).any()) and has_rounded_cell(cells)


def _blank_unused(rules: _RowRules, rows: Sequence[Row]) -> Sequence[Row]:
    """Put null into features that the model does not use."""
    unused = frozenset(rules.unused)
    return [[None if place in unused else cell for place, cell in enumerate(row)] for row in rows]


def _order_values(rules: _RowRules, rows: list[dict[str, Any]]) -> list[Row]:
    """Put the values of objects into the order of the features."""
    if rules.unused:
        unused = dict.fromkeys(rules.signature.features[place].name for place in rules.unused)
        rows = [{**unused, **row} for row in rows]
    try:
        arranged = [rules.pick(row) for row in rows]
    except KeyError:
        raise InvalidInput(describe_wrong_names(rules.signature, rows)) from None
    if set(map(len, rows)) != {rules.count}:
        raise InvalidInput(describe_wrong_names(rules.signature, rows))
    return arranged
