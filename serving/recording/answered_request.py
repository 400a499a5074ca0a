"""A copy of a request that has been answered, small enough to wait in memory until it is written."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np

from serving.domain.signature import Method, Signature
from serving.plane.prediction import Answer
from serving.rows.batch import Batch, Column, Tensor

MOST_ROWS = 1000  # of one request
MOST_CELLS = 50_000  # numbers and texts of these rows and their answers; one row is always kept
_OBJECT_BYTES = 64
_SCALARS = (str, int, float, bool, type(None))


class AnsweredRequest(NamedTuple):
    """The first rows of a request and their answers. No array in it is a view, and nobody changes it.

    `at` is a Unix time, `seconds` how long the answer took. The request had `rows` rows, of which the batch has some.
    """

    at: float
    request_id: str | bytes | None
    model: str
    version: str
    signature: Signature
    rows: int
    batch: Batch
    outputs: tuple[tuple[Method, tuple[Tensor, ...]], ...]
    seconds: float
    nbytes: int


def copy_request(
    answer: Answer,
    signature: Signature,
    at: float,
    request_id: str | bytes | None,
    seconds: float,
    body_bytes: int | None,
) -> AnsweredRequest | None:
    """Return a copy of what was asked and answered; None where the rows are not known. Takes microseconds; any thread.

    `body_bytes` is the size of the request, which bounds its texts. None: the rows are objects of an application, which
    may change them later; texts in them are measured, and lists and objects are copied.
    """
    batch = answer.batch
    if batch is None:
        return None
    kept = _count_kept(answer, signature)
    is_foreign = body_bytes is None
    if batch.matrix is not None:
        part = Batch(kept, matrix=_own_array(batch.matrix, kept))
    else:
        columns = batch.columns or ()
        part = Batch(kept, columns=tuple([_own(column, kept, is_foreign) for column in columns]))
    outputs = tuple(
        [(method, tuple([_own(each, kept, is_foreign) for each in given.tensors])) for method, given in answer.outputs]
    )
    nbytes = _OBJECT_BYTES * (4 + len(outputs)) + _measure_batch(part, body_bytes)
    for _, tensors in outputs:
        nbytes += sum([_measure(tensor) for tensor in tensors])
    return AnsweredRequest(
        at, request_id, answer.model, answer.version, signature, answer.rows, part, outputs, seconds, nbytes
    )


def _count_kept(answer: Answer, signature: Signature) -> int:
    if answer.rows == 1:
        return 1
    width = len(signature.features)
    for _, given in answer.outputs:
        for tensor in given.tensors:
            width += tensor.size // max(1, len(tensor)) if isinstance(tensor, np.ndarray) else 1
    return min(answer.rows, MOST_ROWS, max(1, MOST_CELLS // width))


def _own_array(array: Any, kept: int) -> Any:
    """Return the first rows of an array that may be kept: not a view of a larger one, nor of a buffer."""
    if array.base is None and len(array) == kept:
        return array
    return array[:kept].copy()


def _own(values: Column | Tensor, kept: int, is_foreign: bool) -> Any:
    if isinstance(values, np.ndarray):
        return _own_array(values, kept)
    part = values[:kept]
    if is_foreign and not all(isinstance(value, _SCALARS) for value in part):
        return deepcopy(part)
    return part


def _measure_batch(batch: Batch, body_bytes: int | None) -> int:
    """Return about how many bytes the rows take: the objects, and their texts, which the body held."""
    if batch.matrix is not None:
        return batch.matrix.nbytes
    columns = batch.columns or ()
    if body_bytes is None:
        return sum(map(_measure, columns))
    arrays = sum([column.nbytes for column in columns if isinstance(column, np.ndarray)])
    return arrays + body_bytes + _OBJECT_BYTES * batch.rows * len(columns)


def _measure(values: Any) -> int:
    if isinstance(values, np.ndarray):
        return values.nbytes
    if isinstance(values, str):
        return _OBJECT_BYTES + len(values)
    if isinstance(values, list):
        return _OBJECT_BYTES + sum(map(_measure, values))
    if isinstance(values, dict):
        return _OBJECT_BYTES + sum(len(key) + _measure(value) for key, value in values.items())
    return _OBJECT_BYTES
