"""Convert rows to a batch: a few rows at once, many rows piece by piece in a worker thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.domain.errors import InvalidInput
from serving.domain.signature import Dtype, Feature, Signature
from serving.rows.batch import Batch, Column
from serving.rows.integers import is_rounded, join_columns
from serving.rows.parsing import rows_to_batch
from serving.rows.row_problems import describe_rounded
from serving.rows.tables import Table, table_to_batch

# Converting 2,000 rows of 30 numbers takes about 2 ms; more would delay the requests behind it noticeably.
INLINE_ROWS = 2_000
INLINE_CELLS = 60_000
PIECE_ROWS = 1_000
YIELD_SECONDS = 1e-5
YIELD_EVERY_SECONDS = 5e-4


class Piece:
    """Some consecutive rows of many.

    `matrix` holds the same rows if they are known to be arrays of finite numbers of equal length; else it is None.
    """

    __slots__ = ("_rows", "matrix")

    def __init__(self, rows: list[Any] | Callable[[], list[Any]], matrix: NDArray[np.float64] | None = None) -> None:
        self._rows = rows
        self.matrix = matrix

    @property
    def rows(self) -> list[Any]:
        """The rows as JSON has them; made at the first access."""
        if not isinstance(self._rows, list):
            self._rows = self._rows()
        return self._rows


class ManyRows(Protocol):
    """Rows that come in pieces, so that they need not all exist as Python values at once. Iterated in a worker thread.

    Iterating may raise RequestRefused when a piece does not hold rows.
    """

    def __len__(self) -> int:
        """Return the number of rows in all pieces."""
        ...

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces in order."""
        ...


def are_few(rows: list[Any] | ManyRows | Table) -> bool:
    """Say whether rows are so few that the event loop may call `convert_rows`."""
    if isinstance(rows, Table):
        return rows.rows * rows.width <= INLINE_CELLS
    return isinstance(rows, list) and len(rows) <= INLINE_ROWS


def convert_rows(signature: Signature, rows: list[Any] | ManyRows | Table) -> Batch:
    """Check rows against the signature and convert them. Any thread; many rows (see `are_few`) take a while.

    Raises InvalidInput.
    """
    if isinstance(rows, Table):
        return table_to_batch(signature, rows)
    if not isinstance(rows, list):
        return _convert_in_turn(signature, rows)
    if len(rows) <= INLINE_ROWS:
        return rows_to_batch(signature, rows)
    return _convert_in_turn(signature, _cut_pieces(rows))


def _cut_pieces(rows: list[Any]) -> Iterator[Piece]:
    for start in range(0, len(rows), PIECE_ROWS):
        yield Piece(rows[start : start + PIECE_ROWS])


def _convert_in_turn(signature: Signature, pieces: Iterable[Piece]) -> Batch:
    """Convert in a worker thread, piece by piece: one long call would keep the interpreter lock from the event loop.

    Many short calls without a pause would do the same: a thread that releases the lock and takes it again at once (as
    numpy does) wins against a waiting thread every time. The longest wait while 13 MiB were converted, measured: 90 ms
    without the sleep, 5 ms with it.
    """
    features = signature.features
    is_plain = all(feature.dtype is Dtype.NUMBER for feature in features) and not signature.is_typed
    width = len(signature.features) if is_plain else None
    batches: list[Batch] = []
    first: Any = None
    done = 0
    began = time.perf_counter()
    for piece in pieces:
        matrix = piece.matrix
        if matrix is not None and matrix.shape[1] == width and (isinstance(first, list) or not batches):
            batches.append(Batch(len(matrix), matrix=matrix))
            first = matrix[0].tolist() if first is None else first
        else:
            batches.append(_convert_piece(signature, piece, first, done))
            first = piece.rows[0] if first is None else first
        done += batches[-1].rows
        if time.perf_counter() - began > YIELD_EVERY_SECONDS:
            time.sleep(YIELD_SECONDS)
            began = time.perf_counter()
    if len(batches) > 1:
        return _join_batches(signature, batches, done)
    return batches[0] if batches else rows_to_batch(signature, [])


def _convert_piece(signature: Signature, piece: Piece, first: Any, before: int) -> Batch:
    """Convert a piece with `before` rows in front of it, all of the same kind as the row `first`."""
    rows = piece.rows
    if before and type(rows[0]) is not type(first):
        rows_to_batch(signature, [first, *rows])
    try:
        return rows_to_batch(signature, rows)
    except InvalidInput:
        # Messages count rows from the first one given: put as many good rows in front as came before this piece.
        return rows_to_batch(signature, [first] * before + rows)


def _join_batches(signature: Signature, batches: list[Batch], rows: int) -> Batch:
    matrices = [batch.matrix for batch in batches if batch.matrix is not None]
    if len(matrices) == len(batches):
        return Batch(rows, matrix=np.concatenate(matrices))
    columns = zip(*(batch.columns if batch.matrix is None else batch.matrix.T for batch in batches), strict=True)
    named = zip(signature.features, columns, strict=True)
    return Batch(rows, columns=tuple(_join_column(feature, parts) for feature, parts in named))


def _join_column(feature: Feature, parts: tuple[Column, ...]) -> Column:
    arrays: list[NDArray[Any]] = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) < len(parts):
        # Bools are an array in a piece without missing values, and a list in others: then the whole column is a list.
        return [value for part in parts for value in (part.tolist() if isinstance(part, np.ndarray) else part)]
    if not feature.is_number:
        return np.concatenate(arrays)
    joined = join_columns(arrays)
    if joined is None:
        large = next(
            value for part in arrays if part.dtype.kind in "iu" for value in part.tolist() if is_rounded(value)
        )
        raise InvalidInput(f"feature '{feature.name}': {describe_rounded(large)}")
    return joined
