"""The queue of requests that wait for a host, and the choice of requests that go to it together.

Requests that queued while the host was busy go as one frame, if they ask the same method in the same layout. No request
waits for others: there is no timer here.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from serving.domain.errors import DeadlineExceeded, InvalidInput, ModelFailed, ServingError
from serving.domain.signature import Method
from serving.rows.batch import Batch, Column, Prediction, Tensor
from serving.rows.batch_merging import MAX_MERGED_BYTES, measure_batch, split_prediction
from serving.telemetry.request_trace import RequestStage, RequestTrace
from serving.wire.frames import Buffer, Frame, FrameKind
from serving.wire.payloads import decode_answer, decode_detail, encode_batch, encode_tensors

_ALIGNMENT = 8


@dataclass(slots=True, eq=False)
class Request:
    """One batch on its way: its deadline, the future that waits for it, and the result of earlier sends.

    `is_alone` is set after a frame with this request failed: then it is sent by itself, so that only the request at
    fault gets the error. `deaths` counts the hosts that died while they answered only this request. `trace` is that of
    the caller, if it is traced.
    """

    number: int
    method: Method
    batch: Batch
    ends_at: float
    limit_seconds: float
    answer: asyncio.Future[Prediction]
    is_alone: bool = False
    deaths: int = 0
    nbytes: int = 0
    layout: tuple[Any, ...] | None = None
    trace: RequestTrace | None = None

    def settle(self, outcome: Prediction | ServingError) -> None:
        """Give the outcome to the caller, if it still waits."""
        if self.answer.done():
            return
        if isinstance(outcome, Prediction):
            self.answer.set_result(outcome)
        else:
            self.answer.set_exception(outcome)

    def expire(self) -> None:
        """Tell the caller that the deadline has passed."""
        waited = f"no answer within {self.limit_seconds:g} s (server.predict_seconds)"
        self.settle(DeadlineExceeded(f"{waited}; send fewer rows or raise the setting"))


class Queue:
    """Requests that have not been sent, oldest first. Event loop thread only."""

    def __init__(self) -> None:
        self._requests: dict[Request, None] = {}
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Request) -> None:
        """Append a request."""
        request.nbytes, layout = measure_batch(request.batch)
        request.layout = (request.method, layout)
        self.nbytes += request.nbytes
        self._requests[request] = None
        if request.trace is not None:
            request.trace.enter(RequestStage.WAIT)

    def put_back(self, requests: Iterable[Request]) -> None:
        """Put requests that were sent without success back into their old places."""
        for request in requests:
            self.add(request)
        self._requests = dict.fromkeys(sorted(self._requests, key=lambda request: request.number))

    def discard(self, request: Request) -> None:
        """Forget a request, if it is here."""
        if request in self._requests:
            del self._requests[request]
            self.nbytes -= request.nbytes

    def take(self, max_rows: int) -> list[Request]:
        """Remove and return the oldest request, and with it the next ones like it as long as they fit together.

        Others are skipped, and keep their places: the oldest is in the next batch, always. Empty when nothing waits.
        """
        oldest = next(iter(self._requests), None)
        if oldest is None:
            return []
        taken, rows, nbytes = [oldest], oldest.batch.rows, oldest.nbytes
        if not oldest.is_alone:
            for request in self._requests:
                if request is oldest or request.is_alone or request.layout != oldest.layout:
                    continue
                rows += request.batch.rows
                nbytes += request.nbytes
                if rows > max_rows or nbytes > MAX_MERGED_BYTES:
                    break
                taken.append(request)
        for request in taken:
            self.discard(request)
        return taken

    def clear(self) -> list[Request]:
        """Remove and return everything."""
        requests, self._requests, self.nbytes = list(self._requests), {}, 0
        return requests

    def expire(self, now: float) -> None:
        """Answer and remove the requests that are past their deadline."""
        for request in [request for request in self._requests if request.ends_at <= now]:
            self.discard(request)
            request.expire()

    @property
    def first_deadline(self) -> float:
        """The earliest deadline of all; infinity when nothing waits."""
        return min((request.ends_at for request in self._requests), default=math.inf)


def encode(requests: Sequence[Request]) -> tuple[bytes, list[Buffer]]:
    """Return header and payload buffers of one PREDICT frame for requests of one layout; arrays are not copied.

    Raises ProtocolError, or TypeError for values that JSON has no form for.
    """
    method, first = requests[0].method, requests[0].batch
    if len(requests) == 1:
        return encode_batch(method, first)
    rows = sum(request.batch.rows for request in requests)
    descriptions: list[dict[str, Any]] = []
    buffers: list[Buffer] = []
    for parts in zip(*(_list_columns(request.batch) for request in requests), strict=True):
        _encode_joined(parts, rows, descriptions, buffers)
    header = {"method": method, "rows": rows, "matrix": first.matrix is not None, "tensors": descriptions}
    return orjson.dumps(header), buffers


def decode(frame: Frame, rows: int) -> Prediction | ServingError:
    """Return the answer of a host to one PREDICT frame of `rows` rows; raises ProtocolError."""
    if frame.kind is FrameKind.PREDICTION:
        return decode_answer(frame.header, frame.payload, rows)
    detail = decode_detail(frame.header)
    return InvalidInput(detail) if frame.kind is FrameKind.REFUSAL else ModelFailed(detail)


def split(prediction: Prediction, requests: Sequence[Request]) -> list[Prediction]:
    """Cut one answer, which has all their rows, into one for each request, in order; arrays are views."""
    if len(requests) == 1:
        return [prediction]
    return split_prediction(prediction, [request.batch.rows for request in requests])


def note_batch(trace: RequestTrace, rows: int, requests: int) -> None:
    """Note that a traced request goes to a host now, in a batch of so many rows of so many requests."""
    trace.enter(RequestStage.HOST, **{"serving.batch.rows": rows, "serving.batch.requests": requests})


def _list_columns(batch: Batch) -> tuple[Column | Tensor, ...]:
    return (batch.matrix,) if batch.matrix is not None else batch.columns or ()


def _encode_joined(
    parts: tuple[Any, ...], rows: int, descriptions: list[dict[str, Any]], buffers: list[Buffer]
) -> None:
    """Encode one column that comes in parts: the parts' buffers one after another are the buffer of the whole."""
    first = parts[0]
    if not isinstance(first, np.ndarray):
        described, encoded = encode_tensors([[cell for part in parts for cell in part]])
        descriptions += described
        buffers += encoded
        return
    shape = (rows, *first.shape[1:])
    nbytes = rows * first[:1].nbytes
    descriptions.append({"dtype": first.dtype.str, "shape": shape})
    if nbytes:
        buffers += [np.ascontiguousarray(part).data.cast("B") for part in parts]
    if nbytes % _ALIGNMENT:
        buffers.append(bytes(-nbytes % _ALIGNMENT))
