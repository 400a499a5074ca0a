"""A copy of a request, for a version whose answer nobody sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from serving.domain.signature import Signature
from serving.plane.prediction import Answer, PredictRequest
from serving.plane.served_split import ServedSplit
from serving.rows.batch import Prediction, Tensor

_OBJECT_BYTES = 64
_SMALL_BYTES = 64 << 10


class RequestCopy(NamedTuple):
    """A request that the old version of a split has answered, or refused: then `answer` is None.

    `read` makes its rows for a signature, in a thread if `is_slow`, as the request's protocol does. Its body had
    `body_bytes`; `key` is who the client is, if a header says that.
    """

    split: ServedSplit
    read: Callable[[Signature], PredictRequest]
    is_slow: bool
    body_bytes: int
    answer: Answer | None
    key: bytes | None

    @property
    def nbytes(self) -> int:
        """The size of body and answer in bytes, roughly."""
        outputs = () if self.answer is None else self.answer.outputs
        return self.body_bytes + sum(_measure(tensor) for _, prediction in outputs for tensor in prediction.tensors)

    def without_views(self) -> RequestCopy:
        """Return a copy that may be kept: an answer of one row may be a view of the answers to a whole batch."""
        answer = self.answer
        if answer is None:
            return self
        also = tuple((method, _own(prediction)) for method, prediction in answer.also)
        return self._replace(answer=answer._replace(prediction=_own(answer.prediction), also=also))


def _measure(tensor: Tensor) -> int:
    return tensor.nbytes if isinstance(tensor, np.ndarray) else _OBJECT_BYTES * len(tensor)


def _own(prediction: Prediction) -> Prediction:
    return Prediction(tuple([_own_small(tensor) for tensor in prediction.tensors]))


def _own_small(tensor: Tensor) -> Tensor:
    if isinstance(tensor, np.ndarray) and tensor.base is not None and tensor.nbytes < _SMALL_BYTES:
        return tensor.copy()
    return tensor
