"""A copy of a request, for a version whose answer nobody sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    def measure_bytes(self) -> int:
        """Return the size of body and answer, roughly."""
        nbytes, answer = self.body_bytes, self.answer
        if answer is not None:
            for tensor in _list_tensors(answer):
                nbytes += tensor.nbytes if isinstance(tensor, np.ndarray) else _OBJECT_BYTES * len(tensor)
        return nbytes

    def without_views(self) -> RequestCopy:
        """Return a copy that may be kept: an answer of one row may be a view of the answers to a whole batch."""
        answer = self.answer
        if answer is None:
            return self
        if any(map(_is_small_view, _list_tensors(answer))):
            also = tuple((method, _own(prediction)) for method, prediction in answer.also)
            answer = answer._replace(prediction=_own(answer.prediction), also=also)
        return self._replace(answer=answer._replace(batch=None))


def _list_tensors(answer: Answer) -> Sequence[Tensor]:
    tensors = answer.prediction.tensors
    return [*tensors, *(tensor for _, more in answer.also for tensor in more.tensors)] if answer.also else tensors


def _is_small_view(tensor: Tensor) -> bool:
    return isinstance(tensor, np.ndarray) and tensor.base is not None and tensor.nbytes < _SMALL_BYTES


def _own(prediction: Prediction) -> Prediction:
    tensors = (tensor.copy() if _is_small_view(tensor) else tensor for tensor in prediction.tensors)
    return Prediction(tuple(tensors))
